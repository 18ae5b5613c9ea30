"""Forward passes over as many patches at a time as the device's memory holds."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

import torch

from doctogres.errors import DoctogresError

logger: Final = logging.getLogger(__name__)
Result = TypeVar("Result")


class Passes:
    """Runs a function on batches, on halves of them once the device's memory was not enough for a whole one.

    Attributes:
        at_once: patches in one pass at most; None as long as whole batches fit.
    """

    def __init__(self) -> None:
        self.at_once: int | None = None

    def __call__(self, run: Callable[[torch.Tensor], Result], batch: torch.Tensor) -> list[Result]:
        """The results of the parts of a batch, in order.

        Raises:
            DoctogresError: the memory is not enough for a single patch.
        """
        while True:
            try:
                return [run(part) for part in torch.split(batch, self.at_once or len(batch))]
            except torch.OutOfMemoryError as error:
                failed = min(self.at_once or len(batch), len(batch))
                if failed == 1:
                    raise DoctogresError(
                        "the memory of the device is not enough for a single patch; choose a smaller backbone or patch_size, end "
                        f"other programs that use the device, or give device=cpu ({error})"
                    ) from error
            self.at_once = failed // 2  # outside of `except`, where the error would keep the tensors of the pass alive
            torch.cuda.empty_cache()
            logger.warning(
                "the device's memory does not hold %d patches at once; going on with %d", failed, self.at_once
            )
