"""Where an encoder and its weights lie: a name of timm's, a folder, a repository, a file. Imports nothing heavy."""

from pathlib import Path
from typing import Final

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


def weights_in(folder: Path) -> Path | None:
    """The weights file of a folder: one with a usual name, or its only safetensors file."""
    usual = [folder / name for name in WEIGHTS_FILES if (folder / name).is_file()]
    found = usual or sorted(folder.glob(f"*{SUFFIX}"))
    return found[0] if usual or len(found) == 1 else None


def configuration_beside(weights: Path) -> Path | None:
    """The JSON file with the name of the weights file, or the `config.json` in its folder."""
    places = (weights.with_suffix(".json"), weights.parent / CONFIG_FILE)
    return next((place for place in places if place.is_file()), None)


def local_files(name: str, value: str) -> list[Path]:
    """The files that the setting `backbone` or `weights` stands for; none for a name of timm's or a repository."""
    if name == "backbone":
        kind, place = source_of(value)
        found = [Path(place) / CONFIG_FILE, weights_in(Path(place))] if kind == LOCAL else []
    else:
        found = [Path(value), configuration_beside(Path(value))] if Path(value).is_file() else []
    return [path for path in found if path is not None and path.is_file()]
