"""``python -m coordsim``."""

from coordsim.cli import main

main()
