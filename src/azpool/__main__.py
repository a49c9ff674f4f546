"""`python -m azpool` is the command `azpool`."""

from __future__ import annotations

import sys

from azpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
