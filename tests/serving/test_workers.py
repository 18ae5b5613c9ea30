"""A server of several workers, one of which is killed: what its operator is left with."""

import hashlib
import http.client
import json
import re
import subprocess
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from doctogres.serving.answers import read_answers
from tests.servers import as_json, free_port, post, processes_below
from tests.serving.conftest import serving
from tests.serving.drawn_requests import files

pytestmark = pytest.mark.slow


def workers() -> list[psutil.Process]:
    """The processes of this test's server that answer."""
    return [process for process, words in processes_below() if any("spawn_main" in word for word in words)]


def until(condition: object, what: str) -> None:
    for _ in range(600):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.2)
    pytest.fail(what)


def test_whatever_was_answered_is_in_the_log_though_a_worker_is_killed(
    champion: tuple[str, Path], tmp_path: Path
) -> None:
    log = tmp_path / "answers"
    bodies = [json.dumps(as_json({**files(seed), "slide_id": f"patient {seed}"})).encode() for seed in range(60)]
    settings = {"DOCTOGRES_ANSWER_LOG": str(log), "DOCTOGRES_METRICS_PORT": str(port := free_port())}
    with serving(champion[0], tmp_path, "--workers", "2", **settings) as address:
        until(lambda: len(list(log.glob("*"))) == 2, "the second worker did not start")
        victim = workers()[0]

        def answered(seed: int) -> bool:
            if seed == 20:
                victim.kill()
            try:
                return bool(post(address, bodies[seed], "application/json")["predictions"])
            except (urllib.error.URLError, http.client.HTTPException, OSError):
                return False

        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(answered, range(60)))
        until(lambda: len(list(log.glob("*"))) == 3, "no other worker took the place of the one that was killed")
        with pytest.raises(urllib.error.HTTPError):
            post(address, json.dumps(as_json({**files(1), "image": "%%%"})).encode(), "application/json")
        url = f"http://127.0.0.1:{port}/metrics"
        scraped = subprocess.run(["curl", "--fail", "--silent", url], capture_output=True, text=True, check=True).stdout
    rows = read_answers(log)
    logged = set(rows["image_sha256"].dropna())
    seeds = [seed for seed in range(60) if got[seed]]
    assert len(seeds) > 20
    assert [seed for seed in seeds if hashlib.sha256(files(seed)["image"]).hexdigest() not in logged] == []
    assert rows["refusal"].dropna().tolist() == ["field"]
    assert rows["model_version"].unique().tolist() == ["doctogres/1"]
    assert f"doctogres_slides_total {sum(rows['label'].notna())}.0" in scraped
    assert 'doctogres_refusals_total{kind="field"} 1.0' in scraped
    assert 'model_version="doctogres/1"' in scraped
    printed = (tmp_path / "log").read_text()
    assert len(
        re.findall(r"INFO: +request [0-9a-f]{8} to doctogres/1: slides 1, not sure [01], refused 0, \d+ ms", printed)
    ) >= len(seeds)
    assert "refused as a whole (field)" in printed
    assert "patient" not in printed + "".join(path.read_text() for path in log.iterdir())
