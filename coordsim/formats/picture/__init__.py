"""A run as tracks, slices, instants, counters and arrows, as trace viewers show it, before any file format."""
