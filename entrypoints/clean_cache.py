"""`make clean-cache`: removes from the workspace what is made again when it is needed."""

from collections.abc import Sequence

import click

from doctogres.disk import size_text
from doctogres.files import workspace
from doctogres.storage import KINDS, Stored, held, removable, remove, stored

from .command import OneLineCommand


@click.command("clean-cache", cls=OneLineCommand)
@click.option("--older-than", type=click.FloatRange(min=0), default=0.0, metavar="DAYS", help="unused for so many days")
@click.option("--dry-run", is_flag=True, help="only say what would be removed")
def command(older_than: float, dry_run: bool) -> None:
    """Removes pixels, features and unpacked slides from the workspace (.doctogres or DOCTOGRES_WORKSPACE).

    States of interrupted trainings go, too, a day after they were written. What a living process uses stays, and so do
    networks, shares, the study and answers.
    """
    folder = workspace()
    found = stored(folder)
    candidates = removable(found, older_than=older_than)
    removed: list[Stored] = []
    in_use: list[Stored] = []
    for each in candidates:
        if each.path in held(folder):  # asked anew every time: a command may have started
            in_use.append(each)
        else:
            if not dry_run:
                remove(each)
            removed.append(each)
    print(f"clean-cache: {folder}", flush=True)
    _print("would remove" if dry_run else "removed", removed)
    _print("kept, in use", in_use)
    _print("kept", [each for each in found if each not in candidates])
    verb = "would be freed" if dry_run else "freed"
    print(f"clean-cache: {size_text(sum(each.nbytes for each in removed))} {verb}", flush=True)


def _print(what: str, entries: Sequence[Stored]) -> None:
    """A line per kind: its bytes, its number, and how it is made again."""
    for kind in KINDS:
        own = [each for each in entries if each.kind == kind]
        if own:
            again = f" ({kind.again})" if kind.again else ""
            print(f"  {what}: {size_text(sum(each.nbytes for each in own))}, {len(own)} of {kind.name}{again}")


if __name__ == "__main__":
    command()
