"""The documentation: what it links to exists, and what it shows works."""
