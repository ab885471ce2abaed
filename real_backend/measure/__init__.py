"""Measures this machine with the backend's own parts: what models are fitted on and judged by."""
