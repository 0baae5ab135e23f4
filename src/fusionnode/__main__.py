"""``python -m fusionnode``."""

import sys

from fusionnode.cli import main

if __name__ == "__main__":
    sys.exit(main())
