"""Whether a command would be taken: by the parser that takes it, without running it."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import pytest

from doctogres.catalogue import STAGES
from entrypoints.cli import OTHERS
from entrypoints.reference import command_of
from tests.servers import ROOT

Words = list[str]
SEPARATORS: Final = {"|", "||", "&&", "&", ";", "(", ")", ";&", "&;"}
KEYWORDS: Final = {"do", "{", "}"}
URLS: Final = {  # what the servers of the pages answer to
    "127.0.0.1:5001": ("/invocations", "/ping"),
    "127.0.0.1:9108": ("/metrics",),
    "mlflow.example.org": ("/api/2.0/mlflow/users/create",),
}
ELSEWHERE: Final = {  # programs whose options are not checked: none of them is ours or installed
    "aws", "pg_dump", "pg_ctlcluster", "createdb", "su", "apt-get", "uv",
    "seq", "printf", "find", "gzip", "jq", "openssl", "echo", "wait", "for", "done",
}  # fmt: skip


class Refused(AssertionError):
    """A command that its program would not take."""


def refuse(problem: str) -> None:
    raise Refused(problem)


def check(text: str) -> None:
    """Raises Refused if one of the commands of a text in a shell's language would not be taken."""
    program, _, code = text.partition("<<'")
    for words in simple_commands(program):
        names = [words.pop(0).partition("=")[0] for _ in list(words) if words and re.match(r"[A-Z_]+=", words[0])]
        check_variables(names)
        if words:
            if words[0] not in CHECKS:
                refuse(f"{words[0]}: no program that the pages use")
            CHECKS[words[0]](words)
    if code:
        marker, _, body = code.partition("'\n")
        compile(body.rsplit(marker, 1)[0], "page", "exec")


def simple_commands(text: str) -> Iterator[Words]:
    """The words of each command: between pipes, separators and lines."""
    text = re.sub(r"\\\n", " ", text).replace("\n", " ; ")
    text = re.sub(r"(?<=\s)#(?!SBATCH).*?(?= ; |$)", "", text)
    text = re.sub(r'"?\$\(+[^()]*\)+"?', "SUBSTITUTED", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: Words = []
    for word in [*lexer, ";"]:
        if word in SEPARATORS:
            if words:
                yield words
            words = []
        elif word not in KEYWORDS:
            words.append(word)


def check_variables(names: Sequence[str]) -> None:
    """Every variable is one that this project, MLflow, PyTorch or a database reads."""
    for name in names:
        if name.startswith("DOCTOGRES_"):
            if name not in ours():
                refuse(f"{name}: nothing reads it")
        elif name.startswith("MLFLOW_"):
            if not re.search(rf'["\']{name}["\']', mlflow_sources()):
                refuse(f"{name}: MLflow does not read it")
        elif name not in (
            "OMP_NUM_THREADS",
            "CUDA_VISIBLE_DEVICES",
            "PYTHONPATH",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        ):
            refuse(f"{name}: not a variable that the pages use")


@cache
def ours() -> str:
    """The source of the library and of the entry points."""
    return "\n".join(path.read_text("utf-8") for part in ("src", "entrypoints") for path in (ROOT / part).rglob("*.py"))


@cache
def mlflow_sources() -> str:
    """What MLflow says of its environment variables."""
    folder = Path(str(next(iter(find_spec("mlflow").submodule_search_locations))))  # type: ignore[union-attr, arg-type]
    return "\n".join(
        (folder / name).read_text("utf-8")
        for name in ("environment_variables.py", "server/auth/config.py", "server/auth/__init__.py")
    )


def parse(command: click.Command, words: Words) -> None:
    """Lets a command of click parse its options, without calling it."""
    try:
        command.make_context(command.name, list(words), resilient_parsing=False)
    except click.exceptions.Exit:
        pass  # --help
    except (click.ClickException, Exception) as error:  # ours and pydantic's
        raise Refused(f"{command.name} {shlex.join(words)}: {error}") from error


def entry_point(name: str, words: Words) -> None:
    """Options of an entry point."""
    if name not in STAGES and not (ROOT / f"entrypoints/{name}.py").exists():
        refuse(f"{name}: no entry point")
    if name in STAGES or hasattr(import_module(f"entrypoints.{name}"), "command"):
        parse(command_of(name), words)
    else:
        declared(ROOT / f"entrypoints/{name}.py", words)


def declared(source: Path, words: Words) -> None:
    """Options of a program with argparse: the source declares each."""
    if not source.exists():
        refuse(f"{source.relative_to(ROOT)}: no such file")
    text = source.read_text("utf-8")
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if f'"{option}"' not in text:
            refuse(f"{source.relative_to(ROOT)}: no option {option}")


def module(words: Words) -> None:
    """`-m NAME OPTIONS`, as Python and torchrun take it."""
    name, given = words[0], words[1:]
    package, _, rest = name.partition(".")
    if package == "entrypoints":
        entry_point(rest, given)
    elif name == "pytest":
        for path in (word for word in given if not word.startswith("-")):
            if not (ROOT / path).exists() and f"# {path}\n" not in (ROOT / "docs/extending.md").read_text("utf-8"):
                refuse(f"{path}: no such test")
    elif name in ("doctogres.client", "doctogres.app"):
        parsed(OTHERS[rest][0], given)
    elif package == "benchmarks":
        declared(ROOT / f"benchmarks/{rest}.py", given)
    else:
        refuse(f"{name}: no module that the pages use")


class Parsed(Exception):
    """The command line was parsed."""


def parsed(name: str, words: Words) -> None:
    """Lets a program with argparse parse its options, and stops it then."""
    whole = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *args: Any) -> None:
        whole(parser, *(args or (words,)))
        raise Parsed

    with pytest.MonkeyPatch.context() as patcher:
        patcher.setattr(argparse.ArgumentParser, "parse_args", stop)
        patcher.setattr(sys, "argv", [name, *words])
        try:
            import_module(name).main()
        except Parsed:
            pass
        except SystemExit as stopped:
            raise Refused(f"{name} {shlex.join(words)}: status {stopped.code}") from stopped


def python(words: Words) -> None:
    """`python -m MODULE`, `python FILE` or `python -`."""
    if words[1:2] == ["-m"]:
        module(words[2:])
    elif words[1] != "-" and not (ROOT / words[1]).exists():
        refuse(f"{words[1]}: no such file")


def mlflow(words: Words) -> None:
    """`mlflow run` as MLproject has it; other commands by MLflow's own parser."""
    if words[1:2] != ["run"]:
        cli = import_module("mlflow.cli").cli
        context, rest = click.Context(cli), words[1:]
        command: click.Command | None = cli
        while isinstance(command, click.Group) and rest:
            command = command.get_command(context, rest.pop(0))
        if command is None or isinstance(command, click.Group):
            refuse(f"{shlex.join(words)}: no such command of MLflow's")
        else:
            parse(command, rest)
        return
    rest, entry, given = words[2:], "main", list[str]()
    project = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    while rest:
        option = rest.pop(0)
        if option == "-e":
            entry = rest.pop(0)
        elif option == "-P":
            name, _, value = rest.pop(0).partition("=")
            given += [f"--{name}", value]
        elif option != "--env-manager" or rest.pop(0) not in ("local", "uv"):
            refuse(f"mlflow run: {option}")
    if project not in (".", "GIT_ADDRESS"):
        refuse(f"{shlex.join(words)}: of which project?")
    entry_point(entry, given)


def make(words: Words) -> None:
    """A target of the Makefile, and variables that it reads."""
    source = (ROOT / "Makefile").read_text("utf-8")
    for variable in (word.partition("=")[0] for word in words[1:] if "=" in word):
        if f"$({variable})" not in source:
            refuse(f"make {variable}=: the Makefile does not read it")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.done", *words[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        refuse(f"{shlex.join(words)}: {done.stderr.strip()}")


def installed_command(words: Words) -> None:
    """`doctogres NAME OPTIONS`; as the name of an image, options of the server."""
    if words[1].startswith("-"):
        mlflow(["mlflow", "models", "serve", "--model-uri", "MODEL", *words[1:]])
    elif words[1] in OTHERS:
        parsed(OTHERS[words[1]][0], words[2:])
    else:
        entry_point(words[1], words[2:])


def curl(words: Words) -> None:
    """An address that one of the servers has."""
    found = [urlsplit(word) for word in words if word.startswith("http")]
    if not any(address.path in URLS.get(address.netloc, ()) for address in found):
        refuse(f"{shlex.join(words)}: an address of none of our servers")


def pip(words: Words) -> None:
    """Packages that pyproject.toml names."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for package in (word.partition("[")[0] for word in words[2:] if not word.startswith("-") and word != "."):
        if f'"{package}' not in project:
            refuse(f"pip install {package}: pyproject.toml does not name it")


def container(words: Words) -> None:
    """The files that docker and apptainer are given, and arguments that these declare."""
    for word in words:
        if word.startswith("container/") and not (ROOT / word).exists():
            refuse(f"{word}: no such file")
    declared = "".join((ROOT / "container" / name).read_text("utf-8") for name in ("Dockerfile", "apptainer.def"))
    for given, value in pairwise(words):
        if given == "--build-arg" and not re.search(rf"^\s*(ARG )?{value.partition('=')[0]}(=|$)", declared, re.M):
            refuse(f"--build-arg {value}: not declared")


def kit(words: Words) -> None:
    """A command of the folder for machines without a network."""
    if not (ROOT / "container/kit" / words[0]).exists():
        refuse(f"{words[0]}: not in container/kit")


def source(words: Words) -> None:
    if words[1:] != [".venv/bin/activate"]:
        refuse(f"{shlex.join(words)}: no such file")


def cp(words: Words) -> None:
    if not (ROOT / words[1]).exists():
        refuse(f"cp {words[1]}: no such file")


def signing(words: Words) -> None:
    cli = import_module("model_signing._cli").main
    parse(cli.commands["verify"].commands["key"], [*words[3:]])


CHECKS: Final[dict[str, Callable[[Words], None]]] = {
    "mlflow": mlflow, "python": python, "make": make, "doctogres": installed_command, "curl": curl, "pip": pip, "source": source,
    "cp": cp, "docker": container, "apptainer": container, "model_signing": signing,
    "export": lambda words: check_variables([word.partition("=")[0] for word in words[1:]]),
    "torchrun": lambda words: module(words[words.index("-m") + 1 :]),
    "srun": lambda words: python(words[1:]),
    "parallel": lambda words: python(words[words.index("python") :]),
    **{f"./{name}": kit for name in ("install", "serve", "page", "classify")},
    **{name: lambda words: None for name in ELSEWHERE},
}  # fmt: skip
