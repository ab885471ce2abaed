"""``validate recorded``: costs fitted on some recorded runs of real Horovod, the others predicted (docs/validation.md).

``cases`` turns a recording into closed-loop problems; ``costs`` says what is fitted and how it carries over to other
numbers of ranks; ``fit`` finds the costs and what the data cannot tell apart; ``judge`` compares.
"""
