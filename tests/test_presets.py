"""Presets at addresses, here fsspec's store in memory."""

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from doctogres.errors import DoctogresError
from doctogres.presets import load_preset


def test_a_preset_at_an_address_is_read(in_memory: MemoryFileSystem) -> None:
    in_memory.pipe_file("/bucket/mine.yaml", b"train: {epochs: 3}")
    preset = load_preset("memory://bucket/mine.yaml", {"batch_size": "8"})
    assert (preset.train.epochs, preset.train.batch_size) == (3, 8)
    assert preset.given["preset"] == "memory://bucket/mine.yaml"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://bucket/none.yaml", "memory://bucket/none.yaml does not exist; check the address"),
        ("memory://bucket/bad.yaml", "preset=memory://bucket/bad.yaml: train.epochs=0: "),
        ("memory://bucket/no.yaml", "preset=memory://bucket/no.yaml: the file cannot be read"),
        ("gs://bucket/mine.yaml", "preset=gs://bucket/mine.yaml: gs:// needs another package"),
        ("s3://KEY:Apfelkuchen@bucket/mine.yaml", "preset=s3://"),
    ],
)
def test_a_preset_that_cannot_be_used_is_named_by_its_address(
    in_memory: MemoryFileSystem, address: str, said: str
) -> None:
    in_memory.pipe_file("/bucket/bad.yaml", b"train: {epochs: 0}")
    in_memory.pipe_file("/bucket/no.yaml", b"train: {epochs: [")
    with pytest.raises(DoctogresError) as error:
        load_preset(address)
    assert said in str(error.value)
    assert "Apfelkuchen" not in str(error.value)
