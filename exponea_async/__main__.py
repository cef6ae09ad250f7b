"""
``python -m exponea_async`` is the command line.
"""

import sys

from exponea_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
