"""The untrained classifier, and one thread, as fixtures."""

import pytest
import torch

from tests.model.untrained import classifier, unsure

__all__ = ["classifier", "unsure"]


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small are faster on one thread, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
