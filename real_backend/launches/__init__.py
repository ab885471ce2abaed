"""Launches of the backend that are recorded as real Horovod's were: what ``coordsim validate here`` is judged by."""
