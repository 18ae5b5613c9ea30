"""`python -m doctogres.doctor`: whether this machine has what doctogres needs, line by line, with what to do where it has not.

A problem stops a command that the default settings run; a warning concerns only some of them.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

from doctogres.addresses import check_environment, masked
from doctogres.disk import free_space
from doctogres.errors import DoctogresError, listed
from doctogres.files import closed_above, keep_private, temporary_folder, workspace

GIGABYTE: Final = 2**30
PYTHON: Final = (3, 11)
LEAST_DISK, ENOUGH_DISK = (
    1,
    10,
)  # GB: without the first nothing runs; a cohort of a few thousand slides needs the second
LEAST_MEMORY, ENOUGH_MEMORY = 2, 8  # GB
JAVA: Final = 17
IMPATIENT: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
CHECKED_TAG: Final = "doctogres.checked"
SIGNS: Final = "漢字 한국어 ไทย हिन्दी"  # letters of scripts for which matplotlib brings no font
PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)\s*(;\s*(?P<marker>.+))?$")

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        state: ok, warning or problem.
        what: what was looked at.
        text: what was found and, unless it is ok, what to do.
    """

    state: Literal["ok", "warning", "problem"]
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.what:<18} {self.text}"


def python_version() -> Finding:
    """Whether this is the Python that the pins are for."""
    found = sys.version_info[:2]
    text = f"{sys.version.split()[0]} at {sys.executable}"
    if found == PYTHON:
        return Finding(OK, "Python", text)
    return Finding(PROBLEM, "Python", f"{text}; Python 3.11 is needed: make setup PYTHON3=/path/to/python3.11")


def packages(pins: Path) -> Finding:
    """Whether the packages are those that are pinned in a requirements file."""
    if not pins.is_file():
        return Finding(WARNING, "packages", f"{pins} does not exist, so versions cannot be compared; run it in a clone")
    wanted = dict(_pinned(pins))
    installed = {name: _installed(name) for name in wanted}
    missing = [name for name, found in installed.items() if found is None]
    others = [
        f"{name} {found} instead of {wanted[name]}"
        for name, found in installed.items()
        if found not in (None, wanted[name])
    ]
    if missing:
        return Finding(PROBLEM, "packages", f"missing: {listed(missing)}; run make setup")
    if others:
        return Finding(WARNING, "packages", f"not as pinned: {listed(others)}; run make setup")
    return Finding(OK, "packages", f"{len(wanted)} as pinned in {pins.name}")


def _pinned(pins: Path) -> Iterator[tuple[str, str]]:
    from packaging.markers import Marker

    for line in pins.read_text(encoding="utf-8").splitlines():
        pin = PIN.match(line)
        if pin and (pin["marker"] is None or Marker(pin["marker"]).evaluate()):
            yield pin["name"], pin["version"]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def disk(folder: Path, what: str, remedy: str) -> Finding:
    """Whether a folder can be written to and has space."""
    if above := closed_above(folder):
        return Finding(PROBLEM, what, f"{above} cannot be written to; {remedy}")
    free = free_space(folder) / GIGABYTE
    text = f"{free:.1f} GB free for {folder}"
    if free >= ENOUGH_DISK:
        return Finding(OK, what, text)
    return Finding(
        PROBLEM if free < LEAST_DISK else WARNING,
        what,
        f"{text}; a few thousand slides need {ENOUGH_DISK} GB: {remedy}",
    )


def memory() -> Finding:
    """Whether enough memory is free."""
    import psutil

    found = psutil.virtual_memory()
    text = f"{found.available / GIGABYTE:.1f} of {found.total / GIGABYTE:.1f} GB free"
    if found.available >= ENOUGH_MEMORY * GIGABYTE:
        return Finding(OK, "memory", text)
    state: Literal["warning", "problem"] = PROBLEM if found.available < LEAST_MEMORY * GIGABYTE else WARNING
    return Finding(state, "memory", f"{text}; end other programs, or lower batch_size")


def accelerator() -> Finding:
    """Which device trains, and whether a GPU of this machine is left unused."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        devices = listed([f"{device.name} ({device.total_memory / GIGABYTE:.0f} GB)" for device in names])
        return Finding(OK, "accelerator", f"{devices}, CUDA {torch.version.cuda}, PyTorch {torch.__version__}")
    if torch.backends.mps.is_available():
        return Finding(OK, "accelerator", f"Apple GPU, PyTorch {torch.__version__}")
    cores = (
        f"none; PyTorch {torch.__version__} uses {torch.get_num_threads()} cores: choose preset=small for real slides"
    )
    if not (shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists()):
        return Finding(OK, "accelerator", cores)
    built = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "was built without CUDA"
    return Finding(
        WARNING,
        "accelerator",
        f"there is an NVIDIA GPU, but PyTorch {torch.__version__} ({built}) cannot use it; nvidia-smi shows the newest CUDA "
        "version of the driver: update the driver, or install a PyTorch for that version",
    )


def tracking() -> Iterator[Finding]:
    """Whether the tracking store and the registry answer and can be written to."""
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException

    from doctogres.tracking.store import connect, experiment_id

    try:
        check_environment()
        connect()
        client = mlflow.MlflowClient()
        client.set_experiment_tag(experiment_id(), CHECKED_TAG, "by doctogres.doctor")
        experiment = client.get_experiment(experiment_id())
    except (DoctogresError, MlflowException) as error:
        yield Finding(PROBLEM, "tracking", _line(error))
        return
    address = masked(mlflow.get_tracking_uri())
    yield Finding(OK, "tracking", f"{address}, experiment {experiment.name}, can be written to")
    try:
        models = client.search_registered_models(max_results=100)
    except MlflowException as error:
        yield Finding(PROBLEM, "registry", f"{_line(error)}; check MLFLOW_REGISTRY_URI")
        return
    yield Finding(OK, "registry", listed([model.name for model in models]) or "no model yet")


def _line(error: Exception) -> str:
    return masked(" ".join(str(error).split()))


def weights() -> Iterator[Finding]:
    """Whether the weights of the presets are at hand, or can be fetched."""
    from doctogres.errors import WeightsError
    from doctogres.model.weights import check_weights
    from doctogres.presets import load_preset

    for name in ("small", "challenge"):
        for backbone, given in load_preset(name).train.encoders:
            try:
                check_weights(backbone, given)
            except WeightsError as error:
                yield Finding(WARNING, "weights", f"preset={name}: {error}")
            else:
                yield Finding(OK, "weights", f"preset={name}: {backbone} is in the cache or can be fetched")


def java() -> Finding:
    """Whether Spark could run, which only `engine=spark` and Spark's own programs need."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home else shutil.which("java")
    remedy = "only Spark needs it: apt-get install openjdk-17-jre-headless, and pip install pyspark"
    if not program or not Path(program).exists():
        return Finding(WARNING, "Java for Spark", f"none; {remedy}")
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', done.stderr)
    number = int(found[1]) if found else 0
    if number < JAVA:
        return Finding(
            WARNING, "Java for Spark", f"{program} is version {number or 'unknown'}, {JAVA} is needed; {remedy}"
        )
    spark = _installed("pyspark")
    if spark is None:
        return Finding(WARNING, "Java for Spark", f"Java {number}, but no pyspark; {remedy}")
    return Finding(OK, "Java for Spark", f"Java {number}, pyspark {spark}")


def fonts() -> Finding:
    """Whether figures can show names in every alphabet."""
    from doctogres.fonts import missing_letters

    if missing := missing_letters(SIGNS):
        remedy = "apt-get install fonts-noto-cjk fonts-noto-core, or the like"
        return Finding(
            WARNING, "fonts", f"figures show boxes for letters such as {missing[:3]}; if names have them: {remedy}"
        )
    return Finding(OK, "fonts", "letters of every alphabet")


def findings() -> Iterator[Finding]:
    """Every check, one after the other."""
    root = Path(__file__).parents[2]
    yield python_version()
    yield packages(root / "requirements.txt")
    yield disk(workspace(), "workspace", "name another folder with DOCTOGRES_WORKSPACE")
    yield disk(temporary_folder(), "temporary files", "name another folder with TMPDIR")
    checks: list[Callable[[], Finding | Iterator[Finding]]] = [memory, accelerator, tracking, weights, java, fonts]
    for check in checks:
        try:
            found = check()
            yield from [found] if isinstance(found, Finding) else found
        except ImportError as error:
            yield Finding(PROBLEM, check.__name__, f"cannot be checked: {error}; run make setup")


def main() -> None:
    """Prints the findings; exit status 1 if there is a problem."""
    keep_private()
    states = []
    for finding in findings():
        print(finding, flush=True)
        states.append(finding.state)
    problems, cautions = states.count(PROBLEM), states.count(WARNING)
    print(f"{problems} problems, {cautions} warnings")
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
