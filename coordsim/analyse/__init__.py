"""One file per question that is asked of a simulation or a record."""
