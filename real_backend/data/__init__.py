"""Data transports: how a response's collective is carried out, once all ranks have agreed on it."""
