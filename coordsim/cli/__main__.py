"""``python -m coordsim.cli``."""

from coordsim.cli import main

main()
