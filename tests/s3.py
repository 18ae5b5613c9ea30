"""An S3 server on this machine, and buckets in it: moto's, which checks no signatures unless it is told to."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port, running
from tests.stores import plain_environment

BUCKET = "hospital"
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "Apfelstrudel-mit-Sahne-0815"


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
