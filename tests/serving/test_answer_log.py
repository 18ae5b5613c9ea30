"""The writer of the answer log, on disks that fail."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from doctogres.errors import DoctogresError
from doctogres.serving import answer_log
from doctogres.serving.answer_log import AnswerLog
from doctogres.serving.answers import read_answers
from tests.disks import small_disk
from tests.servers import ROOT

REFUSAL = {"time": "2026-11-29T11:59:59.125+00:00", "refusal": "unreadable_image"}


def rows(count: int, padding: int = 0) -> list[dict[str, object]]:
    return [REFUSAL | {"row": number, "model_id": "m" * padding} for number in range(count)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_log, "PAUSE", 0.0)
    monkeypatch.delenv("DOCTOGRES_UMASK", raising=False)


def test_rows_are_read_back_and_only_the_user_may_read_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        log = AnswerLog(tmp_path / "log")
        assert log.append(rows(3)) == log.append(rows(2)) == 0
    finally:
        os.umask(before)
    assert read_answers(tmp_path / "log")["row"].tolist() == [0, 1, 2, 0, 1]
    (file,) = (tmp_path / "log").iterdir()
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


def test_a_setting_shares_the_log_and_a_wrong_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOGRES_UMASK", "027")
    AnswerLog(tmp_path / "log")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "log").iterdir()} == {0o640}
    monkeypatch.setenv("DOCTOGRES_UMASK", "all")
    with pytest.raises(DoctogresError, match="DOCTOGRES_UMASK=all"):
        AnswerLog(tmp_path / "log")


def test_a_file_is_closed_when_it_is_full_or_of_yesterday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_log, "LARGEST", 1000)
    log = AnswerLog(tmp_path)
    for _ in range(6):
        log.append(rows(4))
    assert [1000 <= path.stat().st_size < 1500 for path in tmp_path.iterdir()] == [True, True]
    monkeypatch.setattr(answer_log, "_now", lambda: "20310101-000000")
    log.append(rows(4))
    assert sum(path.name.startswith("answers-20310101-") for path in tmp_path.iterdir()) == 1
    assert len(read_answers(tmp_path)) == 28


def test_a_full_disk_loses_whole_rows_says_so_once_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=64) as disk:
        log = AnswerLog(disk.path / "log")
        results = [log.append(rows(5, padding=600)) for _ in range(40)]
        assert set(results) == {0, 5}
        assert results.index(5) > 3
        warned = [record for record in caplog.records if "not logged" in record.message]
        assert len(warned) == 1
        assert f"DOCTOGRES_ANSWER_LOG={disk.path}/log: answers are given" in warned[0].message
        assert "No space left" in warned[0].message
        disk.resize(4096)
        assert log.append(rows(5)) == 0
        assert f"logged again; {sum(results)} rows are missing" in caplog.messages[-1]
        kept = read_answers(disk.path / "log")
        assert len(kept) == 5 * results.count(0) + 5
        assert log.lost == sum(results)


@pytest.mark.parametrize("place", ["missing/log", "file", "file/log"])
def test_where_no_folder_can_be_made_rows_are_lost_until_it_can(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    log = AnswerLog(tmp_path / place)
    assert [log.append(rows(2)) for _ in range(3)] == [2, 2, 2]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    (tmp_path / "file").unlink()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    assert log.append(rows(2)) == 0
    assert len(read_answers(tmp_path / place)) == 2


def test_after_a_failure_the_disk_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_log, "PAUSE", 1000.0)
    log = AnswerLog(tmp_path / "missing" / "log")
    (tmp_path / "missing").mkdir()
    assert log.append(rows(2)) == 2
    assert not (tmp_path / "missing" / "log").exists()


def test_a_slow_disk_counts_as_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answer_log, "SLOW", -1.0)
    log = AnswerLog(tmp_path)
    assert log.append(rows(2)) == 0
    assert "not logged (a write took 0.0 s)" in caplog.text


def test_one_answer_waits_a_little_for_a_disk_that_hangs_and_the_next_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answer_log, "SLOW", 0.01)
    monkeypatch.setattr(answer_log, "PAUSE", 1000.0)
    log = AnswerLog(tmp_path)
    free, hangs, write = threading.Event(), threading.Event(), os.write

    def hang(file: int, content: bytes) -> int:
        hangs.set()
        free.wait(30)
        return write(file, content)

    monkeypatch.setattr(os, "write", hang)
    stuck = threading.Thread(target=log.append, args=[rows(1)])
    stuck.start()
    assert hangs.wait(30)
    assert log.append(rows(2)) == 2  # while the other one still hangs
    monkeypatch.setattr(answer_log, "SLOW", 1000.0)
    assert log.append(rows(3)) == 3
    free.set()
    stuck.join()
    assert (log.lost, len(read_answers(tmp_path))) == (5, 1)
    assert caplog.text.count("not logged (another write hangs)") == 1


def test_a_file_that_another_process_has_locked_first_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take the file for complete, upload it and remove it."""
    tried: list[int] = []

    def taken(file: int) -> None:
        tried.append(file)
        if len(tried) == 1:
            raise BlockingIOError

    monkeypatch.setattr(answer_log, "lock", taken)
    log = AnswerLog(tmp_path)
    assert log.append(rows(1)) == 0
    assert sorted(path.stat().st_size > 0 for path in tmp_path.iterdir()) == [False, True]
    assert len(tried) == 2


def test_a_log_that_was_taken_away_is_begun_anew(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "log")
    log.append(rows(2))
    for path in (tmp_path / "log").iterdir():
        path.unlink()
    assert log.append(rows(3)) == 0
    assert len(read_answers(tmp_path / "log")) == 3


def test_threads_and_a_forked_process_write_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_log, "SLOW", 60.0)
    log = AnswerLog(tmp_path)
    threads = [threading.Thread(target=lambda: [log.append(rows(3, 2000)) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_answers(tmp_path)) == 600
    code = """
import os, sys
from pathlib import Path
from doctogres.serving.answer_log import AnswerLog
log = AnswerLog(Path(sys.argv[1]))
log._lock.acquire()  # as if another thread were writing
child = os.fork()
if not child:
    os._exit(log.append([{"time": "2026-11-29T11:59:59Z"}]))
sys.exit(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "forked")], cwd=ROOT / "src", check=False)
    assert done.returncode == 0
    assert len(read_answers(tmp_path / "forked")) == 1
    assert len(list((tmp_path / "forked").iterdir())) == 2


def test_a_killed_process_leaves_every_row_that_it_had_reported(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from doctogres.serving.answer_log import AnswerLog
log = AnswerLog(Path(sys.argv[1]))
for number in range(10**9):
    log.append([{"time": "2026-11-29T11:59:59Z", "row": number, "model_id": "m" * 3000}])
    print(number, flush=True)
"""
    for kill in range(3):
        folder = tmp_path / str(kill)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], cwd=ROOT / "src", stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        for _ in range(20 * (kill + 1)):
            process.stdout.readline()
        process.kill()
        reported = process.stdout.read().splitlines(keepends=True)
        process.wait()
        last = max([20 * (kill + 1) - 1, *(int(line) for line in reported if line.endswith("\n"))])
        assert read_answers(folder)["row"].tolist()[: last + 1] == list(range(last + 1))
