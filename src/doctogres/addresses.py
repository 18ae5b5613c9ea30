"""Addresses of databases, servers and stores: no password may stand in one, and none is shown.

Imports nothing heavy: an address is checked before MLflow is loaded.
"""

import os
import re
from typing import Final
from urllib.parse import unquote

from doctogres.errors import ParameterError

VARIABLES: Final = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL")
HIDDEN: Final = "***"
# scheme://user:password@, up to the last @ of the word: whoever forgot to encode an @ or / has a password all the same.
LOGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s:/?#@]*)(:?)(\S*)@", re.IGNORECASE)
PORT: Final = re.compile(r"\d+/")  # http://host:80/path@x
KEY: Final = re.compile(
    r"((?:^|[?&;\s])[\w.%-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token|signature|sig|api_?key|access_?key|credentials?)=)"
    r"[^&;\s#'\"]+",
    re.IGNORECASE,
)
SERVER_REMEDY: Final = "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and the address as https://HOST"
REMEDIES: Final = {
    "postgresql": (
        "in PGPASSWORD, ~/.pgpass or a service file (PGSERVICEFILE), and the address as postgresql://USER@HOST/DATABASE"
    ),
    "http": SERVER_REMEDY,
    "https": SERVER_REMEDY,
    "s3": "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in ~/.aws/credentials, and the address as s3://BUCKET",
}
OTHER_REMEDY: Final = "outside the address, as the manual of its client says"


def masked(text: str) -> str:
    """The text with `***` for every password in an address: before the host, or in a parameter such as `password=`."""
    return KEY.sub(rf"\1{HIDDEN}", LOGIN.sub(_login, text))


def without_password(value: str) -> str:
    """The value, masked (and decoded) if it holds a password, even one with spaces or a percent-encoded `:` or `=`."""
    plain = unquote(value)
    joined = re.sub(r"\s", "%20", plain)
    plain = joined if LOGIN.sub(_login, joined) != joined else plain
    return masked(plain) if masked(plain) != plain or masked(value) != value else value


def check_address(name: str, value: str, remedy: str = "") -> None:
    """Refuses an address that holds a password.

    Args:
        name: the parameter or environment variable.
        value: the address; any other text passes.
        remedy: what to do, instead of what fits the address.

    Raises:
        ParameterError: says where the password belongs, without it.
    """
    shown = without_password(value)
    if shown != value:
        place = REMEDIES.get(re.split(r"[:+]", value.lower())[0], OTHER_REMEDY)
        raise ParameterError(
            f"{name}={shown}: a password in an address can be read in lists of processes, MLflow's parameters and logs; "
            + (remedy or f"change it, and give the new one {place} (docs/security.md)")
        )


def check_environment() -> None:
    """Refuses a password in an address that the environment gives to MLflow.

    Raises:
        ParameterError: see `check_address`.
    """
    for name in VARIABLES:
        check_address(name, os.environ.get(name, ""))


def _login(found: re.Match[str]) -> str:
    scheme, user, colon, secret = found.groups()
    web = scheme.lower() in ("http", "https")
    if web and (PORT.match(secret) if colon else secret):  # an @ in the path
        return found[0]
    if colon and secret:
        return f"{scheme}://{user}:{HIDDEN}@"
    return f"{scheme}://{HIDDEN}@" if web and user else found[0]  # a token stands where the user does
