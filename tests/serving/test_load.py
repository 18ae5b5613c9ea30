"""Many clients at once at `mlflow models serve`: who is answered first, what the answers are, and what becomes of them at the end."""

import json
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doctogres.slides.images import encode_png
from tests.servers import as_json, post, processes_below
from tests.serving.conftest import serving
from tests.serving.drawn_requests import LESION, TISSUE, drawn, files

pytestmark = pytest.mark.slow
CLIENTS = 16


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2 * CLIENTS) as threads:
        yield threads


def large(seed: int) -> dict[str, bytes]:
    """A slide without a mask, which becomes 200 tiles."""
    rgb, _ = drawn(seed, size=(500, 700), speck=False)
    rgb[30:470, 30:670] = np.random.default_rng(seed).integers(0, 6, (440, 640, 3)) + TISSUE
    rgb[100:200, 100:300] = LESION
    return {"image": encode_png(rgb)}


def body(*rows: dict[str, Any], **params: object) -> bytes:
    return json.dumps(as_json(*rows, **params)).encode()


def rows_of(address: str, request: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = post(address, request, "application/json")["predictions"]
    return found


def test_a_small_slide_does_not_wait_for_the_large_ones_before_it(
    champion: tuple[str, Path], tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    answered: list[str] = []
    with serving(champion[0], tmp_path, "--timeout", "600") as address:

        def ask(name: str, request: bytes) -> None:
            rows_of(address, request)
            answered.append(name)

        assert rows_of(address, body(large(0)))[0]["n_patches"] == 200
        asked = body(large(0), large(1), tta=True)
        clients = [pool.submit(ask, "large", asked) for _ in range(10)]
        time.sleep(0.5)  # so that they come first
        ask("small", body(files(1, lesions=1, speck=False)))
        for client in clients:
            client.result()
    assert answered.index("small") <= 2


def test_answers_among_many_are_those_that_a_client_alone_gets(address: str, pool: ThreadPoolExecutor) -> None:
    bad = {**files(0), "image": b"bad"}
    requests = [
        body(large(1)),
        *[body(files(seed)) for seed in range(6)],
        body(files(1), tta=True),
        body(*map(files, range(5))),
        body(files(2), bad, files(3), on_error="report"),
        body(files(4), overlay=True),
    ]
    alone = [rows_of(address, request) for request in requests]
    asked = list(np.random.default_rng(0).permutation(6 * len(requests)) % len(requests))
    refused = [pool.submit(rows_of, address, body(bad)) for _ in range(5)]
    together = list(pool.map(lambda number: rows_of(address, requests[number]), asked))
    for number, found in zip(asked, together, strict=True):
        assert found == alone[number]
    for client in refused:
        with pytest.raises(urllib.error.HTTPError, match="400"):
            client.result()


def test_a_request_that_the_server_gave_up_does_not_go_on(champion: tuple[str, Path], tmp_path: Path) -> None:
    with serving(champion[0], tmp_path, "--timeout", "1") as address:
        with pytest.raises(urllib.error.HTTPError, match="504"):
            rows_of(address, body(*[large(0)] * 40, tta=True))
        log = tmp_path / "log"
        for _ in range(100):
            if "refused as a whole (timeout)" in log.read_text():
                break
            time.sleep(0.1)
        else:
            pytest.fail("the server went on")
        assert rows_of(address, body(files(1)))[0]["error"] is None


def test_who_waits_when_the_server_is_stopped_gets_an_answer(
    champion: tuple[str, Path], tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    with serving(champion[0], tmp_path) as address:
        expected = rows_of(address, body(large(0)))
        clients = [pool.submit(rows_of, address, body(large(0))) for _ in range(CLIENTS)]
        wait(clients, return_when=FIRST_COMPLETED)
        own = {"uvicorn", address.rsplit(":", 1)[1]}
        (server,) = [process for process, words in processes_below() if own <= {Path(word).name for word in words}]
        server.terminate()
        assert [client.result() for client in clients] == [expected] * CLIENTS


def test_a_server_needs_no_pytorch(champion: tuple[str, Path], tmp_path: Path, address: str) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules.update(dict.fromkeys(['torch', 'timm']))\n")
    requests = [body(files(1)), body(large(1), tta=True)]
    with serving(champion[0], tmp_path, PYTHONPATH=str(tmp_path)) as without:
        assert [rows_of(without, request) for request in requests] == [rows_of(address, each) for each in requests]
