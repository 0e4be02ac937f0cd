"""`python -m kinema` is the `kinema` command."""

import sys

from kinema.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
