"""Chrome's JSON trace events, which Perfetto and chrome://tracing open."""
