"""Other tools' formats: one folder each, with what reads it and what writes it.

:mod:`~coordsim.formats.table` is the list of formats that ``coordsim import`` reads. ``shared`` holds what several
formats need (JSON of any size, text with prefixes, PyTorch's types), ``picture`` the tracks and events that both trace
viewers show. Nothing in a file is ever executed, used as a path, or written as markup.
"""
