"""The clients of `benchmarks.serving`, for Locust: they send the requests in the folder in turn and check every answer."""

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, Final

from locust import FastHttpUser, events, task
from locust.exception import StopUser

FOLDER: Final = Path(os.environ["REQUESTS"])
TOTAL: Final = int(os.environ["TOTAL"])
TOLERANCE: Final = 1e-5
REQUESTS: Final = json.loads((FOLDER / "requests.json").read_text(encoding="utf-8"))
BODIES: Final = [(FOLDER / request["body"]).read_bytes() for request in REQUESTS]
numbers: Final = itertools.count()
records: Final[list[dict[str, Any]]] = []


def difference(expected: Any, found: Any, place: str = "answer") -> str:
    """Where two answers differ by more than rounding, or nothing."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        pairs = [(expected[name], found[name], name) for name in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(one, other, str(index)) for index, (one, other) in enumerate(zip(expected, found, strict=True))]
    elif isinstance(expected, float) and isinstance(found, float) and abs(expected - found) <= TOLERANCE:
        return ""
    else:
        return "" if expected == found else f"{place}: {str(expected)[:80]} is {str(found)[:80]}"
    return next(filter(None, (difference(one, other, f"{place}.{name}") for one, other, name in pairs)), "")


class Client(FastHttpUser):
    """One of those who ask at the same time."""

    @task
    def ask(self) -> None:
        number = next(numbers)
        if number >= TOTAL:
            raise StopUser
        index = number % len(REQUESTS)
        request = REQUESTS[index]
        headers = {"Content-Type": request["content_type"]}
        started = time.perf_counter()
        with self.client.post(
            "/invocations", data=BODIES[index], headers=headers, name=request["kind"], catch_response=True
        ) as response:
            ended, status = time.perf_counter(), response.status_code
            text = response.text or str(response.error)
            try:
                if status != request["status"]:
                    wrong = f"status {status}: {text[:200]}"
                elif status == 200:
                    wrong = difference(request["answer"], json.loads(text))
                else:
                    message = json.loads(text)["message"]
                    wrong = "" if message.startswith(request["answer"]) else f"message: {message[:200]}"
            except (ValueError, KeyError, TypeError):
                wrong = f"no answer of ours: {text[:200]}"
            response.failure(f"{index}: {wrong}") if wrong else response.success()
            records.append(
                {name: request[name] for name in ("kind", "slides")}
                | {"status": status, "started": started, "ended": ended, "wrong": wrong}
            )
        if len(records) == TOTAL:
            self.environment.runner.quit()


@events.test_stop.add_listener
def write(**_: Any) -> None:
    """Leaves what was seen to the benchmark."""
    (FOLDER / "records.json").write_text(json.dumps(records), encoding="utf-8")
