"""How do you know? Predictions held against recordings, publications and other simulators."""
