"""`python -m mg` is the command `mg`."""

from mg.cli import main

main()
