"""Whether a backbone's weights can be had, asked before any work. Loads torch only where the cache does not answer."""

from pathlib import Path
from typing import Any, Final

from doctogres.errors import WeightsError
from doctogres.settings import Preset

NONE: Final = "none"
IMAGENET: Final = "imagenet"
SUFFIX: Final = ".safetensors"
TIMEOUT: Final = 5  # seconds for the one question to a server
FILES: Final = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them
OTHERS: Final = f"give weights={NONE} (random initialisation) or weights=FILE{SUFFIX}"


def check_weights(backbone: str, weights: str) -> None:
    """Refuses weights that the training could not load.

    Args:
        backbone: timm's name.
        weights: as in `network.create_network`.

    Raises:
        WeightsError: the file is not there, or the download is neither in the cache nor on offer.
    """
    if weights == IMAGENET:
        if not _cached(backbone):
            _ask(backbone)
    elif weights != NONE:
        check_weights_file(weights)


def check_weights_file(weights: str) -> None:
    """Refuses a path that is no safetensors file."""
    if not weights.endswith(SUFFIX) or not Path(weights).is_file():
        raise WeightsError(
            f"weights={weights}: not {IMAGENET}, not {NONE}, and no such {SUFFIX} file ({Path(weights).absolute()} was tried); "
            "give one of these"
        )


def check_all_weights(preset: Preset) -> None:
    """`check_weights` of the recipe and of everything that the study may put in its place."""
    space, train = preset.tune.space, preset.train
    backbones, weights = (
        space[name].choices or () if name in space else (getattr(train, name),) for name in ("backbone", "weights")
    )
    for backbone in backbones:
        for one in weights:
            check_weights(str(backbone), str(one))


def _cached(backbone: str) -> bool:
    """Whether the Hugging Face cache has weights of this name; a name without a tag is any of its tags."""
    from huggingface_hub.constants import HF_HUB_CACHE

    tag = "" if "." in backbone else ".*"
    folders = Path(HF_HUB_CACHE).glob(f"models--timm--{backbone}{tag}/snapshots/*")
    return any((folder / file).is_file() for folder in folders for file in FILES)


def _ask(backbone: str) -> None:
    """One short question to the server that has the weights.

    Raises:
        ParameterError: the architecture is unknown.
        WeightsError: there are no such weights, or the server cannot be reached.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]  # its base class

    from doctogres.model.network import DOWNLOAD_ERRORS, pretrained_config

    config = pretrained_config(backbone)
    try:
        _head(config)
    except (*DOWNLOAD_ERRORS, HTTPError, EntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"weights={IMAGENET}: the weights of {backbone} are not in the cache {HF_HUB_CACHE} and cannot be fetched "
            f"({reason}); connect to the network, name a cache that has them (HF_HOME=FOLDER), or {OTHERS}"
        ) from error


def _head(config: Any) -> None:
    """Asks for the file's size only."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError
    from timm.models._hub import check_cached_file  # no public function says where timm keeps what has a plain address

    if not config.hf_hub_id:
        if not check_cached_file(config.url):
            get_hf_file_metadata(config.url, timeout=TIMEOUT)
        return
    names = [config.hf_hub_filename] if config.hf_hub_filename else list(FILES)
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(config.hf_hub_id, name), timeout=TIMEOUT)
            return
        except EntryNotFoundError:
            if name == names[-1]:
                raise
