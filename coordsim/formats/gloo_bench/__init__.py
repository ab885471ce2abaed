"""Tables of gloo's ``benchmark``: how long one collective takes, by size."""
