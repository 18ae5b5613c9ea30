"""The database's password stays where it was given: a whole run with it in the environment, ~/.pgpass and a service file."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.postgres import USER, postgres_server
from tests.servers import ROOT
from tests.stores import plain_environment

pytestmark = pytest.mark.slow
PASSWORD = "Kartoffelpuffer-4711"
MARK = PASSWORD.encode()
QUICK = ["-P", "preset=demo", "-P", "trials=2", "-P", "trial_epochs=1"]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Site:
    """A PostgreSQL server that asks for a password, and the folder of a user who has it."""

    address: str
    folder: Path
    environment: dict[str, str]

    @property
    def socket(self) -> str:
        return self.address.partition("host=")[2]

    def started(self, entry_point: str, *parameters: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [str(BIN / "mlflow"), "run", str(ROOT), "-e", entry_point, "--env-manager", "local"]
        log = (self.folder / "logs" / f"{entry_point}-{len(list((self.folder / 'logs').iterdir()))}").open("wb")
        return subprocess.Popen(
            [*command, *parameters], cwd=self.folder, env=self.environment | environment, stdout=log, stderr=log
        )

    def dump(self) -> bytes:
        """Everything in the databases of the runs and of the study."""
        command = ["pg_dump", "--host", self.socket, "--username", USER]
        own = os.environ | {"PGPASSWORD": PASSWORD}
        both = [subprocess.run([*command, name], env=own, capture_output=True, check=True) for name in DATABASES]
        return b"".join(done.stdout for done in both)


DATABASES = ("tracking", "study")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("user")
    (folder / "logs").mkdir()
    kept = plain_environment()
    with postgres_server(PASSWORD) as address:
        yield Site(address, folder, kept | {
            "PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "HOME": str(folder), "TMPDIR": str(folder),
            "MLFLOW_TRACKING_URI": address.format("tracking"), "MLFLOW_EXPERIMENT_NAME": "doctogres",
            "DOCTOGRES_WORKSPACE": str(folder / "workspace"), "OMP_NUM_THREADS": "1",
        })  # fmt: skip


class Processes(threading.Thread):
    """Reads the list of processes, as any user of the machine can, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.seen: set[bytes] = set()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            for words in Path("/proc").glob("[0-9]*/cmdline"):  # as `ps` does, at a fifth of its cost
                with suppress(OSError):  # it has ended
                    self.seen.add(words.read_bytes().replace(b"\0", b" "))

    def __enter__(self) -> "Processes":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def secret_ways(site: Site) -> list[dict[str, str]]:
    """The three places for the password, each as the variables of an environment."""
    passwords, service = site.folder / "pgpass", site.folder / "service.conf"
    passwords.write_text(f"{site.socket}:*:*:{USER}:{PASSWORD}\n")
    service.write_text("".join(
        f"[{name}]\nhost={site.socket}\ndbname={name}\nuser={USER}\npassword={PASSWORD}\n" for name in DATABASES
    ))  # fmt: skip
    for path in (passwords, service):
        path.chmod(0o600)
    return [{"PGPASSWORD": PASSWORD}, {"PGPASSFILE": str(passwords)}, {"PGSERVICEFILE": str(service)}]


@pytest.fixture(scope="module")
def seen(site: Site, small_cohort: Path) -> set[bytes]:
    """`clean`, `patch` and three workers of `tune`, one per place of the password; the command lines meanwhile."""
    ways = secret_ways(site)
    by_service = {"MLFLOW_TRACKING_URI": "postgresql:///?service=tracking"}
    storages = [site.address.format("study")] * 2 + ["postgresql:///?service=study"]
    with Processes() as processes:
        for stage, way in (("clean", ways[0]), ("patch", ways[1])):
            parameters = [*QUICK[:2], "-P", f"data={small_cohort}"]
            assert site.started(stage, *parameters, **way).wait() == 0, logs(site)
        workers = [
            site.started(
                "tune", *QUICK, "-P", f"storage={storage}", **way | (by_service if "service" in storage else {})
            )
            for storage, way in zip(storages, ways, strict=True)
        ]
        assert [worker.wait() for worker in workers] == [0, 0, 0], logs(site)
    return processes.seen


def logs(site: Site) -> str:
    return "\n".join(path.read_text()[-2000:] for path in (site.folder / "logs").iterdir())


def test_a_whole_run_leaves_the_password_nowhere(site: Site, seen: set[bytes]) -> None:
    assert any(b"entrypoints.tune" in line and b"--storage" in line for line in seen)
    assert not [line for line in seen if MARK in line]
    content = site.dump()
    assert b"slide_macro_f1" in content
    assert MARK not in content
    given = {site.folder / "pgpass", site.folder / "service.conf"}
    left = [path for path in site.folder.rglob("*") if path.is_file() and path not in given]
    assert any(path.name == "best_params.yaml" for path in left)
    assert [path for path in left if MARK in path.read_bytes()] == []


def test_a_password_in_the_address_is_refused_and_taken_out_of_the_store(site: Site) -> None:
    storage = site.address.format("study").replace("@", f":{PASSWORD}@")
    worker = site.started("tune", *QUICK, "-P", f"storage={storage}", PGPASSWORD=PASSWORD)
    assert worker.wait() != 0
    assert f"tune: error: storage=postgresql://{USER}:***@" in logs(site)
    with psycopg.connect(host=site.socket, user=USER, password=PASSWORD, dbname="tracking") as link:
        values = [row[0] for row in link.execute("SELECT value FROM params WHERE key = 'storage'")]
    assert any(f"{USER}:***@" in value for value in values)
    assert MARK not in site.dump()
