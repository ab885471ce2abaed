"""Control transports: how ranks perform the exchanges that a negotiator asks for.

One small interface (:mod:`real_backend.control.transport`); our own TCP tree, gloo and MPI behind it.
"""
