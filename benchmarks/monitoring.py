"""`python -m benchmarks.monitoring`: what the answer log and the metrics of a served model cost.

Two servers of the same model, one with both and one with neither, get the same requests in turn, in changing order; the
model and the slides are those of `benchmarks.serving`. A request's CPU time is that of its server's processes.
"""

import argparse
import http.client
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from benchmarks.runtimes import NETWORKS
from benchmarks.serving import JSON, SCALES, drawn_slides, json_body, logged_model, made_classifier, served
from doctogres.serving.answer_log import AnswerLog
from doctogres.serving.answers import read_answers

ROWS: Final = 2000  # appended one by one


def cpu_seconds(server: psutil.Process) -> float:
    """CPU time of a server so far; its kernel counts in hundredths of a second, so only sums over many requests mean much."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def ask(port: int, body: bytes) -> float:
    """Seconds until the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    start = time.perf_counter()
    connection.request("POST", "/invocations", body, {"Content-Type": JSON})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise SystemExit(f"status {response.status}")
    return time.perf_counter() - start


def compared(servers: list[tuple[psutil.Process, int]], body: bytes, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of every request to each server, (repeats, servers), and their sums of CPU seconds, (servers,)."""
    for _, port in servers:
        ask(port, body)
    cpu, seconds = np.zeros(len(servers)), np.zeros((repeats, len(servers)))
    for repeat in range(repeats):
        for place in np.roll(np.arange(len(servers)), repeat):
            server, port = servers[place]
            before = cpu_seconds(server)
            seconds[repeat, place] = ask(port, body)
            cpu[place] += cpu_seconds(server) - before
    return seconds, cpu


def append_seconds(folder: Path, row: dict[str, object]) -> float:
    """Median time in which the log takes a row."""
    log, times = AnswerLog(folder), []
    for _ in range(ROWS):
        start = time.perf_counter()
        log.append([row])
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=[name for name, _ in NETWORKS], default="mobilenetv2_100")
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = logged_model(made_classifier(options.backbone, dict(NETWORKS)[options.backbone], 3), folder)
        watched = {"DOCTOGRES_ANSWER_LOG": str(folder / "answers"), "DOCTOGRES_METRICS_PORT": "9108"}
        with (
            served(model, folder / "plain.log", workers=1, openvino=True) as plain,
            served(model, folder / "watched.log", workers=1, openvino=True, **watched) as with_log,
        ):
            print("| megapixels | p50 without, ms | with | ratio of the pairs, median | ratio of CPU time |")
            print("|" + "---|" * 5)
            for row, scale in zip(drawn_slides(len(SCALES)), SCALES, strict=True):
                seconds, cpu = compared([plain, with_log], json_body([row], {}), options.repeats)
                ratio = np.median(seconds[:, 1] / seconds[:, 0])
                p50 = 1000 * np.median(seconds, axis=0)
                cells = [scale**2 / 2, *(f"{value:.1f}" for value in p50), f"{ratio:.3f}", f"{cpu[1] / cpu[0]:.3f}"]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
        rows = read_answers(folder / "answers")
        written = sum(path.stat().st_size for path in (folder / "answers").iterdir())
        row = {str(key): value for key, value in rows.iloc[0].items() if isinstance(value, str | dict | list)}
        taken = append_seconds(folder / "other", row)
        print(f"\n{written / len(rows):.0f} bytes a row; a row is appended in {1e6 * taken:.0f} microseconds")


if __name__ == "__main__":
    main()
