"""The training loop on coloured squares."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from doctogres.errors import ParameterError
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import create_network, layer_groups, normalisation
from doctogres.patches.joined import JoinedPixels
from doctogres.patches.parts import Part, Piece, header
from doctogres.training.loop import Epoch, train_network
from doctogres.training.samples import Samples, class_weights, slide_scores
from tests.training.coloured_squares import RECIPE, coloured_squares


def recipe(**values):
    return RECIPE.model_copy(update=values)


def run(*given, seed=0, **options):
    """A training of samples, their rows to train on and to validate on, and settings."""
    *part, settings = given
    return train_network(*part, classes=3, settings=settings, seed=seed, **options)


def curves(trained):
    """The history without what a clock says."""
    return trained.history.drop(columns="patches_per_s")


def same_weights(one, other):
    states = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
def test_an_easy_task_is_learned(backbone):
    trained = run(*coloured_squares(24, size=32), recipe(backbone=backbone, epochs=6, batch_size=4))
    assert trained.best.slide_macro_f1 == 1.0
    assert trained.history.train_loss.iloc[-1] < trained.history.train_loss.iloc[0]
    assert not trained.single_class


def test_an_easy_task_is_learned_with_augmentation_and_unfreezing():
    settings = recipe(epochs=10, batch_size=4, unfreeze_every=1, augmentation=True, dropout=0.1)
    assert run(*coloured_squares(24, size=32), settings).best.slide_macro_f1 == 1.0


def test_the_same_seed_repeats_everything_bit_for_bit_and_another_seed_does_not():
    part = coloured_squares()
    settings = recipe(augmentation=True, dropout=0.3, unfreeze_every=1)
    first, second, other = (run(*part, settings, seed=seed) for seed in (3, 3, 4))
    assert curves(first).equals(curves(second))
    assert same_weights(first, second)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert not curves(first).equals(curves(other))
    assert not same_weights(first, other)


def test_what_happened_before_the_training_does_not_matter():
    part = coloured_squares()
    settings = recipe(epochs=1, augmentation=True, dropout=0.3)
    first = run(*part, settings)
    torch.rand(10)
    assert same_weights(first, run(*part, settings))


def test_the_validation_fold_never_influences_the_weights():
    samples, train, validation = coloured_squares()
    spoiled = samples.pixels.copy()
    spoiled[validation] = 255 - spoiled[validation]
    other = Samples(spoiled, samples.targets, samples.slide_ids, samples.areas)
    settings = recipe(epochs=3, unfreeze_every=1)
    losses = [run(part, train, validation, settings).history for part in (samples, other)]
    assert losses[0].train_loss.tolist() == losses[1].train_loss.tolist()
    assert losses[0].val_loss.tolist() != losses[1].val_loss.tolist()
    once = [run(part, train, validation, recipe(epochs=1)) for part in (samples, other)]
    assert same_weights(*once)


def test_rows_outside_both_parts_are_never_looked_at():
    samples, train, validation = coloured_squares()
    train = train[6:]
    pixels, targets = samples.pixels.copy(), samples.targets.copy()
    pixels[:6], targets[:6] = 0, -1  # a hold-out whose label training does not know
    hidden = Samples(pixels, targets, samples.slide_ids, samples.areas)
    assert curves(run(samples, train, validation, RECIPE)).equals(curves(run(hidden, train, validation, RECIPE)))


def test_the_kept_network_and_its_probabilities_are_the_best_epochs():
    samples, train, validation = coloured_squares()
    epochs: list[Epoch] = []
    trained = run(samples, train, validation, recipe(epochs=5, learning_rate=3e-3), on_epoch=epochs.append)
    ranked = [(epoch.slide_macro_f1, -epoch.val_loss) for epoch in epochs]
    assert trained.best == epochs[ranked.index(max(ranked))]
    assert trained.history.epoch.tolist() == [0, 1, 2, 3, 4]
    mean, std = normalisation(trained.network)
    again = outputs_of(Ensemble([trained.network]), samples.pixels, rows=validation, mean=mean, std=std)
    assert np.array_equal(again.of_patches(), trained.probabilities)
    assert trained.probabilities.shape == (len(validation), 3)
    score, _ = slide_scores(samples, validation, trained.probabilities, 3)
    assert score == trained.best.slide_macro_f1


def test_blocks_open_on_schedule_and_the_backbone_really_trains():
    part = coloured_squares()
    trained = run(*part, recipe(epochs=4, unfreeze_every=1))
    assert trained.history.open_blocks.tolist() == [0, 2, 4, 5]
    assert trained.history.trainable_parameters.is_monotonic_increasing
    torch.manual_seed(0)
    fresh = create_network("test_resnet", classes=3, size=16)
    assert trained.history.trainable_parameters.iloc[-1] == sum(p.numel() for p in fresh.parameters())
    start, end = fresh.state_dict(), trained.network.state_dict()
    groups = layer_groups(fresh)
    frozen = len(groups) - 1 - trained.best.open_blocks
    assert trained.best.open_blocks > 0
    for group in groups[frozen:]:
        assert any(not torch.equal(start[name], end[name]) for name in group)
    for name in (name for group in groups[:frozen] for name in group):
        assert torch.equal(start[name], end[name])


def test_with_the_head_alone_the_backbone_keeps_its_weights_and_statistics():
    trained = run(*coloured_squares(), recipe(unfreeze_every=100))
    torch.manual_seed(0)
    start = create_network("test_resnet", classes=3, size=16).state_dict()
    moved = {name for name, value in trained.network.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {"fc.weight", "fc.bias"}


def test_class_weights_by_hand():
    weights = class_weights(np.array([0, 0, 0, 1]), 3)
    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx([2 / 3, 2.0, 0.0])  # 4 patches, 2 classes with any; the third has none


@pytest.mark.parametrize("targets", [[0, 1, 2], [2, 2, 2, 0], [1]])
def test_class_weights_give_every_present_class_the_same_say_and_a_patch_the_mean_weight_one(targets):
    targets = np.array(targets)
    weights = class_weights(targets, 4)[targets]
    assert weights.mean() == pytest.approx(1)
    assert len({round(float(weights[targets == c].sum()), 5) for c in set(targets.tolist())}) == 1


def test_a_class_without_training_patches_does_not_break_the_training():
    samples, train, validation = coloured_squares()
    trained = run(samples, train[samples.targets[train] != 1], validation, RECIPE)
    assert np.isfinite(trained.history.train_loss).all()
    assert np.isfinite(trained.probabilities).all()


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_patience_epochs_without_a_better_one(patience):
    still = recipe(epochs=10, patience=patience, unfreeze_every=100, learning_rate=1e-30)
    trained = run(*coloured_squares(), still)
    assert trained.best.epoch == 0
    assert len(trained.history) == 1 + patience


def test_a_better_epoch_renews_the_patience():
    trained = run(*coloured_squares(), recipe(epochs=6, patience=2))
    since = trained.history.epoch.iloc[-1] - trained.best.epoch
    assert since == 2 or len(trained.history) == 6
    assert trained.best.epoch > 0


def test_a_network_that_says_the_same_for_every_slide_raises_the_alarm():
    samples, train, validation = coloured_squares()
    grey = Samples(np.full_like(samples.pixels, 128), samples.targets, samples.slide_ids, samples.areas)
    assert run(grey, train, validation, RECIPE).single_class


def test_what_on_epoch_raises_ends_the_training():
    class Pruned(Exception):
        pass

    calls = []

    def prune(epoch):
        calls.append(epoch.epoch)
        if epoch.epoch == 1:
            raise Pruned

    with pytest.raises(Pruned):
        run(*coloured_squares(), recipe(epochs=5), on_epoch=prune)
    assert calls == [0, 1]


@pytest.mark.parametrize("count", [9, 17])
def test_a_last_batch_of_one_patch_is_no_problem(count):
    samples, train, validation = coloured_squares()
    trained = run(samples, train[:count], validation, RECIPE)
    assert np.isfinite(trained.history.train_loss).all()
    assert (trained.history.train_loss > 0).all()


def test_a_training_part_smaller_than_a_batch_works():
    samples, train, validation = coloured_squares()
    trained = run(samples, train[:5], validation, recipe(batch_size=64))
    assert np.isfinite(trained.history.train_loss).all()


def test_pixels_in_parts_train_like_those_in_memory(tmp_path):
    samples, train, validation = coloured_squares()
    size, places = samples.pixels.shape[1], np.random.default_rng(0).permutation(len(samples.pixels))
    in_parts = []
    for number, rows in enumerate(np.array_split(np.argsort(places), 7)):
        part = Part(tmp_path / f"{number}.npy", (Piece("", 0, len(rows)),), size)
        part.path.write_bytes(header(len(rows), size) + samples.pixels[rows].tobytes())
        in_parts.append(part)
    streamed = replace(samples, pixels=JoinedPixels(in_parts, places, size))
    assert np.array_equal(streamed.pixels, samples.pixels)
    settings = recipe(augmentation=True, dropout=0.3, unfreeze_every=1)
    one, other = run(samples, train, validation, settings), run(streamed, train, validation, settings)
    assert curves(one).equals(curves(other))
    assert same_weights(one, other)
    assert np.array_equal(one.probabilities, other.probabilities)


def test_slide_scores_count_slides_not_patches():
    samples = Samples(np.zeros((5, 1, 1, 3), np.uint8), np.array([0, 0, 0, 1, 1]), np.array(list("aaabb")), np.ones(5))
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.2, 0.8], [0.6, 0.4]])
    score, predicted = slide_scores(samples, np.arange(5), probabilities, 2)
    assert predicted.tolist() == [0, 1]  # two of slide a's three patches say 1, its mean says 0
    assert score == 1.0


def test_a_moving_average_without_memory_is_the_network_itself():
    part = coloured_squares(size=32)
    settings = recipe(backbone="test_convnext", epochs=2)
    plain, same, slow = (run(*part, settings.model_copy(update={"ema": decay})) for decay in (0.0, 1e-12, 0.9))
    assert np.allclose(plain.probabilities, same.probabilities, atol=1e-6)
    assert not np.allclose(plain.probabilities, slow.probabilities, atol=1e-4)


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_patches_still_teach_an_easy_task(mixing):
    trained = run(*coloured_squares(24, size=32), recipe(epochs=8, batch_size=4, **mixing))
    assert trained.best.slide_macro_f1 == 1.0
    assert same_weights(trained, run(*coloured_squares(24, size=32), recipe(epochs=8, batch_size=4, **mixing)))


def test_an_empty_part_is_named():
    samples, train, validation = coloured_squares()
    for parts in ((train[:0], validation), (train, validation[:0])):
        with pytest.raises(ParameterError, match="contain no patches"):
            run(samples, *parts, RECIPE)


def test_every_step_is_reported():
    reports = []

    @contextmanager
    def progress(what, unit):
        yield lambda done, total: reports.append((what, unit, done, total))

    samples, train, validation = coloured_squares()
    run(samples, train, validation, RECIPE, progress=progress)
    steps = 2 * int(np.ceil(len(train) / RECIPE.batch_size))
    assert reports == [("training", "steps", done, steps) for done in range(steps + 1)]


def test_no_batch_however_steep_moves_the_network_by_more_than_a_clipped_gradient():
    """What AdamW and Lion remember of one wild batch would bend the steps of many that follow."""
    norms = []

    def measure(optimizer, *_):
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    hook = register_optimizer_step_pre_hook(measure)
    try:
        run(*coloured_squares(), recipe(learning_rate=0.3))
    finally:
        hook.remove()
    assert max(norms) == pytest.approx(1, abs=1e-4)
