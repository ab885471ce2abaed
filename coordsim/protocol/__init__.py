"""WHAT every rank decides. Pure: no clock, no network, nothing but the standard library.

Start at :mod:`coordsim.protocol.negotiator`: a rank's cycle is a generator of exchanges.
"""
