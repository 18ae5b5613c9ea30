"""A server that says what a test tells it to."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest


class Scripted(BaseHTTPRequestHandler):
    """Answers with what `reply` holds and keeps the request."""

    reply: ClassVar[tuple[int, bytes, float]] = (200, b"", 0.0)
    asked: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        status, content, delay = self.reply
        type(self).asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(delay)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def says(status: int, content: object, delay: float = 0.0) -> None:
    Scripted.reply = (status, content if isinstance(content, bytes) else json.dumps(content).encode(), delay)
