"""Where an encoder and its weights lie: a name of timm's, a folder, a repository, a file. Imports nothing heavy.

Of what lies at an address there is a copy. A process keeps to the one that it found first, so that all its networks start
from the same weights, and asks no server again.
"""

from functools import cache
from pathlib import Path
from typing import Final

from doctogres.errors import RemoteError
from doctogres.remote import is_address, local, local_files

LOCAL: Final = "local-dir"
HUB: Final = "hf-hub"
CONFIG_FILE: Final = "config.json"
SUFFIX: Final = ".safetensors"
WEIGHTS_FILES: Final = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm looks for them


def source_of(backbone: str) -> tuple[str, str]:
    """`local-dir` and the folder, `hf-hub` and the repository, or nothing and timm's name: timm's own syntax."""
    kind, _, place = backbone.partition(":")
    kind = kind.lower().replace("_", "-")
    return (kind, place) if kind in (LOCAL, HUB) else ("", backbone)


def repository(backbone: str) -> tuple[str, str | None]:
    """A repository's name and revision: `hf-hub:NAME@REVISION`."""
    name, _, revision = source_of(backbone)[1].partition("@")
    return name, revision or None


def weights_path(weights: str) -> Path:
    """The file that the setting `weights` names; of an address, a copy with its configuration beside it.

    Raises:
        DoctogresError: the address cannot be read, see `remote.local`.
    """
    return _copied_weights(weights) if is_address(weights) else Path(weights)


@cache
def _copied_weights(address: str) -> Path:
    if not local_files([address])[address].is_file():  # said before anything of a configuration
        raise RemoteError(f"weights={address} does not exist; check the address, and for s3:// AWS_ENDPOINT_URL")
    beside = f"{address.removesuffix(SUFFIX)}.json", f"{address.rpartition('/')[0]}/{CONFIG_FILE}"
    return local_files([address, *beside])[address]


def encoder_folder(place: str) -> Path:
    """The folder of `backbone=local-dir:FOLDER`; of an address, a copy.

    Raises:
        DoctogresError: the address cannot be read, see `remote.local`.
    """
    return _copied_folder(place) if is_address(place) else Path(place)


_copied_folder: Final = cache(local)


def forget_copies() -> None:
    """The next network starts from what lies at the addresses then."""
    _copied_weights.cache_clear()
    _copied_folder.cache_clear()


def weights_in(folder: Path) -> Path | None:
    """The weights file of a folder: one with a usual name, or its only safetensors file."""
    usual = [folder / name for name in WEIGHTS_FILES if (folder / name).is_file()]
    found = usual or sorted(folder.glob(f"*{SUFFIX}"))
    return found[0] if usual or len(found) == 1 else None


def configuration_beside(weights: Path) -> Path | None:
    """The JSON file with the name of the weights file, or the `config.json` in its folder."""
    places = (weights.with_suffix(".json"), weights.parent / CONFIG_FILE)
    return next((place for place in places if place.is_file()), None)


def files_behind(name: str, value: str) -> list[Path]:
    """The files that an entry of the setting `backbone` or `weights` stands for; none for timm's name or a repository.

    Raises:
        DoctogresError: an address cannot be read, see `remote.local`.
    """
    if name == "backbone":
        kind, place = source_of(value)
        folder = encoder_folder(place) if kind == LOCAL else None
        found = [folder / CONFIG_FILE, weights_in(folder)] if folder else []
    else:
        path = weights_path(value)
        found = [path, configuration_beside(path)] if path.is_file() else []
    return [path for path in found if path is not None and path.is_file()]
