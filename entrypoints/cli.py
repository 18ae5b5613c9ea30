"""The command `doctogres`, which an installed package has: `doctogres clean --data FOLDER` is `mlflow run . -e clean -P data=FOLDER`."""

import sys
from importlib import import_module
from typing import Any, Final

import click

from doctogres import __version__
from doctogres.catalogue import STAGES

OTHERS: Final = {
    "doctor": ("doctogres.doctor", "Whether this machine has what doctogres needs."),
    "client": ("doctogres.serving.client", "Classifies slides with a served model."),
    "app": ("doctogres.app.__main__", "A web page that classifies slides with a served model."),
}
PURPOSES: Final = {name: stage.purpose for name, stage in STAGES.items()} | {
    name: purpose for name, (_, purpose) in OTHERS.items()
}


class Commands(click.Group):
    """The table of commands, each of which is imported when it is called: the help takes no seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PURPOSES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return click.Command(cmd_name, help=PURPOSES[cmd_name]) if cmd_name in PURPOSES else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def table() -> None:
    """From a folder of histology slides to a registered, served classifier, tracked in MLflow."""


def main() -> Any:
    """Calls the command that the first word names with the other words."""
    name, words = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name in STAGES:
        return import_module(f".{name}", __package__).command.main(words, prog_name=f"doctogres {name}")
    if name in OTHERS:
        sys.argv = [f"doctogres {name}", *words]
        return import_module(OTHERS[name][0]).main()
    if name == "--version":
        print(__version__)
        return None
    return table.main(sys.argv[1:] or ["--help"], prog_name="doctogres")


if __name__ == "__main__":
    main()
