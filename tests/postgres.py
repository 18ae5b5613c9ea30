"""A PostgreSQL server that a test starts."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

USER = "doctogres"


@contextmanager
def postgres_server(password: str = "") -> Iterator[str]:
    """A server of Debian's package on a Unix socket, with the databases `study` and `tracking`.

    Yields its URL without the database's name. With a password, it asks for it.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    # The server refuses to run as root, and its user must reach the folder.
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    user: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    # Not in the folder of the tests, which is root's alone.
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    (folder / "password").write_text(password or "none")
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
        os.chown(folder / "password", account.pw_uid, account.pw_gid)
    login: list[str | Path] = ["-A", "scram-sha-256" if password else "trust", "--pwfile", folder / "password"]
    make: list[str | Path] = [
        found[-1] / "initdb",
        "-D",
        folder / "data",
        "-U",
        USER,
        "-E",
        "UTF8",
        "--locale=C",
        *login,
    ]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
    (folder / "password").unlink()
    serve: list[str | Path] = [
        found[-1] / "postgres",
        "-D",
        folder / "data",
        "-k",
        folder,
        "-c",
        "listen_addresses=",
        "-F",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(serve, stderr=log, cwd=folder, **user)
    try:
        while not _answers(folder, password):
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        with psycopg.connect(
            host=str(folder), user=USER, password=password, dbname="postgres", autocommit=True
        ) as link:
            link.execute("CREATE DATABASE study")
            link.execute("CREATE DATABASE tracking")
        yield f"postgresql://{USER}@/{{}}?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # ends its sessions and itself
        server.wait()
        shutil.rmtree(folder)


def _answers(folder: Path, password: str) -> bool:
    try:
        psycopg.connect(host=str(folder), user=USER, password=password, dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True
