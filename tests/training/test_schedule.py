"""Progressive unfreezing: what is open trains, what is frozen stays bit-identical."""

import pytest
import torch
import torch.nn.functional as F

from doctogres.model.network import create_network, layer_groups
from doctogres.settings import TrainSettings
from doctogres.training.optimizer import make_optimizer
from doctogres.training.schedule import apply_freezing, open_blocks, train_mode

BACKBONES = ("test_convnext", "test_resnet", "test_efficientnet", "test_vit")
RECIPE = TrainSettings(learning_rate=1e-3)


@pytest.mark.parametrize(
    ("unfreeze_every", "opened"),
    [
        (1, [0, 2, 4, 5, 5, 5, 5]),
        (2, [0, 0, 2, 2, 4, 4, 5]),
        (3, [0, 0, 0, 2, 2, 2, 4]),
        (100, [0, 0, 0, 0, 0, 0, 0]),
        (0, [5, 5, 5, 5, 5, 5, 5]),
    ],
)
def test_the_head_comes_first_then_two_blocks_more_every_n_epochs(unfreeze_every, opened):
    assert [open_blocks(epoch, blocks=5, unfreeze_every=unfreeze_every) for epoch in range(7)] == opened


def test_a_network_of_one_block_never_opens_more_than_it_has():
    assert [open_blocks(epoch, blocks=1, unfreeze_every=1) for epoch in range(3)] == [0, 1, 1]


def tiny(backbone):
    torch.manual_seed(0)
    network = create_network(backbone, classes=3, size=32)
    return network, layer_groups(network)


def trainable(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def snapshot(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def buffers_of(network, parameters):
    """The buffers (batch-norm statistics) of the modules that own the given parameters."""
    owners = {name.rpartition(".")[0] for name in parameters}
    return {name for name, _ in network.named_buffers() if name.rpartition(".")[0] in owners}


def in_optimizer(network, optimizer):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def train_steps(network, optimizer, steps=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        pixels = torch.randn(6, 3, 32, 32, generator=generator)
        F.cross_entropy(network(pixels), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_freezing_leaves_exactly_the_last_blocks_and_the_head_trainable(backbone):
    network, groups = tiny(backbone)
    for count in range(len(groups)):
        names = apply_freezing(network, groups, count)
        assert names == [name for group in groups[-1 - count :] for name in group]
        assert trainable(network) == set(names)
    assert set(names) == {name for name, _ in network.named_parameters()}
    apply_freezing(network, groups, 0)
    assert trainable(network) == set(groups[-1])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_at_every_opening_the_opened_blocks_train_and_the_frozen_ones_stay_bit_identical(backbone):
    network, groups = tiny(backbone)
    blocks = len(groups) - 1
    counts = sorted({open_blocks(epoch, blocks=blocks, unfreeze_every=1) for epoch in range(blocks + 1)})
    assert counts[0] == 0
    assert counts[-1] == blocks
    apply_freezing(network, groups, 0)
    optimizer = make_optimizer(network, groups, RECIPE)
    for count in counts:
        apply_freezing(network, groups, count)
        train_mode(network)
        assert trainable(network) <= set(in_optimizer(network, optimizer))
        before = snapshot(network)
        train_steps(network, optimizer)
        after = network.state_dict()
        opened = [name for group in groups[blocks - count :] for name in group]
        for name in opened:
            if after[name].ndim > 1:
                assert not torch.equal(after[name], before[name]), f"{count} open: {name} did not train"
        for name in after.keys() - set(opened) - buffers_of(network, opened):
            assert torch.equal(after[name], before[name]), f"{count} open: frozen {name} moved"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_the_batch_norm_statistics_of_open_blocks_move(backbone):
    network, groups = tiny(backbone)
    apply_freezing(network, groups, 2)
    train_mode(network)
    before = snapshot(network)
    train_steps(network, make_optimizer(network, groups, RECIPE), steps=1)
    opened = [name for group in groups[-3:] for name in group]
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name, _ in network.named_buffers()}
    assert moved & statistics == buffers_of(network, opened)
    assert moved & statistics


@pytest.mark.parametrize("backbone", BACKBONES)
def test_what_a_frozen_backbone_computes_does_not_change_while_the_head_trains(backbone):
    network, groups = tiny(backbone)
    apply_freezing(network, groups, 0)
    train_mode(network)
    pixels = torch.randn(4, 3, 32, 32)
    bodies = [network.forward_features(pixels)]
    train_steps(network, make_optimizer(network, groups, RECIPE))
    bodies.append(network.forward_features(pixels))
    assert torch.equal(*bodies)


def test_the_head_keeps_its_dropout_while_the_backbone_is_frozen():
    torch.manual_seed(0)
    network = create_network("test_resnet", classes=3, size=32, dropout=0.5)
    apply_freezing(network, layer_groups(network), 0)
    train_mode(network.eval())
    pixels = torch.randn(4, 3, 32, 32)
    assert not torch.equal(network(pixels), network(pixels))


def test_opening_puts_a_frozen_block_back_into_training_mode():
    network, groups = tiny("test_resnet")
    apply_freezing(network, groups, 0)
    train_mode(network)
    assert not network.layer1.training
    apply_freezing(network, groups, len(groups) - 1)
    train_mode(network)
    assert all(module.training for module in network.modules())
