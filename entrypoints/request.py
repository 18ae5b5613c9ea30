"""`python -m entrypoints.request IMAGE [MASK]`: the JSON of a request for one slide, to post with curl."""

import json
from pathlib import Path

import click

from doctogres.serving.client import request_body

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("image", type=FILE)
@click.argument("mask", type=FILE, required=False)
def command(image: Path, mask: Path | None) -> None:
    """Prints the body of POST /invocations for one slide."""
    print(json.dumps(request_body(image, mask)))


if __name__ == "__main__":
    command()
