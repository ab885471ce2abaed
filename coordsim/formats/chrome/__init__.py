"""Chrome's JSON trace events, as Perfetto and chrome://tracing open them."""
