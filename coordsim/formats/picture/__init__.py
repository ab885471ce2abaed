"""A run as tracks, slices, instants, counters and arrows: what trace viewers show, before any file format."""
