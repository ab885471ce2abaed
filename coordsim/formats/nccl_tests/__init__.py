"""Tables and JSON of nccl-tests: the time of one collective, by size."""
