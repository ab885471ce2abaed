"""The protocol on real machines: torch.distributed transports, the model zoo and what it records."""
