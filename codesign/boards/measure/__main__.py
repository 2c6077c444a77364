"""`python -m codesign.boards.measure`: measuring where only PyTorch and numpy are installed."""

import sys

from codesign.boards.measure.command import main

sys.exit(main(sys.argv[1:]))
