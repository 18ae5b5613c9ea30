"""`python -m entrypoints.request IMAGE MASK`: the JSON of a request for one slide, to be posted with curl."""

import base64
import json
from pathlib import Path

import click


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("mask", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(image: Path, mask: Path) -> None:
    """Prints the body of POST /invocations for one slide."""
    slide = {name: base64.b64encode(path.read_bytes()).decode() for name, path in (("image", image), ("mask", mask))}
    print(json.dumps({"dataframe_records": [{"slide_id": image.stem, **slide}]}))


if __name__ == "__main__":
    command()
