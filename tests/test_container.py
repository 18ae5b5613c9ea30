"""The container's files agree with each other, and the offline kit installs without a network."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.servers import ROOT

CONTAINER = ROOT / "container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text(encoding="utf-8")
BAKED = "build/model"  # is there only when a model is built into an image


def test_the_image_gets_what_it_copies_and_nothing_else() -> None:
    copied = re.findall(r"^COPY (?:--chown=10001:10001 )?(?!--)(\S+) ", DOCKERFILE, re.MULTILINE)
    ignored = (CONTAINER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert sorted(copied) == sorted(allowed)
    assert "*" in ignored
    assert all((ROOT / source).exists() for source in copied if source != BAKED)
    assert "ADD " not in DOCKERFILE


def test_the_server_of_an_image_is_nobody_in_particular_and_says_whether_it_is_well() -> None:
    stage = DOCKERFILE.split("AS serve\n", 1)[1].split("\nFROM ", 1)[0]
    assert re.search(r"^USER 10001$", stage, re.MULTILINE)
    ports = set(re.findall(r"\b5\d{3}\b", stage))
    assert ports == {"5001"}
    assert "/ping" in stage
    (volume,) = re.findall(r"-e DOCTOGRES_ANSWER_LOG=(/\S+)`", (ROOT / "docs" / "operations.md").read_text("utf-8"))
    assert f"install -d -o 10001 -g 10001 {volume}\n" in stage
    assert DOCKERFILE.rstrip().endswith("FROM serve")


def test_docker_and_apptainer_install_the_same() -> None:
    recipe = (CONTAINER / "apptainer.def").read_text(encoding="utf-8")
    for words in (
        "--no-cache-dir --only-binary :all:",
        "give --build-arg TORCH_CPU=ADDRESS of PyTorch's wheels",
        "DO_NOT_TRACK=true",
    ):
        assert words in DOCKERFILE
        assert words in recipe
    for source in re.findall(r"^    (\S+) /opt/", recipe, re.MULTILINE):
        assert (ROOT / source).is_file()


def wheel(folder: Path, name: str, version: str) -> None:
    """A package of one module, whose `VERSION` tells which one was installed."""
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"VERSION = '{version}'\n")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the container's files whose only packages are two small ones, and a store with a model."""
    shutil.copytree(CONTAINER, tmp_path / "container")
    (tmp_path / "wheels").mkdir()
    for name, version in (("tiny", "1.0"), ("tiny", "2.0"), ("streamlit", "3.0")):
        wheel(tmp_path / "wheels", name, version)
    (tmp_path / "container" / "requirements.txt").write_text("tiny\n")
    (tmp_path / "requirements.txt").write_text("tiny==1.0\n")
    (tmp_path / "requirements-app.txt").write_text("streamlit==3.0\n")
    (tmp_path / "bin").mkdir()
    mlflow = tmp_path / "bin" / "mlflow"  # the store: asked for any model, it gives one file
    mlflow.write_text('#!/bin/sh\nmkdir -p "$6" && echo "$4" > "$6/MLmodel"\n')
    mlflow.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    return tmp_path


def collected(project: Path, folder: str = "kit", device: str = "gpu") -> subprocess.CompletedProcess[str]:
    network = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    found = os.environ | network | {"PATH": f"{project / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(project / "container" / "offline"), folder, "models:/doctogres@champion", device]
    return subprocess.run(command, cwd=project, env=found, capture_output=True, text=True)


def installed(kit: Path) -> subprocess.CompletedProcess[str]:
    lonely = os.environ | {"PYTHON3": sys.executable, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    return subprocess.run([str(kit / "install")], env=lonely, capture_output=True, text=True)


@pytest.mark.slow
def test_a_kit_installs_the_pinned_packages_from_its_own_files(project: Path) -> None:
    done = collected(project)
    assert done.returncode == 0, done.stderr
    kit = (project / "kit").rename(project / "elsewhere")
    shutil.rmtree(project / "wheels")
    done = installed(kit)
    assert done.returncode == 0, done.stderr
    code = "import tiny, streamlit; print(tiny.VERSION, streamlit.VERSION)"
    shown = subprocess.run([kit / "environment/bin/python", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "1.0 3.0\n"
    assert (kit / "model" / "MLmodel").read_text() == "models:/doctogres@champion\n"


@pytest.mark.slow
def test_a_kit_that_was_damaged_on_its_way_is_not_installed(project: Path) -> None:
    assert collected(project).returncode == 0
    (project / "kit" / "model" / "MLmodel").write_text("something else\n")
    done = installed(project / "kit")
    assert done.returncode != 0
    assert "model/MLmodel: FAILED" in done.stdout + done.stderr
    assert not (project / "kit" / "environment").exists()


def test_a_kit_is_never_half_finished(project: Path) -> None:
    (project / "wheels" / "tiny-1.0-py3-none-any.whl").unlink()
    assert collected(project).returncode != 0
    assert not (project / "kit").exists()


@pytest.mark.parametrize(
    ("folder", "device", "words"),
    [
        ("kit", "tpu", "give cpu or gpu"),
        ("kit", "cpu", "give TORCH_CPU=ADDRESS"),
        ("wheels", "gpu", "wheels exists already"),
    ],
)
def test_what_cannot_be_collected_is_one_sentence(project: Path, folder: str, device: str, words: str) -> None:
    done = collected(project, folder, device)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
