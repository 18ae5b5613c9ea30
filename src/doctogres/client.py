"""Classifies a slide with a served model: `python -m doctogres.client SLIDE [MASK] [--url URL] [--overlay FILE]`."""

import sys

from doctogres.serving.client import main

if __name__ == "__main__":
    sys.exit(main())
