"""Perfetto's protobuf trace, as https://ui.perfetto.dev opens it."""
