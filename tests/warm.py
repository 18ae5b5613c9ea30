"""Runs Python's commands without their seconds of imports, for tests that run many: a process that has imported everything forks.

`warm` puts `python`, `mlflow` and so on into a folder for the PATH. Each hands its words, variables, folder and files to the
process, which forks a child that does with them what the program does, and ends as the child ended. Nothing else differs for
a shell, `make` or `mlflow run`, which starts the command of an entry point in the same way.
"""

import atexit
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

IMPORTED: Final = """mlflow mlflow.cli mlflow.projects mlflow.pyfunc mlflow.pytorch mlflow.store.tracking.sqlalchemy_store
    mlflow.store.model_registry.sqlalchemy_store alembic torch torchvision timm optuna pandas pyarrow.parquet sklearn.linear_model
    sklearn.discriminant_analysis scipy.stats matplotlib.pyplot captum.attr cv2 lion_pytorch jinja2
    doctogres.doctor doctogres.serving.client doctogres.stages.main doctogres.stages.ablate doctogres.stages.export
    doctogres.stages.init doctogres.stages.monitor doctogres.stages.promote doctogres.stages.demo_data
    doctogres.stages.shards"""
SHIM: Final = """#!{python} -IS
import json, os, signal, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
asked = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
socket.send_fds(link, [len(asked).to_bytes(8, "big")], [0, 1, 2])
link.sendall(asked)
answers = link.makefile()
child = int(answers.readline() or 0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(child, number))
os._exit(int(answers.readline() or 70))
"""


@contextmanager
def warm(folder: Path, environment: dict[str, str], names: Sequence[str]) -> Iterator[Path]:
    """Starts the process; yields a folder of programs with these names.

    Args:
        folder: for the programs and the socket.
        environment: what the libraries read when they are imported, and PYTHONPATH.
        names: python, mlflow or pip.
    """
    address = f"{folder}/warm"
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in names:
        (programs / name).write_text(SHIM.format(python=sys.executable, address=address))
        (programs / name).chmod(0o755)
    process = Popen([sys.executable, __file__, address], env=environment, start_new_session=True)
    try:
        while not Path(address).exists():
            assert process.poll() is None, "it could not import everything"
            time.sleep(0.1)
        yield programs
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with every program that still runs
        process.wait()


def serve(address: str) -> None:
    """Imports everything, then forks for every request until it is stopped."""
    for name in IMPORTED.split():
        import_module(name)
    import_module("doctogres.model.graphs").openvino()  # without its telemetry, which would start a thread
    assert threading.active_count() == 1, f"a fork would lose {threading.enumerate()}"
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{address}.new")
    server.listen(16)
    os.rename(f"{address}.new", address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        link, _ = server.accept()
        if os.fork() == 0:
            server.close()
            keep(link)
        link.close()


def keep(link: socket.socket) -> None:
    """Forks the program of a request, and tells the shim how it ended; kills it if the shim is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(link, 8, 3)
    asked = link.makefile("rb").read(int.from_bytes(length, "big"))
    if (child := os.fork()) == 0:
        link.close()
        become(*json.loads(asked), files=files)
    for file in (*files, 0, 1, 2):
        os.close(file)
    with suppress(OSError):
        link.sendall(f"{child}\n".encode())
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if select.select([link], [], [], 0.02)[0]:
            os.kill(child, signal.SIGKILL)
    with suppress(OSError):
        link.sendall(f"{os.waitstatus_to_exitcode(ended[1]) % 256}\n".encode())
    os._exit(0)


def become(words: list[str], environment: dict[str, str], folder: str, *, files: list[int]) -> None:
    """Does in this process what the program of these words does in a new one."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # looked for anew: TMPDIR may be another
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, "utf-8", closefd=False) for number in (1, 2))
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    status: Any = 0
    try:
        run(Path(words[0]).name, words[1:])
    except SystemExit as ended:
        status = ended.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:  # noqa: BLE001  # as Python does
        traceback.print_exc()
        status = 1
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def run(name: str, words: list[str]) -> None:
    """Runs a program in this process."""
    paths = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    sys.path[:] = ["", *paths, *(path for path in sys.path[1:] if "-packages" in path or "python3" in path)]
    if name == "pip":
        words = ["-m", "pip", *words]
    if name == "mlflow":
        sys.argv = [name, *words]
        import_module("mlflow.cli").cli(words)
    elif words[:1] == ["-m"]:
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[:1] == ["-c"]:
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "-c", "exec"), {"__name__": "__main__"})
    elif words[:1] in ([], ["-"]):
        sys.argv = ["-", *words[1:]]
        exec(compile(sys.stdin.read(), "-", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
