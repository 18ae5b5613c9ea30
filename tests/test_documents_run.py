"""Every command in README.md, CONTRIBUTING.md and docs/ is run, in the order of its page, and prints what the page shows.

How a command is run: a shell gets the page's text, with values for the placeholders, in a copy of the project whose presets train
for a second instead of minutes (SMALL), whose demo has 40 slides, and whose `python` and `mlflow` have nothing left to import
(tests/warm.py). `make`, `mlflow run` and the served model are real. One cohort, one store and one served model are made for all
pages. The commands of LITERAL are run by Python itself. What cannot be run here is in NOT_HERE, with the reason;
test_documents.py checks that its parser takes it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest
import yaml

from tests.documents import PAGES, Command, as_form, blocks, commands, pieces
from tests.s3 import BUCKET, s3_server
from tests.servers import ROOT, free_port, running
from tests.stores import plain_environment
from tests.test_documents import shown_by
from tests.test_extending import COPIED
from tests.warm import warm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL: Final[dict[str, dict[str, Any]]] = {
    "patch": {"patch_size": 64},
    "train": {
        "backbone": "test_resnet",
        "weights": "none",
        "start": "random",
        "epochs": 2,
        "unfreeze_every": 0,
        "oof_folds": 2,
    },
    "tune": {"trials": 2, "trial_epochs": 1, "trial_folds": 1},
    "evaluate": {"resamples": 100},
    "ablate": {"seeds": 1},
}
NOT_HERE: Final = {  # what a command begins with, or has in it: why it is not run
    r"make (setup|test|lint|quick)|uv tool run pre-commit": "the environment is made, and this is the test",
    r"python -m pytest": "a test, which the suite runs",
    r"make (audit|release|coverage)": "asks a registry, makes a release, or runs all tests",
    r"docker|apptainer|make offline|\./(install|serve|page|classify)": "needs docker or Apptainer, or fetches all packages: "
    "tests/test_container.py",
    r"apt-get|pg_ctlcluster|su postgres|echo .*/etc/postgresql": "changes the machine; tests/postgres.py starts a server",
    r"createdb|pg_dump|aws s3|mlflow server|curl -u admin|export .*MLFLOW_(FLASK|AUTH)": "needs PostgreSQL, a bucket and logins: "
    "tests/test_team_server.py and tests/test_login.py",
    r"torchrun": "tests/training/test_processes.py",
    r"--engine spark|from pyspark": "tests/records/test_engine_spark.py and tests/serving/test_spark.py, on Spark's own processes",
    r"-e ablate": "a minute: tests/stages/test_ablate.py",
    r"python -m benchmarks": "needs a cohort of real slides and minutes",
}
LITERAL: Final = re.compile(r"mlflow run \. -e init ")
SERVER: Final = re.compile(r"make (app|ui)\b")


@dataclass
class Copy:
    """A copy of the project in which commands are run.

    Attributes:
        folder: the copy.
        environment: variables of its shells.
        values: pattern -> what stands in its place in a command.
    """

    folder: Path
    environment: dict[str, str]
    values: dict[str, str]

    @property
    def store(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def first_store(self) -> Path:
        """The store as every page finds it: what is newest in it must not depend on the pages before."""
        return self.folder / "first.db"

    def filled(self, text: str) -> str:
        """A command with values for its placeholders."""
        for pattern, value in self.values.items():
            text = re.sub(pattern, value.replace("\\", r"\\"), text)
        return text

    def shell(self, script: str) -> str:
        """Runs a script; returns what it printed, without what is only for the eye."""
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, errors="replace",
        )  # fmt: skip
        return done.stdout


def not_here(command: Command) -> bool:
    return any(re.search(pattern, command.text) for pattern in NOT_HERE)


def run_on(page: Path) -> list[Command]:
    """The commands of a page that are run."""
    return [command for block in blocks(page) for command in commands(block) if not not_here(command)]


def test_what_is_not_run_is_on_the_pages_and_its_tests_are_there() -> None:
    every = [command for page in PAGES for block in blocks(page) for command in commands(block)]
    assert [pattern for pattern in NOT_HERE if not any(re.search(pattern, each.text) for each in every)] == []
    assert all((ROOT / path).exists() for why in NOT_HERE.values() for path in re.findall(r"tests/\S+\.py", why))
    assert sum(map(not_here, every)) < len(every) / 3


def small_presets(folder: Path) -> None:
    """Presets of the same names that train for a second: the settings of SMALL in place of their own."""
    for path in folder.glob("*.yaml"):
        preset = yaml.safe_load(path.read_text("utf-8"))
        for section, values in SMALL.items():
            preset[section] = preset.get(section, {}) | values
        path.write_text(yaml.safe_dump(preset), "utf-8")


def small_project(folder: Path) -> None:
    """The files of the project, with small presets and a small demo."""
    folder.mkdir()
    files = [ROOT / name for name in (*COPIED, "container", "Makefile", "MLproject", "conda.yaml", "README.md")]
    for path in [*files, *ROOT.glob("requirements*.txt")]:
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    small_presets(folder / "src/doctogres/presets")
    catalogue = folder / "src/doctogres/catalogue.py"
    before, size, after = catalogue.read_text("utf-8").partition('Parameter("size", 100,')
    assert size
    catalogue.write_text(f'{before}Parameter("size", 40,{after}', "utf-8")


def variables(folder: Path) -> dict[str, str]:
    """Of the shells: the store in the folder, ports that are free, and nothing from a network."""
    real = Path(sys.executable).parent
    ports = {name: str(free_port()) for name in ("PORT", "APP_PORT", "MLFLOW_PORT", "METRICS_PORT")}
    return plain_environment() | ports | {
        "PATH": f"{folder}/.venv/bin:{real}:{os.environ['PATH']}", "REAL": str(real), "PYTHONPATH": f"{folder}/src",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MLFLOW_EXPERIMENT_NAME": "doctogres", "MPLBACKEND": "Agg",
        "MLFLOW_WORKERS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1", "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "SLURM_ARRAY_TASK_ID": "1", "STREAMLIT_SERVER_HEADLESS": "true",
    }  # fmt: skip


def values_for(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """What stands in the place of the pages' placeholders, hosts and large numbers, by pattern."""
    served, metrics = (f"127.0.0.1:{environment[name]}" for name in ("PORT", "METRICS_PORT"))
    return {
        r"(?<=data=)FOLDER(_OR_\w+)?(?= -P folds_by)": "data/sites",
        r"(?<=(data=|data ))FOLDER(_OR_\w+)?|/shared/cohort": "data/demo",
        r"s3://BUCKET/FOLDER": f"s3://{BUCKET}/slides",
        r"/data/north_hospital\.zip": "north.zip",
        r"\bRUN_ID\b": "$(newest clean)",
        r"\bSLIDE(_?\d?) MASK\1\b": "data/demo/test_data/img_0000.png data/demo/test_data/mask_0000.png",
        r"\bSLIDE_3\b": "data/demo/test_data/img_0001.png",
        r"(?<=--model )MODEL\b": "models:/doctogres@champion",
        r"\bMODEL\b(?=[ /])": "$(dirname $(ls -t mlruns/*/models/*/artifacts/model.sig | head -1))",
        r"models:/doctogres/3,models:/doctogres/4": "models:/doctogres/1,models:/doctogres/2",
        r"(?<=model_name=doctogres-demo -P )version=3": "version=1",  # the demo's own: the page has forced another one before
        r"/shared/doctogres": "$PWD/.doctogres",
        r"/var/lib/doctogres/answers": "$PWD/answers",
        r"since=\S+ -P until=\S+": f"since={datetime.now(UTC):%Y-%m-%d}",
        r"postgresql://doctogres@\w+[.\d]*/tracking|https://(mlflow|tracking)\.\w+\.\w+": f"sqlite:///{folder}/mlflow.db",
        r"postgresql://doctogres@\w+[.\d]*/study": f"sqlite:///{folder}/study.db",
        r"trials=10 -P trial_epochs=20": "trials=3 -P trial_epochs=1",
        r"preset=challenge": "preset=small",
        r"-P backbone=resnet18": "-P backbone=test_resnet",
        r"127\.0\.0\.1:5001": served,
        r"127\.0\.0\.1:9108": metrics,
        r"-m doctogres\.client": f"-m doctogres.client --url http://{served}",
    }  # fmt: skip


def programs_in(folder: Path, programs: Path) -> None:
    """The programs of an environment, and two that no machine of CI has, beside those that are warm."""
    (programs / "activate").write_text(f"export VIRTUAL_ENV={folder}/.venv PATH={folder}/.venv/bin:$PATH\n")
    (folder / ".venv/.done").touch()
    (folder / "newest.py").write_text(NEWEST, "utf-8")
    for name, script in {
        "doctogres": 'exec python -m entrypoints.cli "$@"',
        "newest": 'exec python newest.py "$1"',
        "srun": 'exec "$@"',
        "parallel": 'shift 2; while read -r i; do "${@//\\{\\}/$i}" || exit; done',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """The copy after `make demo`, with a champion by force, a served model, and slides in a bucket; two minutes."""
    folder = tmp_path_factory.mktemp("docs") / "doctogres"
    small_project(folder)
    environment = variables(folder)
    with ExitStack() as stack:
        programs_in(folder, stack.enter_context(warm(folder / ".venv", environment, ["python", "mlflow", "pip"])))
        bucket = stack.enter_context(s3_server(tmp_path_factory.mktemp("bucket")))
        made = Copy(folder, environment | bucket.environment, values_for(folder, environment))
        for command in FIRST:
            printed = made.shell(f"{command} || echo FAILED")
            assert "FAILED" not in printed, printed[-3000:]
        bucket.upload(folder / "data/demo", "slides")
        two_sites(folder / "data/demo", folder / "data/sites")
        log = [f"DOCTOGRES_ANSWER_LOG={folder}/answers", f"DOCTOGRES_METRICS_PORT={environment['METRICS_PORT']}"]
        serve, ping = ["env", *log, "make", "-C", str(folder), "serve"], f"http://127.0.0.1:{environment['PORT']}/ping"
        stack.enter_context(running(serve, ping, folder / "server.log", made.environment, seconds=120))
        made.shell("make request")  # so that its log has an answer
        shutil.copy(made.store, made.first_store)
        yield made


def two_sites(demo: Path, sites: Path) -> None:
    """A copy of the demo whose slides are from two sites, with two classes that are frequent in both."""
    shutil.copytree(demo, sites)
    labels = pd.read_csv(sites / "train_labels.csv")
    twins = pd.read_csv(sites / "contaminated.csv").set_index("sample_index")["twin"]
    labels["group"] = [twins.get(name, name) for name in labels["sample_index"]]  # a copy is of its twin's patient
    labels["site"] = [("north", "south")[int(re.sub(r"\D", "", name)) % 2] for name in labels["group"]]
    labels["label"] = labels["label"].str.split().str[0].where(labels["label"].str.startswith("Luminal"), "other")
    labels.to_csv(sites / "train_labels.csv", index=False)


NEWEST: Final = """import sys, mlflow
query = f"tags.`doctogres.stage` = '{sys.argv[1]}'"
print(mlflow.search_runs(experiment_names=["doctogres"], filter_string=query).run_id[0])
"""
FIRST: Final = (
    # What a reader has done, and by force, because a training of a second does not pass the gate: the demo, whose champion is
    # doctogres-demo, and slides of one's own, whose champion is doctogres.
    "make demo",
    "mlflow run . -e register --env-manager local -P promote=force -P model_name=doctogres-demo",
    "mlflow run . -e register --env-manager local -P promote=force",
    "python -m entrypoints.init --data data/demo",
    "mlflow run . --env-manager local -P data=cohort.csv -P preset=small",
    "python -m entrypoints.demo_data --target north --size 30 --seed 11 && cd north && "
    "python -c \"import shutil; shutil.make_archive('../north', 'zip')\"",
)


def script_of(page_commands: list[Command], copy: Copy) -> str:
    """The page as a shell's script: each command with its number before it, and its exit status behind it."""
    steps = ["set -o pipefail", "source .venv/bin/activate"]
    for number, command in enumerate(page_commands):
        text = copy.filled(command.text)
        if SERVER.match(text):
            text = f"started '{text.partition('#')[0]}'"
        elif "make serve" in text:  # it runs already
            text = f"{text.partition('#')[0]} -n -o .venv/.done | grep 'models serve --model-uri models:/doctogres'"
        elif LITERAL.search(text):
            text = text.replace("mlflow", 'PATH="$REAL:$PATH" mlflow', 1)
        steps.append(f"echo '@@@ {number}'\n{text}\necho \"@@@ status $?\"")
    return STARTED + "\n".join(steps)


STARTED: Final = """started() {
  setsid bash -c "$1" > started.log 2>&1 & local server=$! url
  case $1 in *app*) url=http://127.0.0.1:$APP_PORT/_stcore/health;; *) url=http://127.0.0.1:$MLFLOW_PORT/health;; esac
  for i in $(seq 60); do
    if curl --silent --fail --output /dev/null $url; then break; fi; sleep 1
  done
  curl --silent --fail --output /dev/null $url; local status=$?
  kill -- -$server; wait $server
  while curl --silent --output /dev/null $url; do sleep 0.2; done
  return $status
}
"""


@pytest.mark.parametrize("page", [page for page in PAGES if run_on(page)], ids=lambda page: page.stem)
def test_the_commands_of_the_page_succeed_and_print_what_it_shows(page: Path, copy: Copy) -> None:
    shutil.copy(copy.first_store, copy.store)
    run = run_on(page)
    printed = copy.shell(script_of(run, copy))
    parts = re.split(r"^@@@ \d+\n", printed, flags=re.M)[1:]
    assert len(parts) == len(run), printed[-3000:]
    failed = [
        (command.text, part[-3000:])
        for command, part in zip(run, parts, strict=True)
        if not part.endswith("@@@ status 0\n")
    ]
    assert failed == []
    for text in shown_by(page, "ran"):
        missing = [piece for piece in pieces(text) if piece not in as_form(printed)]
        assert missing == [], f"{text}\n--- is not what was printed:\n{printed[-4000:]}"
