"""A release: what is refused, and that a failure leaves everything as it was."""

import subprocess
from datetime import date
from pathlib import Path

import pytest

from doctogres import __version__
from doctogres.errors import DoctogresError, ParameterError
from entrypoints import release
from entrypoints.release import CHANGES, CITATION, CODE, checked_version, released

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.1.0] - 2026-01-02\n\n- The first.\n"


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the files that a release changes."""
    (tmp_path / CODE).parent.mkdir(parents=True)
    (tmp_path / CODE).write_text(f'__version__ = "{__version__}"\n')
    (tmp_path / CHANGES).write_text(CHANGELOG)
    (tmp_path / CITATION).write_text(f"cff-version: 1.2.0\nversion: {__version__}\n")
    git(tmp_path, "init", "--quiet")
    for name, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        git(tmp_path, "config", name, value)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "Begin")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "build", lambda version: [tmp_path / "dist" / f"doctogres-{version}.whl"])
    return tmp_path


def call(version: str) -> int:
    with pytest.raises(SystemExit) as stop:
        release.command.main([version])
    return int(str(stop.value.code))


def test_a_release_is_a_commit_and_a_tag_with_version_and_changelog(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.command.main(["9.8.7"])
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "show", "-s", "--format=%s", "v9.8.7^{commit}") == "Release 9.8.7"
    assert (project / CODE).read_text() == '__version__ = "9.8.7"\n'
    assert (
        f"## [Unreleased]\n\n## [9.8.7] - {date.today()}\n\n### Added\n\n- A thing." in (project / CHANGES).read_text()
    )
    assert "dist/doctogres-9.8.7.whl" in capsys.readouterr().out
    assert call("9.8.7") == 2  # there is a tag already


def test_changes_that_are_not_committed_stop_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "new.py").touch()
    assert call("9.8.7") == 1
    assert "commit them first" in capsys.readouterr().err
    assert git(project, "tag") == ""


def test_a_step_that_fails_changes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(version: str) -> list[Path]:
        raise DoctogresError("uv build failed")

    monkeypatch.setattr(release, "build", fail)
    assert call("9.8.7") == 1
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "tag") == ""


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "0.1.0", "0.0.9", "", "1.2.3-rc1"])
def test_a_version_must_be_one_and_later(version: str) -> None:
    with pytest.raises(ParameterError, match=r"VERSION="):
        checked_version(version, "0.1.0")


def test_versions_are_compared_as_numbers() -> None:
    assert checked_version("0.10.0", "0.9.0") == "0.10.0"


@pytest.mark.parametrize("text", ["# Changelog\n", "# Changelog\n\n## [Unreleased]\n\n## [0.1.0]\n\n- The first.\n"])
def test_nothing_new_is_no_release(text: str) -> None:
    with pytest.raises(DoctogresError, match="nothing to release"):
        released(text, "0.2.0", date(2026, 1, 2))
