"""``python -m landmarklabel`` is the same program as ``landmarklabel``."""

import sys

from landmarklabel.cli import main

if __name__ == "__main__":
    sys.exit(main())
