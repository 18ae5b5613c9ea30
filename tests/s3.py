"""An S3 server on this machine, and buckets in it: moto's, which checks no signatures unless it is told to."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.servers import free_port, running
from tests.stores import plain_environment

BUCKET = "hospital"
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "Apfelstrudel-mit-Sahne-0815"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@dataclass(frozen=True)
class Bucket:
    """A bucket of a running server.

    Attributes:
        url: the server's.
        environment: what a process needs to reach it.
    """

    url: str
    environment: dict[str, str]

    @property
    def files(self) -> Any:
        """Its files, by s3fs with credentials of its own."""
        import fsspec

        found = fsspec.filesystem("s3", key=KEY, secret=SECRET, client_kwargs={"endpoint_url": self.url})
        found.invalidate_cache()
        return found

    def upload(self, path: Path, name: str) -> str:
        """Puts a file or folder there; returns its address."""
        self.files.put(str(path), f"{BUCKET}/{name}", recursive=path.is_dir())
        return f"s3://{BUCKET}/{name}"


@contextmanager
def s3_server(folder: Path, port: int | None = None) -> Iterator[Bucket]:
    """A server with an empty bucket, whose log lies in a folder."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, f"{url}/moto-api/", folder / "s3.log", plain_environment(), seconds=60):
        given = {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        bucket = Bucket(url, given)
        bucket.files.mkdir(BUCKET)
        yield bucket


@contextmanager
def reaching(bucket: Bucket, folder: Path) -> Iterator[None]:
    """This process reaches the bucket, and keeps what it fetches in a workspace in the folder."""
    with pytest.MonkeyPatch.context() as patcher:
        for name, value in bucket.environment.items():
            patcher.setenv(name, value)
        patcher.setenv("DOCTOGRES_WORKSPACE", str(folder / "workspace"))
        _forget()
        yield
    _forget()


def _forget() -> None:
    """Fsspec keeps a file system, with the credentials that it was made with."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


@dataclass
class Proxy:
    """Passes requests on to a bucket's server until it fails.

    Attributes:
        url: where it listens.
        method: of the requests that are counted.
        left: how many of them are passed on; None for all.
        served: how many were.
    """

    url: str
    method: str
    left: int | None
    served: int = 0

    def heal(self) -> None:
        self.left, self.served = None, 0

    def passes(self, method: str) -> bool:
        """Whether the next request is passed on."""
        if method != self.method:
            return True
        self.served += 1
        if self.left is not None:
            self.left -= 1
        return self.left is None or self.left >= 0


@contextmanager
def failing(bucket: Bucket, method: str, *, after: int, fault: str) -> Iterator[Proxy]:
    """A proxy before a bucket that from some request on says that the token has `expired`, or is `gone`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if proxy.passes(self.command):
                self.pass_on(body)
            elif fault == "expired":
                self.answer(400, EXPIRED, {"Content-Type": "application/xml"})
            else:
                self.close_connection = True  # without a word

        def pass_on(self, body: bytes) -> None:
            link = HTTPConnection(urlsplit(bucket.url).netloc, timeout=60)
            link.request(self.command, self.path, body, dict(self.headers))
            found = link.getresponse()
            self.answer(found.status, found.read(), dict(found.getheaders()))
            link.close()

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            length = headers.pop("Content-Length", str(len(content)))
            for name, value in headers.items():
                if name not in ("Connection", "Transfer-Encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", method, after)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
