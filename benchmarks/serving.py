"""`python -m benchmarks.serving [load] [latency]`: the served model under load, and its latency against its bare parts.

The model has random weights and answers drawn slides. `load`: Locust (`uv tool run`, in an environment of its own)
sends requests of mixed sizes, every twentieth of them hostile, and compares every answer with what the same model says
without a server. `latency`: one client; in turn with each of its requests this process decodes the same files and runs
the same networks on the same patches, once in PyTorch and once as the server does.
"""

import argparse
import base64
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cv2
import mlflow
import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks.runtimes import NETWORKS
from benchmarks.training_memory import look
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import create_network, normalise
from doctogres.model.temperature import Calibration
from doctogres.serving.logged import log_classifier
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.images import encode_png, read_rgb
from doctogres.slides.masks import read_mask
from doctogres.synthetic.slide import draw_slide

LOCUST: Final = "locust==2.47.0"
JSON, PARQUET = "application/json", "application/vnd.apache.parquet"
SCALES: Final = (0.5, 1, 1, 2)  # of the drawn slides' 0.5 megapixels: an eighth to 2 megapixels
CLASSES: Final = ("HER2(+)", "Luminal A", "Luminal B", "Triple negative")
Kind = tuple[str, int, dict[str, Any], str]
KINDS: Final[tuple[Kind, ...]] = (  # of twenty requests: slides, parameters, what is different
    *[("a slide", 1, {}, "")] * 10,
    *[("a slide without mask", 1, {}, "no mask")] * 2,
    *[("a slide and its overlay", 1, {"overlay": True}, "")] * 2,
    *[("four slides", 4, {}, "")] * 2,
    *[("four slides in Parquet", 4, {}, "parquet")] * 2,
    ("four slides, one bad, reported", 4, {"on_error": "report"}, "bad"),
    ("hostile", 1, {}, "hostile"),
)
QUIET: Final = 0.1  # seconds in which the threads of the call before stop waiting for more
LONGEST: Final = 1800  # seconds of the load
ROUNDS: Final = 10  # of twenty requests that differ; later ones are repeated


def made_classifier(backbone: str, size: int, members: int) -> SlideClassifier:
    """Untrained networks; a region of the drawn slides is about 60 px."""
    torch.manual_seed(0)
    networks = [create_network(backbone, classes=len(CLASSES), size=size).eval() for _ in range(members)]
    return make_classifier(
        [(architecture_of(backbone), "regions", Ensemble(networks))],
        recipe="finetune",
        classes=CLASSES,
        class_shares=dict.fromkeys(CLASSES, 1 / len(CLASSES)),
        patch=PatchSettings(patch_size=size, min_area=200, margin=0.25, patching="regions"),
        answer=AnswerSettings(aggregation="mean", tta=False, target_precision=0.9),
        calibration=Calibration.none(0.9),
        region_side=60,
        seen=TrainingRecord(),
        evidence={},
    )


def logged_model(classifier: SlideClassifier, folder: Path) -> Path:
    """The model's folder, as MLflow fetches it."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    os.environ["MLFLOW_EXPERIMENT_ID"] = mlflow.create_experiment("serving", artifact_location=str(folder / "store"))
    with mlflow.start_run():
        uri = log_classifier(classifier, metadata={})
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder / "model")))


def drawn_slides(count: int) -> list[dict[str, Any]]:
    """Rows of requests: drawn slides in several sizes, every third picture a JPEG."""
    rows = []
    for number in range(count):
        slide = draw_slide(np.random.default_rng(number), CLASSES[number % len(CLASSES)])
        scale = SCALES[number % len(SCALES)]
        rgb = cv2.resize(slide.picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
        mask = cv2.resize(slide.mask, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        image = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes() if number % 3 == 2 else encode_png(rgb)
        rows.append({"slide_id": f"slide {number}", "image": image, "mask": encode_png(mask)})
    return rows


def json_body(rows: list[dict[str, Any]], params: dict[str, Any]) -> bytes:
    encoded = [
        {name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in row.items()}
        for row in rows
    ]
    return json.dumps({"dataframe_records": encoded, "params": params}).encode()


def parquet_body(rows: list[dict[str, Any]]) -> bytes:
    table = io.BytesIO()
    pd.DataFrame(rows).to_parquet(table)
    return table.getvalue()


def hostile_requests(row: dict[str, Any], other: dict[str, Any]) -> list[tuple[bytes, str, str]]:
    """Bodies that get status 400, their type, and how the sentence begins."""
    vast = bytearray(encode_png(np.zeros((8, 8, 3), np.uint8)))
    vast[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in the header, whose checksum follows
    vast[29:33] = zlib.crc32(vast[12:29]).to_bytes(4, "big")
    name = row["slide_id"]

    def one(**fields: Any) -> bytes:
        return json_body([row | fields], {})

    return [
        (one(image="%%%"), JSON, f"{name} (image) is not valid base64"),
        (one(image=b"hello"), JSON, f"{name} (image) is not a picture"),
        (one(image=row["image"][: len(row["image"]) // 2]), JSON, f"{name} (image) is truncated"),
        (one(image=bytes(vast)), JSON, f"{name} (image) has 60000 x 60000 pixels"),
        (one(mask=other["mask"]), JSON, f"{name} (mask) has"),
        (one(image=None), JSON, f"{name} (image) is missing"),
        (json_body([], {}), JSON, "the request contains no slides"),
        (json_body([{"image": "aGVsbG8="}] * 30_000, {}), JSON, "the request contains 30000 slides"),
        (b'{"dataframe_records": [', JSON, ""),  # MLflow's own words
        (b"PAR1 and nothing of it", PARQUET, ""),
    ]


def write_requests(folder: Path, model: Any) -> None:
    """The bodies and `requests.json`: kind, number of slides, status and answer of each."""
    slides = drawn_slides(120)
    hostile = hostile_requests(slides[0], slides[1])
    requests, random = [], np.random.default_rng(0)
    for number in range(ROUNDS * len(KINDS)):
        answer: Any
        kind, count, params, different = KINDS[number % len(KINDS)]
        rows = [slides[place] for place in random.choice(len(slides), count, replace=False)]
        status, content_type = 200, JSON
        if different == "hostile":
            body, content_type, answer = hostile[number // len(KINDS) % len(hostile)]
            status = 400
        else:
            rows = [row | {"mask": None} for row in rows] if different == "no mask" else rows
            rows = [*rows[:-1], rows[-1] | {"image": b"bad"}] if different == "bad" else rows
            content_type = PARQUET if different == "parquet" else JSON
            body = parquet_body(rows) if different == "parquet" else json_body(rows, params)
            answer = {"predictions": model.predict(pd.DataFrame(rows), params=params)}
        (folder / f"{number}.body").write_bytes(body)
        requests.append(
            {"kind": kind, "slides": count, "body": f"{number}.body", "content_type": content_type}
            | {"status": status, "answer": answer}
        )
    (folder / "requests.json").write_text(json.dumps(requests), encoding="utf-8")


@contextmanager
def served(
    model: Path, log: Path, *, workers: int, openvino: bool, **variables: str
) -> Iterator[tuple[psutil.Process, int]]:
    """The model behind `mlflow models serve`, as if OpenVINO were not installed where it is not wanted; with its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "--model-uri", str(model)]
    command += ["--env-manager", "local", "--port", str(port), "--workers", str(workers), "--timeout", "600"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables
    if not openvino:
        (log.parent / "sitecustomize.py").write_text('import sys\nsys.modules["openvino"] = None\n', encoding="utf-8")
        environment["PYTHONPATH"] = str(log.parent)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        start = time.perf_counter()
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/ping")
                # A worker that is ready answers for those that are not.
                begun = log.read_text(encoding="utf-8").count("Application startup complete")
                if connection.getresponse().status == 200 and begun == workers:
                    break
            except OSError:
                pass
            if process.poll() is not None or time.perf_counter() - start > 300:
                raise SystemExit(log.read_text(encoding="utf-8"))
            time.sleep(0.2)
        print(f"Ready after {time.perf_counter() - start:.1f} s.\n", flush=True)
        yield psutil.Process(process.pid), port
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.terminate()
            process.terminate()
        process.wait(30)


def load(folder: Path, model: Path, options: argparse.Namespace) -> None:
    """Prints what the clients met and the server's memory."""
    write_requests(folder, mlflow.pyfunc.load_model(str(model)))
    memory: list[float] = []
    stop = threading.Event()
    with served(model, folder / "server.log", workers=options.workers, openvino=options.openvino) as (server, port):

        def watch() -> None:
            while not stop.wait(0.5):
                memory.append(look(server)[0])

        before = look(server)[0]
        watcher = threading.Thread(target=watch)
        watcher.start()
        command = [
            "uv",
            "tool",
            "run",
            "--from",
            LOCUST,
            "locust",
            "--headless",
            "--only-summary",
            "--loglevel",
            "ERROR",
        ]
        command += ["-f", str(Path(__file__).with_name("serving_clients.py")), "-H", f"http://127.0.0.1:{port}"]
        command += ["-u", str(options.clients), "-r", str(options.clients)]
        environment = os.environ | {"REQUESTS": str(folder), "TOTAL": str(options.requests)}
        with (folder / "locust.log").open("wb") as output:
            subprocess.run(command, env=environment, stdout=output, stderr=output, check=False, timeout=LONGEST)
        stop.set()
        watcher.join()
    if not (folder / "records.json").exists():
        raise SystemExit((folder / "locust.log").read_text(encoding="utf-8"))
    records = pd.DataFrame(json.loads((folder / "records.json").read_text(encoding="utf-8")))
    seconds = records["ended"].max() - records["started"].min()
    print(
        f"{len(records)} requests, {options.clients} at once, {options.workers} workers, in {seconds:.0f} s: "
        f"{len(records) / seconds:.1f} requests/s, {records.loc[records['status'] == 200, 'slides'].sum() / seconds:.1f} "
        f"slides/s; status 5xx: {(records['status'] >= 500).sum()}, wrong: {(records['wrong'] != '').sum()}\n"
    )
    for wrong in records.loc[records["wrong"] != "", "wrong"].head(5):
        print(wrong)
    print("| | requests | p50, s | p95, s | p99, s | answered meanwhile: p50 | p95 | p95 / p50 |\n" + "|---" * 8 + "|")
    ends = np.sort(records["ended"])
    # In seconds, other work on the machine makes the longest waits; in answers to others, it does not show.
    records["meanwhile"] = np.searchsorted(ends, records["ended"]) - np.searchsorted(ends, records["started"])
    records["waited"] = records["ended"] - records["started"]
    for kind, group in [("all", records), *records.groupby("kind", sort=False)]:
        p50, p95, p99 = group["waited"].quantile([0.5, 0.95, 0.99])
        half, most = group["meanwhile"].quantile([0.5, 0.95])
        print(
            f"| {kind} | {len(group)} | {p50:.2f} | {p95:.2f} | {p99:.2f} | {half:.0f} | {most:.0f} | {most / max(1, half):.1f} |"
        )
    fifths = np.array_split(np.array(memory), 5)
    highest = ", ".join(f"{fifth.max():.0f}" for fifth in fifths)
    print(f"\nMemory of the server, MiB: {before:.0f} before; highest in each fifth of the time: {highest}")


def latency(folder: Path, model: Path, options: argparse.Namespace) -> None:
    """Prints one client's latency, and its ratio to the bare parts measured in between."""
    classifier = SlideClassifier.load(model / "artifacts" / "classifier")
    card = classifier.card
    members = [member.to(memory_format=torch.channels_last) for member in classifier.networks[0].members]
    with served(model, folder / "server.log", workers=1, openvino=options.openvino) as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        print(
            "| slide | megapixels | patches | in | p50, ms | p95 | p99 | times bare, PyTorch | times bare, as served |"
        )
        print("|" + "---|" * 9)
        for number, row in enumerate(drawn_slides(len(SCALES))):
            rgb = read_rgb(row["image"], name="image")
            cut = classifier.cut(rgb, read_mask(row["mask"], name="mask"))
            inputs = normalise(
                torch.from_numpy(cut.pixels[card.views[0]]),
                card.sources[0].architecture.mean,
                card.sources[0].architecture.std,
            )
            inputs = inputs.contiguous(memory_format=torch.channels_last)

            def decode(row: dict[str, Any] = row) -> None:
                for name in ("image", "mask"):
                    cv2.imdecode(np.frombuffer(row[name], np.uint8), cv2.IMREAD_UNCHANGED)

            @torch.inference_mode()
            def eager(inputs: torch.Tensor = inputs) -> None:
                for member in members:
                    member(inputs)

            def same(pixels: Any = cut.pixels) -> None:
                outputs_of(
                    classifier.networks[0],
                    pixels,
                    mean=card.sources[0].architecture.mean,
                    std=card.sources[0].architecture.std,
                )

            for kind, body in ((JSON, json_body([row], {})), (PARQUET, parquet_body([row]))):

                def ask(body: bytes = body, kind: str = kind) -> None:
                    connection.request("POST", "/invocations", body, {"Content-Type": kind})
                    response = connection.getresponse()
                    response.read()
                    connection.close()  # the server does, too, when nothing comes for 5 s
                    if response.status != 200:
                        raise SystemExit(f"status {response.status}")

                calls: list[Callable[[], None]] = [ask, decode, eager, same]
                for call in calls:
                    call()
                times = np.array([[timed(call) for call in calls] for _ in range(options.repeats)])
                whole, decoding, bare, served_bare = times.T
                row_text = [number, f"{rgb.shape[0] * rgb.shape[1] / 1e6:.1f}", len(cut.regions), kind.split(".")[-1]]
                row_text += [f"{1000 * value:.1f}" for value in np.quantile(whole, [0.5, 0.95, 0.99])]
                for forward in (bare, served_bare):
                    row_text.append(f"{np.median(whole) / np.median(decoding + forward):.2f}")
                print(f"| {' | '.join(map(str, row_text))} |", flush=True)


def timed(call: Callable[[], None]) -> float:
    time.sleep(QUIET)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Runs the sections."""
    sections = {"load": load, "latency": latency}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *sections], default=list(sections))
    parser.add_argument("--backbone", choices=[name for name, _ in NETWORKS], default="mobilenetv2_100")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--no-openvino", dest="openvino", action="store_false")
    options = parser.parse_args()
    if not options.openvino:
        sys.modules["openvino"] = None  # type: ignore[assignment]
    size = dict(NETWORKS)[options.backbone]
    print(f"{options.members} × {options.backbone} at {size} px\n", flush=True)
    for section in options.sections or sections:
        with tempfile.TemporaryDirectory() as folder:
            classifier = made_classifier(options.backbone, size, options.members)
            sections[section](Path(folder), logged_model(classifier, Path(folder)), options)


if __name__ == "__main__":
    main()
