"""What several tests share: a store of their own, and a cohort that they make themselves."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.stores import connected, made_once, new_store, plain_environment
from tests.warm import warm

settings.register_profile("doctogres", deadline=None)  # no test is about time
settings.load_profile("doctogres")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the entry points do
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many workers as cores: more threads would only wait
os.environ["HF_HUB_OFFLINE"] = "1"  # no test downloads anything


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--twins", metavar="FILE", help="CSV with shrek_id,clean_twin_id: the twin pairs to test cleaning on"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be missing (CI), a test that was skipped has failed."""
    report = yield
    if report.skipped and "DOCTOGRES_NO_SKIPS" in os.environ:
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session", autouse=True)
def temporary_files_go_with_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow leaves every artifact that it fetches in a temporary folder; a command removes its own, a test calls stages."""
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with MLflow's tables, made once because that takes seconds; `new_store` copies it."""

    def make(folder: Path) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        folder.mkdir()
        SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts"))

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder as working directory, with its own SQLite store and workspace, connected."""
    with connected(new_store(empty_store, tmp_path), tmp_path, monkeypatch):
        yield tmp_path


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of a `python` that has nothing left to import, for tests that run several commands: tests/warm.py."""
    root = Path(__file__).parents[1]
    environment = plain_environment() | {
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    with warm(tmp_path_factory.mktemp("warm"), environment, ["python"]) as programs:
        yield str(programs / "python")


@pytest.fixture
def in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Fsspec's store in memory, empty, for addresses such as `memory://bucket`; the workspace of this process is empty."""
    import fsspec

    from doctogres import encoders

    monkeypatch.setenv("DOCTOGRES_WORKSPACE", str(tmp_path / "workspace"))
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()
    found.pseudo_dirs[:] = [""]
    encoders.forget_copies()


@pytest.fixture(scope="module")
def module_store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As `store`, the same one for all tests of a module."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patcher, connected(new_store(empty_store, folder), folder, patcher):
        yield folder


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic cohort of 40 slides in the challenge's layout; tests must not change it."""

    def make(folder: Path) -> None:
        from doctogres.synthetic import make_cohort

        make_cohort(folder, slides=40, seed=3)

    return made_once(tmp_path_factory, "demo", make)
