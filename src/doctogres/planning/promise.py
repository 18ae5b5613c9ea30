"""What `main` says of its time before it begins, measured on this cohort and this machine."""

from doctogres.disk import free_space
from doctogres.files import workspace
from doctogres.planning.cohort import Found
from doctogres.planning.estimate import Promised, estimate, told
from doctogres.planning.sample import sample_slides
from doctogres.planning.speed import measure_speed, pace
from doctogres.progress import place
from doctogres.settings import Preset
from doctogres.training.sources import chosen_views


def promise(found: Found, preset: Preset) -> tuple[Promised, list[str]]:
    """Measures a few slides and patches.

    Args:
        found: the cohort.
        preset: that was chosen for it.

    Raises:
        ParameterError: a view that the model is to see is not cut.

    Returns:
        Recipe -> stage -> seconds, empty if no slide that was tried can be used; and what to say, in lines.
    """
    sample = sample_slides(found, preset)
    if sample is None:
        return {}, ["how long it takes is not known: none of the slides that were tried can be used"]
    chosen_views(preset.train, preset.patch)  # refuses a view that is not cut
    with place("main: measuring"):
        speeds = measure_speed(preset, sample, found.cohort)
    expected = estimate(preset, found.cohort, sample, speeds, pace())
    return expected.seconds, told(expected, sample, free_space(workspace()))
