"""The exceptions shown to users: what was wrong with an input or a parameter, and what to do about it."""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

LISTED: Final = 5  # names that a sentence lists before it counts the rest
DEBUG_VARIABLE: Final = "DOCTOGRES_DEBUG"


class DoctogresError(Exception):
    """An input or a parameter that cannot be used; the message names it, the problem and the remedy.

    `code` is the short machine-readable reason that goes into the outcome tables (`unreadable_image`, ...).
    """

    code: ClassVar[str] = "error"


class ParameterError(DoctogresError):
    """A parameter is unknown, out of range, or contradicts another one."""

    code = "parameter"


class CohortError(DoctogresError):
    """The data folder or zip is not a cohort, or nothing usable is left in it."""

    code = "cohort"


class UpstreamError(DoctogresError):
    """An upstream result (run, artifact, model) does not exist or lacks what is needed."""

    code = "upstream"


class MissingSharesError(UpstreamError):
    """Shares of a cohort are missing or out of date; `shares` are their values of the parameter `shard`."""

    code = "missing_shares"

    def __init__(self, problem: str, shares: Sequence[str]):
        super().__init__(problem)
        self.shares = shares


class TrackingError(DoctogresError):
    """MLflow's store refuses us, cannot be reached, or keeps its artifacts where this machine does not find them."""

    code = "tracking"


class RemoteError(DoctogresError):
    """A file or folder at an address does not exist, is refused, or cannot be reached."""

    code = "remote"


class WeightsError(DoctogresError):
    """Backbone weights could not be obtained or do not fit the architecture."""

    code = "weights"


class DiskFullError(DoctogresError):
    """A disk, or the user's share of it, has too little space left."""

    code = "disk_full"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and all that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def show_error(command: str, sentence: str, *, fault: bool = False) -> None:
    """Prints the error that is being handled as one line; with DOCTOGRES_DEBUG=1, its traceback before it.

    Args:
        command: what the user called.
        sentence: the problem and the remedy.
        fault: it is one of doctogres, which nobody can mend without the traceback.
    """
    if sys.exception() and (fault or os.environ.get(DEBUG_VARIABLE, "0") != "0"):
        traceback.print_exc()
    print(f"{command}: error: {sentence}", file=sys.stderr, flush=True)


def listed(names: Sequence[object], *, separator: str = ", ") -> str:
    """Names for a sentence: the first five and the number of further ones; empty if there are none."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return separator.join(map(str, names[:LISTED])) + more
