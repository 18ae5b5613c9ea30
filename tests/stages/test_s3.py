"""Slides, tables, recipes, weights and outputs in a bucket of a real S3 server: the commands, with the credentials of their environment."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import yaml
from safetensors.torch import save_file

from tests.s3 import BUCKET, SECRET, Bucket, s3_server
from tests.servers import ROOT, json_line
from tests.stages.test_secrets import Processes
from tests.stores import new_store, plain_environment

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Site:
    """A bucket with a cohort, and a user with a store of their own.

    Attributes:
        folder: the user's.
        bucket: the bucket.
        data: the cohort's address.
        python: that runs the user's commands.
        environment: of the user's commands.
    """

    folder: Path
    bucket: Bucket
    data: str
    python: str
    environment: dict[str, str]

    def run(self, stage: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", f"entrypoints.{stage}", *options]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment | environment, capture_output=True, text=True, check=False
        )
        with (self.folder / "log").open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        return done

    def result(self, stage: str, *options: str) -> dict[str, Any]:
        done = self.run(stage, *options)
        assert done.returncode == 0, done.stderr[-2000:]
        return json_line(done.stdout)

    def table(self, address: str) -> pd.DataFrame:
        with self.bucket.files.open(address) as file:
            return pd.read_csv(file)


@pytest.fixture(scope="module")
def site(
    empty_store: Path, small_cohort: Path, warm_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("user")
    with s3_server(folder) as bucket:
        environment = plain_environment() | bucket.environment | {
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "HOME": str(folder), "TMPDIR": str(folder),
            "MLFLOW_TRACKING_URI": new_store(empty_store, folder), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        yield Site(folder, bucket, bucket.upload(small_cohort, "study/demo"), warm_python, environment)


def test_clean_takes_the_same_cohort_for_the_same_wherever_it_lies(site: Site, small_cohort: Path) -> None:
    by_address = site.result("clean", "--data", site.data)
    in_a_folder = site.result("clean", "--data", str(small_cohort))
    assert (in_a_folder["reused"], in_a_folder["run_id"]) == (True, by_address["run_id"])
    patched = site.result("patch", "--cohort", by_address["run_id"], "--data", site.data, "--patch_size", "64")
    assert set(patched["artifacts"]) == {"patches"}


def test_a_recipe_and_its_weights_are_read_and_the_result_is_written_there(site: Site) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), site.folder / "own.safetensors")
    weights = f"none,{site.bucket.upload(site.folder / 'own.safetensors', 'lab/own.safetensors')}"
    recipe = {"backbone": "test_resnet,test_resnet", "weights": weights, "epochs": 1, "recipe": "probe"}
    (site.folder / "mine.yaml").write_text(yaml.safe_dump({"train": recipe, "evaluate": {"resamples": 100}}))
    preset, result = site.bucket.upload(site.folder / "mine.yaml", "lab/mine.yaml"), f"s3://{BUCKET}/results/train.json"
    done = site.run("train", "--preset", preset, "--json", result)
    assert done.returncode == 0, done.stderr[-2000:]
    trained = json.loads(site.bucket.files.cat_file(result))
    in_a_folder = site.result("train", "--preset", "mine.yaml", "--weights", "none,own.safetensors")
    assert (in_a_folder["reused"], in_a_folder["run_id"]) == (True, trained["run_id"])


def test_decisions_are_read_and_the_table_of_init_is_written_there(site: Site) -> None:
    (site.folder / "decisions.csv").write_text("slide_id,decision,reason\nimg_0003,drop,not ours\n")
    decisions = site.bucket.upload(site.folder / "decisions.csv", "study/decisions.csv")
    cleaned = site.result("clean", "--data", site.data, "--decisions", decisions)
    assert cleaned["metrics"]["decisions/given"] == 1
    output = f"s3://{BUCKET}/study/cohort.csv"
    site.result("init", "--data", site.data, "--output", output)
    assert site.table(output)["image"].str.startswith(site.data).all()
    again = site.result("clean", "--data", output)
    assert again["metrics"]["slides"] > 20


def test_the_secret_is_written_nowhere(site: Site) -> None:
    with Processes() as processes:
        site.result("clean", "--data", site.data, "--seed", "8")
    assert any(b"entrypoints.clean" in line for line in processes.seen)
    assert not [line for line in processes.seen if SECRET.encode() in line]
    refused = site.run("clean", "--data", f"s3://KEY:{SECRET}@{BUCKET}/study/demo")
    assert refused.returncode == 2
    assert "***" in refused.stderr
    files = [path for path in site.folder.rglob("*") if path.is_file()]
    assert any(path.name == "cohort.parquet" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
