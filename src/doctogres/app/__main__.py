"""Starts the page: `python -m doctogres.app [--url URL] [--port PORT]`."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from doctogres.serving.client import TIMEOUT, URL

HOST: Final = "127.0.0.1"  # who can open the page can read the slides on it
LARGEST_FILE: Final = 200  # MB; the challenge's slides have 4 at most
SETTINGS: Final[dict[str, Any]] = {
    "server.address": HOST,
    "server.allowedHosts": [HOST, "localhost"],
    "server.maxUploadSize": LARGEST_FILE,
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "runner.magicEnabled": False,
    "theme.base": "light",  # stained tissue is judged on a light ground
    "theme.primaryColor": "#0072b2",
}


def options() -> argparse.Namespace:
    """What the command was given; Streamlit hands it on to the page's script."""
    parser = argparse.ArgumentParser(prog="doctogres.app", description="A web page that asks a served model.")
    parser.add_argument("--url", default=URL, help="of the served model (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8501, help=f"of the page, on {HOST} (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds to wait (default: %(default)g)")
    return parser.parse_args()


def main() -> int:
    """The command: serves the page until it is stopped; 1 where Streamlit is not installed."""
    given = options()
    try:
        import streamlit
        from starlette.formparsers import MultiPartParser
    except ImportError:
        print("doctogres.app: error: the page needs Streamlit; pip install -r requirements-app.txt", file=sys.stderr)
        return 1
    MultiPartParser.spool_max_size = LARGEST_FILE * 2**20  # an upload makes no temporary file
    streamlit.App(Path(__file__).with_name("page.py")).run(config=SETTINGS | {"server.port": given.port})
    return 0


if __name__ == "__main__":
    sys.exit(main())
