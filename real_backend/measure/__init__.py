"""Measures this machine: the backend's own control and data transports, compute, the protocol's CPU time.

:func:`real_backend.measure.host.measure` starts real processes and returns a
:class:`coordsim.record.measurement.Measurement`. Nothing is fitted here.
"""
