"""Tables and JSON of nccl-tests: how long one collective takes, by size."""
