"""``python -m bench`` in a source tree, ``fastconv bench`` where the package is installed."""

import sys

from .cli import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"bench: error: {error}")
