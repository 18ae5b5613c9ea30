"""Whether an encoder's weights can be had, asked before any work. Loads torch only where the cache does not answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from doctogres.encoders import (
    CONFIG_FILE,
    HUB,
    LOCAL,
    SUFFIX,
    WEIGHTS_FILES,
    encoder_folder,
    repository,
    source_of,
    weights_in,
    weights_path,
)
from doctogres.errors import WeightsError
from doctogres.presets import replaced
from doctogres.remote import check_usable, is_address
from doctogres.settings import Preset

NONE: Final = "none"
IMAGENET: Final = "imagenet"
TIMEOUT: Final = 5  # seconds for the one question to a server
OTHERS: Final = f"give weights={NONE} (random initialisation) or weights=FILE{SUFFIX}"


def check_weights(backbone: str, weights: str) -> None:
    """Refuses an encoder that the training could not load.

    Args:
        backbone: as in `network.create_network`.
        weights: as there.

    Raises:
        WeightsError: a file is not there, or a download is neither in the cache nor on offer.
        RemoteError: an address cannot be read.
    """
    check_files(backbone, weights)
    kind, name = source_of(backbone)
    if kind == HUB:
        _check_repository(backbone, (CONFIG_FILE,))
        if weights == IMAGENET:
            _check_repository(backbone, WEIGHTS_FILES)
    elif weights == IMAGENET and not kind and not _cached(name):
        _ask(name)


def check_files(backbone: str, weights: str) -> None:
    """Refuses a folder or a file that is not there, of this machine or at an address."""
    check_local_weights(backbone, weights)
    if is_address(weights):
        weights_path(weights)
    if source_of(backbone)[0] == LOCAL:
        _check_folder(backbone, weights)


def check_local_weights(backbone: str, weights: str) -> None:
    """Refuses a folder or a file that is not there; asks no other machine, so that one at an address may be missing."""
    kind, place = source_of(backbone)
    if weights not in (NONE, IMAGENET):
        _check_file(weights)
    if is_address(place):
        check_usable("backbone", place)
    elif kind == LOCAL:
        _check_folder(backbone, weights)


def _check_file(weights: str) -> None:
    there = weights if is_address(weights) else Path(weights).absolute()
    if is_address(weights):
        check_usable("weights", weights)
    if not (weights.endswith(SUFFIX) and (is_address(weights) or Path(weights).is_file())):
        raise WeightsError(
            f"weights={weights}: not {IMAGENET}, not {NONE}, and no such {SUFFIX} file ({there} was tried); give one of these"
        )


def _check_folder(backbone: str, weights: str) -> None:
    place = source_of(backbone)[1]
    folder = encoder_folder(place)
    if not (folder / CONFIG_FILE).is_file():
        there = place if is_address(place) else folder.absolute()
        raise WeightsError(
            f"backbone={backbone}: there is no {there}/{CONFIG_FILE}; give a folder that timm saved an encoder in, with "
            f"{CONFIG_FILE} and {WEIGHTS_FILES[0]}"
        )
    if weights == IMAGENET and weights_in(folder) is None:
        raise WeightsError(
            f"backbone={backbone}: neither {' nor '.join(WEIGHTS_FILES)} nor one other {SUFFIX} file is in the folder; put one "
            f"there, or {OTHERS}"
        )


def check_all_weights(preset: Preset) -> None:
    """`check_weights` of the recipe and of everything that the study may put in its place."""
    space, train = preset.tune.space, preset.train
    backbones, weights = (
        space[name].choices or () if name in space else (getattr(train, name),) for name in ("backbone", "weights")
    )
    for backbone in backbones:
        for one in weights:
            settings = replaced(preset, "train", {"backbone": backbone, "weights": one}).train
            for encoder in settings.encoders:
                check_weights(*encoder)


def _cached(backbone: str) -> bool:
    """Whether the Hugging Face cache has weights of this name; a name without a tag is any of its tags."""
    from huggingface_hub.constants import HF_HUB_CACHE

    tag = "" if "." in backbone else ".*"
    folders = Path(HF_HUB_CACHE).glob(f"models--timm--{backbone}{tag}/snapshots/*")
    return any((folder / file).is_file() for folder in folders for file in WEIGHTS_FILES)


def _ask(backbone: str) -> None:
    """One short question to the server that has the weights.

    Raises:
        ParameterError: the architecture is unknown.
        WeightsError: there are no such weights, or the server cannot be reached.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    from doctogres.model.network import pretrained_config

    config = pretrained_config(backbone)
    try:
        _head(config)
    except download_errors() as error:
        raise WeightsError(
            f"weights={IMAGENET}: the weights of {backbone} are not in the cache {HF_HUB_CACHE} and cannot be fetched "
            f"({reason_of(error)}); connect to the network, name a cache that has them (HF_HOME=FOLDER), or {OTHERS}"
        ) from error


def _check_repository(backbone: str, files: Sequence[str]) -> None:
    """Refuses a repository that has none of these files in the cache or on its server."""
    from huggingface_hub import try_to_load_from_cache

    name, revision = repository(backbone)
    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files):
        return
    try:
        _ask_for(name, files, revision)
    except download_errors() as error:
        raise hub_error(backbone, error) from error


def hub_error(backbone: str, error: Exception) -> WeightsError:
    """What a user reads whose encoder cannot be had from its repository."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError

    name, folder = repository(backbone)[0], f"give the folder of a download (backbone={LOCAL}:FOLDER)"
    if isinstance(error, GatedRepoError):
        return WeightsError(
            f"backbone={backbone}: access is granted on request only; accept the terms on https://huggingface.co/{name} and "
            f"log in with `hf auth login`, or {folder}"
        )
    return WeightsError(
        f"backbone={backbone}: not in the cache {HF_HUB_CACHE}, and cannot be fetched ({reason_of(error)}); connect to the "
        f"network, name a cache that has it (HF_HOME=FOLDER), or {folder}"
    )


def reason_of(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def download_errors() -> tuple[type[Exception], ...]:
    """What may go wrong when a file is fetched from a server."""
    from huggingface_hub import errors

    named = (errors.EntryNotFoundError, errors.HFValidationError, errors.OfflineModeIsEnabled)
    return (*named, errors.HTTPError, OSError)  # type: ignore[attr-defined]  # HTTPError: its base class


def _head(config: Any) -> None:
    """Asks for the file's size only."""
    from huggingface_hub import get_hf_file_metadata
    from timm.models._hub import check_cached_file  # no public function says where timm keeps what has a plain address

    if not config.hf_hub_id:
        if not check_cached_file(config.url):
            get_hf_file_metadata(config.url, timeout=TIMEOUT)
        return
    _ask_for(config.hf_hub_id, [config.hf_hub_filename] if config.hf_hub_filename else WEIGHTS_FILES)


def _ask_for(name: str, files: Sequence[str], revision: str | None = None) -> None:
    """Asks a repository for the size of the first of these files that it has."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=TIMEOUT)
            return
        except EntryNotFoundError:
            if file == files[-1]:
                raise
