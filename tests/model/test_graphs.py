"""Networks as graphs beside their weights: the same answers without PyTorch, or PyTorch where they cannot give them."""

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from torch import nn

from doctogres.model import graphs
from doctogres.model.attention import GatedAttention
from doctogres.model.classifier import WEIGHTS_FILE, SlideClassifier
from doctogres.model.ensemble import Ensemble
from doctogres.model.graphs import GraphEnsemble
from tests.servers import ROOT
from tests.serving.drawn_requests import drawn

ANEW = "the networks are converted anew"


@pytest.fixture(scope="module")
def saved(classifier: SlideClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    classifier.save(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def uses_graphs(classifier: SlideClassifier) -> bool:
    return all(isinstance(network, GraphEnsemble) for network in classifier.networks)


def test_without_pytorch_the_answer_is_the_same(classifier: SlideClassifier, saved: Path, tmp_path: Path) -> None:
    rgb, mask = drawn(3)
    np.savez(tmp_path / "slide.npz", rgb=rgb, mask=mask)
    code = f"""
import sys; sys.modules.update(torch=None, timm=None)
import json, numpy as np
from pathlib import Path
from typing import Final
from doctogres.model.classifier import SlideClassifier
slide = np.load({str(tmp_path / "slide.npz")!r})
model = SlideClassifier.load(Path({str(saved)!r}), graphs=True)
answers = [model.adjusted(tta=tta).classify(slide["rgb"], slide["mask"]) for tta in (False, True)]
print(json.dumps([answer.probabilities.tolist() for answer in answers]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for tta, found in zip((False, True), json.loads(done.stdout), strict=True):
        expected = classifier.adjusted(tta=tta).classify(rgb, mask).probabilities
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.ptp(expected) > 1e-3  # there is something to compare


def test_the_weights_are_stored_once(saved: Path) -> None:
    assert (saved / WEIGHTS_FILE).stat().st_size > 1_000_000
    assert (saved / "graph-0.safetensors").stat().st_size < 50_000
    assert {path.name for path in saved.iterdir()} == {
        WEIGHTS_FILE, "graph-0.safetensors", "graph-0.xml", "classifier.json", "evidence.json",
    }  # fmt: skip


def test_a_loaded_classifier_can_be_saved_again(saved: Path, tmp_path: Path) -> None:
    SlideClassifier.load(saved, device="cpu").save(tmp_path)
    again = SlideClassifier.load(tmp_path, device="cpu", graphs=True)
    assert uses_graphs(again)
    rgb, mask = drawn(2)
    first = SlideClassifier.load(saved, device="cpu", graphs=True).classify(rgb, mask)
    np.testing.assert_array_equal(again.classify(rgb, mask).probabilities, first.probabilities)


def cut_off(folder: Path) -> None:
    (folder / "graph-0.xml").write_bytes((folder / "graph-0.xml").read_bytes()[:5000])


def cut_off_constants(folder: Path) -> None:
    (folder / "graph-0.safetensors").write_bytes((folder / "graph-0.safetensors").read_bytes()[:2000])


def change(folder: Path) -> None:
    graph = folder / "graph-0.xml"
    graph.write_text(re.sub('epsilon="[^"]*"', 'epsilon="1"', graph.read_text()))


@pytest.mark.parametrize(
    ("damage", "reason"), [(cut_off, ""), (cut_off_constants, ""), (change, "probabilities are off by up to")]
)
def test_a_damaged_graph_is_not_used_and_the_log_says_so(
    classifier: SlideClassifier, copied: Path, damage: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(copied)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        model = SlideClassifier.load(copied, device="cpu", graphs=True)
    assert not uses_graphs(model)
    (line,) = caplog.text.splitlines()
    assert ANEW in line
    assert reason in line
    rgb, mask = drawn(1)
    expected = classifier.classify(rgb, mask).probabilities
    np.testing.assert_allclose(model.classify(rgb, mask).probabilities, expected, atol=1e-5)


def test_an_older_model_without_graphs_and_a_machine_with_cuda_use_pytorch(
    copied: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patcher:
        patcher.setattr(graphs, "GPUS", (copied / "classifier.json",))
        assert not uses_graphs(SlideClassifier.load(copied, device="cpu", graphs=True))
    assert uses_graphs(SlideClassifier.load(copied, device="cpu", graphs=True))
    (copied / "graph-0.xml").unlink()
    assert not uses_graphs(SlideClassifier.load(copied, device="cpu", graphs=True))
    assert caplog.text == ""


def test_networks_with_attention_heads_and_those_that_openvino_cannot_run_have_no_graph(
    classifier: SlideClassifier, tmp_path: Path
) -> None:
    class Odd(nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.sinc(patches.mean((2, 3)).detach().numpy()))  # a constant, when it is traced

    heads = [GatedAttention(96, 3) for _ in classifier.networks[0].members]
    for number, network in enumerate((Ensemble(list(classifier.networks[0].members), heads), Ensemble([Odd()]))):
        folder = tmp_path / str(number)
        replace(classifier, networks=(network,)).save(folder)
        assert not list(folder.glob("graph*"))


INTERRUPTED: Final = """
import signal, threading
import numpy as np
from doctogres.model.graphs import CompiledGraph, openvino

ops = openvino().opset13
given = ops.parameter([-1, 3], np.float32)
graphs = [CompiledGraph(openvino().Model([ops.relu(given)], [given]))]
print(graphs[0](np.ones((2, 3), np.float32))[0].sum())
dropping = threading.Thread(target=graphs.clear)
dropping.start()
dropping.join()
signal.signal(signal.SIGTERM, lambda number, frame: print("interrupted"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_does_no_harm_after_another_thread_has_dropped_the_last_graph():
    found = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert (found.returncode, found.stdout.split()) == (0, ["6.0", "interrupted"]), found.stderr
