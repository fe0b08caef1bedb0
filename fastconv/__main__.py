"""``python -m fastconv``: the same program as the console script ``fastconv``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
