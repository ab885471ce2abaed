"""A run for other people's tools, one file for each format; nothing in a run's names is ever a path or markup.

:mod:`~coordsim.record.export.picture` makes tracks and events of a run; ``chrome`` and ``perfetto`` write them.
``horovod`` and ``chakra`` write what ranks recorded in formats of their own.
"""
