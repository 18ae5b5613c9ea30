"""Answer logs in an object store: fsspec's file system in memory or on the disk, and a real S3 server."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from doctogres.serving import answer_copies
from doctogres.serving.answer_copies import copied_log, copy_complete
from doctogres.serving.answer_log import AnswerLog
from doctogres.serving.answers import read_answers
from tests.s3 import BUCKET, failing, reaching, s3_server
from tests.servers import ROOT

ROW = {"time": "2026-11-29T11:59:59Z", "row": 7}
ADDRESS = "memory://bucket/answers"


@pytest.fixture(autouse=True)
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An empty store in memory."""
    found = fsspec.filesystem("memory")
    found.rm("/", recursive=True) if found.ls("/") else None
    yield found
    found.rm("/", recursive=True) if found.ls("/") else None


def test_only_complete_files_are_copied_and_then_removed(tmp_path: Path, store: fsspec.AbstractFileSystem) -> None:
    log = AnswerLog(tmp_path)
    log.append([ROW])
    copy_complete(tmp_path, ADDRESS)
    assert store.find("/") == []
    log.finish_file()
    log.append([ROW | {"row": 8}])
    copy_complete(tmp_path, ADDRESS)
    copy_complete(tmp_path, ADDRESS)
    assert read_answers(ADDRESS)["row"].tolist() == [7]
    assert read_answers(tmp_path)["row"].tolist() == [8]


@pytest.mark.slow
def test_a_bucket_takes_them_when_its_credentials_are_valid_again(tmp_path: Path) -> None:
    folder, address = tmp_path / "answers", f"s3://{BUCKET}/answers"
    log = AnswerLog(folder)
    log.append([ROW])
    log.finish_file()
    with s3_server(tmp_path) as bucket, failing(bucket, "PUT", after=0, fault="expired") as proxy:
        given = bucket.environment | {"AWS_ENDPOINT_URL": proxy.url}
        with reaching(replace(bucket, environment=given), tmp_path):
            with pytest.raises(PermissionError, match="expired"):
                copy_complete(folder, address)
            assert read_answers(folder)["row"].tolist() == [7]
            assert bucket.files.find(f"{BUCKET}/answers") == []
            proxy.heal()
            copy_complete(folder, address)
            assert list(folder.iterdir()) == []
            assert read_answers(address)["row"].tolist() == [7]
            log.append([ROW | {"row": 8}])
            log.finish_file()
            copy_complete(folder, address)
            assert read_answers(address)["row"].tolist() == [7, 8]


def test_what_a_killed_worker_left_is_copied_and_empty_files_go(
    tmp_path: Path, store: fsspec.AbstractFileSystem
) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from doctogres.serving.answer_log import AnswerLog
AnswerLog(Path(sys.argv[1])).append([{"time": "2026-11-29T11:59:59Z", "row": 9}])
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT / "src", check=False)
    for name, age in (("new", 0), ("old", 1000)):
        (tmp_path / f"answers-{name}.jsonl").touch()
        os.utime(tmp_path / f"answers-{name}.jsonl", (time.time() - age,) * 2)
    copy_complete(tmp_path, ADDRESS)
    assert read_answers(ADDRESS)["row"].tolist() == [9]
    assert [path.name for path in tmp_path.iterdir()] == ["answers-new.jsonl"]


def test_a_store_that_fails_keeps_the_rows_here_until_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DOCTOGRES_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setattr(answer_copies, "EVERY", 0.05)
    target = tmp_path / "mounted"
    log = copied_log(f"file://{target}")
    assert log.append([ROW]) == 0

    def until(text: str) -> None:
        for _ in range(1000):
            if text in caplog.text:
                return
            time.sleep(0.02)
        pytest.fail(caplog.text)

    until("cannot be copied")
    assert read_answers(log.folder)["row"].tolist() == [7]
    assert caplog.text.count("cannot be copied") == 1
    assert [path.stat().st_mode & 0o077 for path in (log.folder, log.folder.parent)] == [0, 0]
    target.mkdir()
    until("answers are copied again")
    assert read_answers(f"file://{target}")["row"].tolist() == [7]
    assert log.append([ROW | {"row": 8}]) == 0
