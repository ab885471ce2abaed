"""Control transports: how ranks perform the exchanges that a negotiator asks for.

There is one small interface (:mod:`real_backend.control.transport`), and a TCP tree, gloo and MPI behind it.
"""
