"""The trace and run record that simulator and real backend both write, and the breakdown computed from it."""
