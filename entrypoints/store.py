"""`make store`: makes the tracking store, before any command that would have to share the work with others."""

import click

from doctogres.files import keep_private
from doctogres.tracking.fresh import make_store

from .command import OneLineCommand


@click.command("store", cls=OneLineCommand)
def command() -> None:
    """Makes the SQLite database at MLFLOW_TRACKING_URI if there is none yet."""
    keep_private()
    make_store()


if __name__ == "__main__":
    command()
