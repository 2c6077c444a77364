"""`python -m codesign.measure`: measuring where only PyTorch and numpy are installed."""

import sys

from codesign.measure.command import main

sys.exit(main(sys.argv[1:]))
