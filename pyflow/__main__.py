"""The command line: python -m pyflow."""

import sys

from pyflow._cli import main

if __name__ == "__main__":
    sys.exit(main())
