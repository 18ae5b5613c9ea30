"""What a training's note says of fine-tuning."""

import pytest

from doctogres.evaluation.bootstrap import Estimate
from doctogres.report.training import gain_over_probe


@pytest.mark.parametrize(
    ("less", "said"),
    [
        (Estimate(-0.05, -0.09, -0.01), "raised macro-F1 by 0.050 [0.010, 0.090]."),
        (Estimate(0.05, 0.01, 0.09), "lowered macro-F1 by 0.050 [0.010, 0.090]."),
        (Estimate(-0.02, -0.06, 0.01), "made no difference in macro-F1 that these slides show: 0.020 [-0.010, 0.060]."),
    ],
)
def test_fine_tuning_is_compared_with_the_probe_it_started_from(less: Estimate, said: str) -> None:
    assert gain_over_probe(less) == f"Compared with the probe it started from, fine-tuning {said}"
