"""Signs of life between neighbours: who is lost is known on every rank within seconds, and said by name."""
