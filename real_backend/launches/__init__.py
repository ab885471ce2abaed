"""Launches of the backend, recorded as real Horovod's were, by which ``coordsim validate here`` judges the
simulator."""
