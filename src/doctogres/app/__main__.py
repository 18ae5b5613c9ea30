"""Starts the page: `python -m doctogres.app [--url URL] [--port PORT]`."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from doctogres.addresses import check_address
from doctogres.errors import DoctogresError, show_error
from doctogres.serving.client import NO_PASSWORD, TIMEOUT, URL

HOST: Final = "127.0.0.1"  # anyone who can open the page can see the slides on it
LARGEST_FILE: Final = 200  # MB; slides of the challenge have at most 4
LARGEST_TOGETHER: Final = 1000  # MB of all files, which stay in memory while the page is open
SETTINGS: Final[dict[str, Any]] = {
    "server.address": HOST,
    "server.allowedHosts": [HOST, "localhost"],
    "server.maxUploadSize": LARGEST_FILE,
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "runner.magicEnabled": False,
    "theme.base": "light",  # stained tissue is viewed on a light background
    "theme.primaryColor": "#0072b2",
}


def options() -> argparse.Namespace:
    """Parses the command line, which Streamlit passes on to the page's script."""
    parser = argparse.ArgumentParser(
        prog="doctogres.app", description="A web page for classifying slides with a served model."
    )
    parser.add_argument("--url", default=URL, help="address of the served model (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8501, help=f"port of the page, on {HOST} (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="timeout in seconds (default: %(default)g)")
    return parser.parse_args()


def main() -> int:
    """Serves the page until it is stopped; returns 1 if Streamlit is not installed or the address holds a password."""
    given = options()
    try:
        check_address("url", given.url, NO_PASSWORD)
        import streamlit
        from starlette.formparsers import MultiPartParser
        from streamlit.runtime.uploaded_file_manager import UploadedFile
    except ImportError:
        show_error("doctogres.app", "the page needs Streamlit; run pip install -r requirements-app.txt")
        return 1
    except DoctogresError as error:
        show_error("doctogres.app", str(error))
        return 1
    MultiPartParser.spool_max_size = LARGEST_FILE * 2**20  # uploads stay in memory, without temporary files
    # Streamlit copies all uploads whenever the page's script runs; the page only reads them.
    UploadedFile.__deepcopy__ = lambda file, memo: file  # type: ignore[attr-defined]
    streamlit.App(Path(__file__).with_name("page.py")).run(config=SETTINGS | {"server.port": given.port})
    return 0


if __name__ == "__main__":
    sys.exit(main())
