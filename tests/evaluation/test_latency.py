"""The latency of one slide, on a clock that the models themselves move."""

import pytest

from doctogres.evaluation.latency import slide_latency_ms


def test_the_models_take_turns_and_the_first_pass_does_not_count() -> None:
    now, order = [0.0], []

    def model(name: str, seconds: float) -> object:
        def answer(slide: int) -> None:
            order.append((name, slide))
            first = (name, slide) not in order[:-1] and slide == 0
            now[0] += 100.0 if first else seconds * (1 + slide)

        return answer

    models = {"model": model("model", 0.02), "champion": model("champion", 0.01)}
    latency = slide_latency_ms(models, range(21), clock=lambda: now[0])  # type: ignore[arg-type]
    assert latency["model"] == pytest.approx(20 * 20)  # the 20th of 21 values lies at the 95th percentile
    assert latency["model"] == pytest.approx(2 * latency["champion"])
    assert order[:4] == [("model", 0), ("model", 0), ("champion", 0), ("champion", 0)]
    assert order[4:8] == [("model", 1), ("champion", 1), ("model", 2), ("champion", 2)]
