"""`python -m codesign`: the command line."""

from codesign.cli import main

main()
