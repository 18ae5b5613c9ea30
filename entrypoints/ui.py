"""`make ui`: names the address to open, before the server of the tracking UI starts."""

import click

from doctogres.files import keep_private

from .command import OneLineCommand


@click.command("ui", cls=OneLineCommand)
def command() -> None:
    """Prints the address of the experiment in the tracking UI."""
    keep_private()
    from doctogres.tracking.store import connect
    from doctogres.tracking.view import experiment_link

    connect()
    print(f"When the server has started, open  {experiment_link()}", flush=True)


if __name__ == "__main__":
    command()
