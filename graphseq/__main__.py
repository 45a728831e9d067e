"""``python -m graphseq`` is the command line."""

import sys

from graphseq.cli import main

if __name__ == "__main__":
    sys.exit(main())
