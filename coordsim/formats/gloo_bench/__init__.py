"""Tables of gloo's ``benchmark``: the time of one collective, by size."""
