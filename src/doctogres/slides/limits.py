"""Limits that a machine's owner sets in the environment."""

import os

from doctogres.errors import ParameterError


def limit_from_environment(variable: str, default: int, what: str) -> int:
    """The limit that the variable holds, or the default where it is not set or empty.

    Args:
        variable: its name.
        default: the limit without it.
        what: is counted, and an example, for the message.

    Raises:
        ParameterError: the variable does not hold a whole number above zero.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) == 0:
        raise ParameterError(f"{variable} is {text!r}; give a whole number of {what}")
    return int(text)
