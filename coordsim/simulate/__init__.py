"""HOW the protocol, the costs and a scenario become a trace: two engines, one result."""
