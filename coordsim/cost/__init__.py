"""HOW LONG each thing takes: control exchanges, collectives, compute and its noise, copies, power."""
