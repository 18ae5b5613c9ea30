"""Signatures of models by a key on an elliptic curve, with the optional package model-signing; see docs/security.md.

The signature lies among the model's files, as `model.sig`. Where a public key is given, no model is loaded without one.
"""

import os
import re
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME
from mlflow.tracking import MlflowClient

from doctogres.errors import DoctogresError, listed
from doctogres.tracking.places import fetch

PRIVATE_KEY: Final = "DOCTOGRES_SIGNING_KEY"
PUBLIC_KEY: Final = "DOCTOGRES_SIGNING_PUBLIC_KEY"
SIGNATURE: Final = "model.sig"
CHANGED: Final = re.compile(r"Hash mismatch for \\?'(.+?)\\?': Expected")


class SignatureError(DoctogresError):
    """A model cannot be signed, is not signed, or is not what was signed."""

    code = "signature"


def sign_model(model: str) -> None:
    """Signs a logged model (`models:/m-...`) with the key that DOCTOGRES_SIGNING_KEY names; without it does nothing.

    Raises:
        SignatureError: model-signing is not installed, or the key cannot be used.
    """
    key = os.environ.get(PRIVATE_KEY)
    if not key:
        return
    if not model.startswith("models:/m-"):
        raise SignatureError(f"{PRIVATE_KEY}: only a model that `train` has logged can be signed, not {model}")
    signing = _module("signing", PRIVATE_KEY)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SignatureError(_unusable(PRIVATE_KEY, key, "private", error)) from error
    folder = fetch(model)
    with tempfile.TemporaryDirectory() as own:
        signature = Path(own) / SIGNATURE
        config.set_hashing_config(_hashing(folder, PRIVATE_KEY)).sign(folder, signature)
        MlflowClient().log_model_artifact(model.removeprefix("models:/"), str(signature))
    print(f"signed {model} with the key {key}", flush=True)


def check_signature(folder: Path, model: str) -> None:
    """Refuses a model whose files are not those that were signed, if DOCTOGRES_SIGNING_PUBLIC_KEY names a key.

    Args:
        folder: the model's folder, with its file `MLmodel`.
        model: how the user named it.

    Raises:
        SignatureError: the model has no signature, another key's or a changed file; the key cannot be used; or
            model-signing is not installed.
    """
    key = os.environ.get(PUBLIC_KEY)
    if not key:
        return
    verifying = _module("verifying", PUBLIC_KEY)
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SignatureError(_unusable(PUBLIC_KEY, key, "public", error)) from error
    if not (folder / SIGNATURE).is_file():
        raise SignatureError(
            f"model={model}: it is not signed, and {PUBLIC_KEY} requires it; `register` signs it where {PRIVATE_KEY} is set; "
            f"unset {PUBLIC_KEY} to use a model of your own before that"
        )
    from cryptography.exceptions import InvalidSignature

    try:
        config.set_hashing_config(_hashing(folder, PUBLIC_KEY)).verify(folder, folder / SIGNATURE)
    except (ValueError, KeyError, TypeError, InvalidSignature) as error:
        raise SignatureError(
            f"model={model}: its files are not those that were signed with the key {key} belongs to ({_problem(error)}); do not use it, "
            "and register a model whose origin you know"
        ) from error


def _module(name: str, variable: str) -> Any:
    """A module of model-signing."""
    try:
        return import_module(f"model_signing.{name}")
    except ImportError as error:
        raise SignatureError(
            f"{variable}: signatures need the package model-signing, which is not installed here ({error}); run "
            f"`pip install model-signing pyopenssl`, or unset {variable}"
        ) from error


def _hashing(folder: Path, variable: str) -> Any:
    """Hashes all files of a model but the signature and what is written when the model is loaded."""
    caches = (path.relative_to(folder) for path in folder.rglob("__pycache__"))
    ignored = [SIGNATURE, REGISTERED_MODEL_META_FILE_NAME, *caches]
    return _module("hashing", variable).Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)


def _problem(error: Exception) -> str:
    """What does not match, without digests, which say nothing to a reader."""
    changed = CHANGED.findall(str(error))
    return f"changed: {listed(changed)}" if changed else str(error) or "the signature is invalid"


def _unusable(variable: str, key: str, kind: str, error: Exception) -> str:
    return (
        f"{variable}={key}: not a {kind} key on an elliptic curve in PEM format, without a password ({error}); "
        "docs/security.md shows how to make one"
    )
