"""Lion with a learning rate per block."""

import math

import pytest
import torch

from doctogres.model.network import create_network, layer_groups
from doctogres.settings import TrainSettings
from doctogres.training.optimizer import make_optimizer, set_learning_rates
from doctogres.training.schedule import apply_freezing

BACKBONES = ("test_convnext", "test_resnet", "test_vit")
RECIPE = TrainSettings(learning_rate=1e-3, layer_decay=0.8, weight_decay=0.05)


def tiny(backbone, open_count):
    torch.manual_seed(0)
    network = create_network(backbone, classes=3, size=32)
    groups = layer_groups(network)
    apply_freezing(network, groups, len(groups) - 1 if open_count is None else open_count)
    return network, groups


def options_of(network, optimizer):
    """Each parameter's learning rate and weight decay."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["base_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def one_group(rate=1.0):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [parameter], "lr": rate, "base_lr": rate}], lr=rate)
    return optimizer


def rates(steps, warmup):
    optimizer = one_group()
    result = []
    for step in range(steps + 1):
        set_learning_rates(optimizer, step=step, steps=steps, warmup=warmup)
        result.append(optimizer.param_groups[0]["lr"])
    return result


@pytest.mark.parametrize("backbone", BACKBONES)
def test_learning_rates_fall_by_layer_decay_from_the_head_to_the_input(backbone):
    network, groups = tiny(backbone, None)
    options = options_of(network, make_optimizer(network, groups, RECIPE))
    for depth, names in enumerate(reversed(groups)):
        for name in names:
            assert options[name][0] == pytest.approx(1e-3 * 0.8**depth), name
            assert options[name][1] == options[name][0]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_decay_and_one_dimensional_parameters_do_not(backbone):
    network, groups = tiny(backbone, None)
    options = options_of(network, make_optimizer(network, groups, RECIPE))
    for name, parameter in network.named_parameters():
        assert options[name][2] == (0.05 if parameter.ndim > 1 else 0.0), name


@pytest.mark.parametrize("open_count", [0, 1, None])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_optimizer_holds_every_parameter_once_whatever_is_frozen_and_the_head_comes_first(backbone, open_count):
    network, groups = tiny(backbone, open_count)
    optimizer = make_optimizer(network, groups, RECIPE)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())
    head = {id(parameter) for name, parameter in network.named_parameters() if name in groups[-1]}
    assert {id(parameter) for parameter in optimizer.param_groups[0]["params"]} <= head


def test_the_optimizer_leaves_frozen_parameters_alone_without_state_or_decay():
    network, groups = tiny("test_resnet", 0)
    frozen = {name: value.clone() for name, value in network.named_parameters() if not value.requires_grad}
    optimizer = make_optimizer(network, groups, RECIPE)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(dict(network.named_parameters())[name], value) for name, value in frozen.items())
    assert len(optimizer.state) == len(groups[-1])


def test_weight_decay_shrinks_a_weight_whose_gradient_is_zero():
    network, groups = tiny("test_resnet", 0)
    optimizer = make_optimizer(network, groups, RECIPE)
    weight, bias = network.fc.weight, network.fc.bias
    with torch.no_grad():
        bias.fill_(1.0)
    before = weight.detach().clone()
    for parameter in (weight, bias):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(weight, before * (1 - 1e-3 * 0.05), rtol=0, atol=1e-7)
    assert torch.equal(bias, torch.ones_like(bias))


def test_the_learning_rate_warms_up_linearly_and_falls_by_a_cosine_to_one_percent():
    values = rates(steps=104, warmup=4)
    assert values[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert values[54] == pytest.approx(0.01 + 0.99 / 2)  # half-way
    assert values[29] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2)
    assert values[104] == pytest.approx(0.01)
    assert values[4:] == sorted(values[4:], reverse=True)


def test_the_learning_rate_stays_at_one_percent_after_the_last_step():
    optimizer = one_group()
    set_learning_rates(optimizer, step=500, steps=100, warmup=5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_training_of_a_few_steps_has_a_learning_rate_above_zero(steps):
    assert all(0 < rate <= 1 for rate in rates(steps=steps, warmup=1))


def test_every_block_follows_the_same_curve_from_its_own_rate():
    network, groups = tiny("test_resnet", None)
    optimizer = make_optimizer(network, groups, RECIPE)
    for step in (0, 3, 50, 99):
        set_learning_rates(optimizer, step=step, steps=100, warmup=5)
        assert len({round(group["lr"] / group["base_lr"], 12) for group in optimizer.param_groups}) == 1
    assert len({group["base_lr"] for group in optimizer.param_groups}) == len(groups)
