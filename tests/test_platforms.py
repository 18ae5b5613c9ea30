"""What other systems lack is not needed: Windows has no fcntl, no umask of a user id, no fork; macOS no posix_fallocate.

Nothing here runs on those systems. What they lack is taken away from our own modules; other packages keep it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.stores import new_store, plain_environment

LACKING = '''
import builtins, importlib, multiprocessing, os, pkgutil, sys

OURS, ABSENT, NAMES = ("doctogres", "entrypoints"), ("fcntl", "resource", "pwd", "grp", "termios"), (
    "geteuid", "getuid", "uname", "fork", "register_at_fork", "posix_fallocate", "killpg", "getpgid", "sched_getaffinity"
)
load = builtins.__import__

class System:
    """The module `os` as our modules see it."""

    name = "nt"

    def __getattr__(self, name):
        if name in NAMES:
            raise AttributeError(f"module 'os' has no attribute {name!r}")
        return getattr(os, name)

def without(name, globals=None, locals=None, fromlist=(), level=0):
    if str((globals or {}).get("__name__", "")).partition(".")[0] in OURS:
        if name in ABSENT:
            raise ImportError(name)
        if name == "os" and not level:
            return System()
    return load(name, globals, locals, fromlist, level)

builtins.__import__ = without
multiprocessing.set_start_method("spawn")
'''
ALL = """
import doctogres, entrypoints
for package in (doctogres, entrypoints):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in ("doctogres.app.page", "doctogres.app.__main__", "doctogres.client"):
            importlib.import_module(module.name)
from pathlib import Path
from doctogres.serving.answer_log import AnswerLog
log = AnswerLog(Path("answers"))
assert log._open() and not log.lost
from doctogres.serving.metrics import Metrics
Path("metrics").mkdir()
Metrics(Path("metrics"), {"model_version": "1", "model_id": "m-1"})
"""


def python(code: str, folder: Path, *arguments: str, **variables: str) -> str:
    environment = plain_environment() | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "HOME": str(folder)}
    command = [sys.executable, "-c", LACKING + code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_module_loads_and_the_served_models_records_begin(tmp_path: Path) -> None:
    python(ALL, tmp_path)


@pytest.mark.slow
def test_a_cohort_is_cleaned_and_cut(empty_store: Path, small_cohort: Path, tmp_path: Path) -> None:
    variables = {"MLFLOW_TRACKING_URI": new_store(empty_store, tmp_path)}
    for stage, *options in (("clean", "--data", str(small_cohort)), ("patch",)):
        code = f"from entrypoints.{stage} import command\ncommand.main([*sys.argv[1:], '--preset', 'demo'], prog_name='{stage}')"
        out = python(code, tmp_path, *options, **variables)
        result = next(json.loads(line) for line in out.splitlines() if line.startswith("{"))
        assert result["stage"] == stage
