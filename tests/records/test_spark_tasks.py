"""How a cohort is divided into Spark's tasks."""

import pytest

from doctogres.records.spark import FEWEST, MOST, slides_per_task


@pytest.mark.parametrize(
    ("slides", "cores", "expected"),
    [(5, 2, FEWEST), (1000, 2, 62), (10_000, 2, MOST), (10_000, 100, 12), (100_000, 100, MOST)],
)
def test_tasks_are_large_where_cores_have_work_to_the_end_all_the_same(slides: int, cores: int, expected: int) -> None:
    assert slides_per_task(slides, cores) == expected
