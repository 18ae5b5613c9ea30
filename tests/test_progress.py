"""Progress on a terminal and elsewhere, by a clock that the test turns."""

import io
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from doctogres import progress
from doctogres.progress import counted, durations, place, reporter

ROOT = Path(__file__).parents[1]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "monotonic", made)
    return made


@pytest.fixture
def stderr(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


@pytest.fixture
def terminal(monkeypatch, clock):
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setattr("tqdm.std.time", clock)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    yield stream
    assert stream.getvalue()[-1:] in ("", "\r", "\n")  # no bar was left open in the middle of a line


def loop(report, clock, seconds, *, total, done=0):
    """One step per entry of `seconds`, each that long."""
    report(done, total)
    for step, duration in enumerate(seconds, done + 1):
        clock.now += duration
        report(step, total)


def screen(written):
    """What a terminal shows: carriage return, cursor up and line feed; a list of lines."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\r|\n|\x1b\[A)", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
            column = 0
        elif part == "\r":
            column = 0
        elif part == "\x1b[A":
            row -= 1
        else:
            old = lines[row].ljust(column)
            lines[row] = old[:column] + part + old[column + len(part) :]
            column += len(part)
    return [line.strip() for line in lines if line.strip()]


def test_a_short_loop_says_nothing(clock, stderr):
    loop(reporter("cut", "slides"), clock, [0.1] * 40, total=40)
    assert stderr.getvalue() == ""


def test_a_loop_over_five_seconds_says_where_it_is_and_what_it_did(clock, stderr):
    loop(reporter("cut", "slides"), clock, [0.5] * 16, total=16)
    assert stderr.getvalue().splitlines() == [
        "cut: 10 of 16 slides, 2 slides/s, 00:03 left",
        "cut: 16 slides in 00:08, 2 slides/s",
    ]


def test_a_line_every_ten_seconds_and_no_carriage_return(clock, stderr):
    loop(reporter("train", "epochs"), clock, [1] * 60, total=60)
    lines = stderr.getvalue().splitlines()
    assert [int(re.findall(r"\d+", line)[0]) for line in lines] == [5, 15, 25, 35, 45, 55, 60]
    assert not re.search(r"[\r\x1b]", stderr.getvalue())


def test_one_long_step_shows_at_its_end(clock, stderr):
    loop(reporter("predict", "slides"), clock, [20], total=1)
    assert stderr.getvalue() == "predict: 1 slides in 00:20, 3 slides/min\n"


def test_the_remaining_time_forgets_a_slow_start(clock, stderr):
    loop(reporter("train", "epochs"), clock, [100] + [1] * 25, total=46)
    assert stderr.getvalue().splitlines()[-1] == "train: 21 of 46 epochs, 1 epochs/s, 00:25 left"


def test_a_slow_rate_is_per_minute_and_a_long_time_in_hours(clock, stderr):
    loop(reporter("tune", "trials"), clock, [120] * 2, total=62)
    assert stderr.getvalue().splitlines()[-1] == "tune: 2 of 62 trials, 0.5 trials/min, 2:00:00 left"


def test_a_fast_rate_is_a_whole_number(clock, stderr):
    report = reporter("hash", "files")
    report(0, 100_000)
    clock.now += 6
    report(60_000, 100_000)
    assert stderr.getvalue() == "hash: 60000 of 100000 files, 10000 files/s, 00:04 left\n"


def test_what_an_earlier_process_did_does_not_count_for_the_rate(clock, stderr):
    loop(reporter("tune", "trials"), clock, [6] * 10, total=100, done=90)
    lines = stderr.getvalue().splitlines()
    assert lines[0] == "tune: 91 of 100 trials, 10 trials/min, 00:54 left"
    assert lines[-1] == "tune: 100 trials in 01:00, 10 trials/min"


def test_without_a_call_before_the_first_step_that_step_is_not_in_the_rate(clock, stderr):
    report = reporter("train", "epochs")
    for epoch in range(41, 44):  # an earlier process did 40
        clock.now += 6
        report(epoch, 100)
    report.close()
    assert stderr.getvalue().splitlines() == [
        "train: 41 of 100 epochs",
        "train: 43 of 100 epochs, 10 epochs/min, 05:42 left",
        "train: 43 of 100 epochs in 00:18, 10 epochs/min",
    ]


def test_a_loop_that_never_began_says_nothing(clock, stderr):
    with reporter("train", "epochs"):
        clock.now += 60
    assert stderr.getvalue() == ""


def test_an_unknown_total_has_no_remaining_time(clock, stderr):
    with reporter("read", "files") as report:
        loop(report, clock, [1] * 6, total=0)
    assert stderr.getvalue().splitlines() == ["read: 5 files, 1 files/s", "read: 6 files in 00:06, 1 files/s"]


def test_nothing_done_yet_is_no_division_by_zero(clock, stderr):
    report = reporter("train", "epochs")
    report(0, 10)
    clock.now += 7
    report(0, 10)
    assert stderr.getvalue() == "train: 0 of 10 epochs\n"


@pytest.mark.parametrize("error", [None, KeyError])
def test_an_early_end_says_how_far_it_came(clock, stderr, error):
    with pytest.raises(error) if error else nullcontext(), reporter("train", "epochs") as report:
        loop(report, clock, [4] * 3, total=100)
        if error:
            raise error
    assert stderr.getvalue().splitlines()[-1] == "train: 3 of 100 epochs in 00:12, 15 epochs/min"


def test_an_end_is_said_once_and_later_calls_say_nothing(clock, stderr):
    with reporter("train", "epochs") as report:
        loop(report, clock, [6, 6], total=2)
        loop(report, clock, [60], total=2, done=2)
    assert stderr.getvalue().count("in 00:12") == 1
    assert stderr.getvalue().splitlines()[-1].endswith("in 00:12, 10 epochs/min")


def test_the_bar_shows_rate_and_remaining_time_and_goes(clock, terminal):
    report = reporter("cut", "slides")
    loop(report, clock, [0.5] * 4, total=8)
    assert "cut: 4 of 8 slides, 2 slides/s, 00:02 left" in screen(terminal.getvalue())[-1]
    assert screen(terminal.getvalue())[-1].startswith("########## ")  # half of it; a terminal of UTF-8 gets blocks
    loop(report, clock, [0.5] * 4, total=8, done=4)
    assert screen(terminal.getvalue()) == []


def test_a_bar_of_an_unknown_total(clock, terminal):
    with reporter("read", "files") as report:
        loop(report, clock, [1] * 3, total=0)
        assert screen(terminal.getvalue()) == ["read: 3 files, 1 files/s"]


def test_a_bar_that_goes_on_where_an_earlier_process_stopped(clock, terminal):
    with reporter("tune", "trials") as report:
        loop(report, clock, [1], total=100, done=50)
        assert "tune: 51 of 100 trials, 1 trials/s, 00:49 left" in screen(terminal.getvalue())[-1]


def test_bars_of_loops_within_loops_leave_only_the_last_lines(clock, terminal):
    with reporter("folds", "folds") as folds:
        folds(0, 2)
        for fold in range(2):
            with reporter(f"fold {fold}", "epochs") as epochs:
                loop(epochs, clock, [2] * 4, total=100)  # stops early
                shown = screen(terminal.getvalue())
                assert f"folds: {fold} of 2" in shown[-2]
                assert f"fold {fold}: 4 of 100" in shown[-1]
            folds(fold + 1, 2)
    assert screen(terminal.getvalue()) == [
        "fold 0: 4 of 100 epochs in 00:08, 30 epochs/min",
        "fold 1: 4 of 100 epochs in 00:08, 30 epochs/min",
        "folds: 2 folds in 00:16, 7.5 folds/min",
    ]


def test_a_loop_within_loops_says_where_it_is(clock, stderr):
    with place("tune:"), reporter("", "trials") as trials:
        trials(0, 2)
        with place("trial 1 of 2"), place(""), place("fold 2 of 5"), reporter("training", "steps") as steps:
            steps(0, 100)
            for number in range(1, 3):
                with place(f"epoch {number} of 10"):
                    clock.now += 10
                    steps(number * 10, 100)
        trials(1, 2)
    assert stderr.getvalue().splitlines() == [
        "tune: trial 1 of 2, fold 2 of 5, epoch 1 of 10, training: 10 of 100 steps, 1 steps/s, 01:30 left",
        "tune: trial 1 of 2, fold 2 of 5, epoch 2 of 10, training: 20 of 100 steps, 1 steps/s, 01:20 left",
        "tune: trial 1 of 2, fold 2 of 5, training: 20 of 100 steps in 00:20, 1 steps/s",
        "tune: 1 of 2 trials, 3 trials/min, 00:20 left",
        "tune: 1 of 2 trials in 00:20, 3 trials/min",
    ]


def test_a_place_ends_with_its_block_even_after_an_error(clock, stderr):
    with pytest.raises(KeyError), place("train:"):
        raise KeyError
    loop(reporter("cut", "slides"), clock, [6], total=1)
    assert stderr.getvalue() == "cut: 1 slides in 00:06, 10 slides/min\n"


def test_a_counted_loop_passes_its_steps_on_and_is_shown(clock, stderr):
    passed = []
    for step in counted("abc", "fetch", "files", 3):
        clock.now += 6
        passed.append(step)
    assert passed == ["a", "b", "c"]
    assert stderr.getvalue().splitlines()[0] == "fetch: 1 of 3 files, 10 files/min, 00:12 left"
    assert stderr.getvalue().splitlines()[-1] == "fetch: 3 files in 00:18, 10 files/min"


def test_durations_are_one_or_a_range():
    assert durations([10, 10.2]) == "00:10"
    assert durations([4000, 10, 300]) == "00:10 to 1:06:40"


CHILD = """
import sys
from pathlib import Path
from time import sleep
from doctogres import progress
progress.monotonic = iter(range(0, 10_000, 20)).__next__  # every call is twenty seconds after the one before
print("main: stage 1 of 6: clean", flush=True)
for step in progress.counted(range(3), "clean", "slides", 3):
    if step == 1:
        for _ in range(600):
            if Path("go").exists():
                break
            sleep(0.1)
        else:
            sys.exit("its lines have not been read for a minute")
"""


@pytest.mark.slow
def test_lines_come_through_mlflow_run_at_once(tmp_path):
    """Eight seconds. The command waits in the middle of its loop until its first lines have been read here."""
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "MLproject").write_text("name: x\nentry_points:\n  main:\n    command: python child.py\n")
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow", "run", str(tmp_path), "--env-manager", "local"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout
        seen = []
        for line in running.stdout:
            seen.append(line.rstrip("\n"))
            if line.startswith("clean: 1 of 3 slides"):
                break
        waited = not (tmp_path / "go").exists()
        (tmp_path / "go").touch()
        rest = running.stdout.read()
    assert waited
    assert running.returncode == 0, rest
    assert "main: stage 1 of 6: clean" in seen
    assert re.fullmatch(r"clean: 1 of 3 slides, \S+ slides/min, \d\d:\d\d left", seen[-1])
    assert "clean: 3 slides in " in rest
    assert "\r" not in rest
