"""`python -m jobserver_ffi.cli` is the `jobserver` command."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
