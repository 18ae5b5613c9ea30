"""MixUp and CutMix of a batch, and weighted, label-smoothed cross-entropy for mixed targets."""

import numpy as np
import torch
import torch.nn.functional as F


# Not timm.data.Mixup: it uses numpy's global random state, needs an even batch size and always pairs first with last.
def mix(
    batch: torch.Tensor, targets: torch.Tensor, classes: int, *, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixes each patch with another of the batch, all with the same share; if both are on, one is chosen at random.

    MixUp (Zhang et al. 2018) gives share * patch + (1 - share) * other. CutMix (Yun et al. 2019) pastes a box of the other
    patch in the same place; the share is then the part of the patch outside the box.

    Args:
        batch: (patches, 3, size, size), not modified.
        targets: (patches,) class indices.
        classes: number of classes.
        mixup: alpha; the share is drawn from Beta(alpha, alpha). 0 is off.
        cutmix: the same for CutMix.
        generator: on the CPU, so that the draws are the same on every device; not used when both are off.

    Returns:
        The mixed batch and its soft targets (patches, classes), rows summing to 1; the batch itself when both are off.
    """
    soft = F.one_hot(targets, classes).float()
    if not (mixup or cutmix):
        return batch, soft
    draw = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    other = torch.from_numpy(draw.permutation(len(batch))).to(batch.device)
    cut = cutmix > 0 and (mixup == 0 or draw.random() < 0.5)
    share = draw.beta(cutmix, cutmix) if cut else draw.beta(mixup, mixup)
    if cut:
        rows, columns = _box(batch.shape[2], batch.shape[3], 1 - share, draw)
        mixed = batch.clone()
        box = mixed[:, :, rows, columns]
        box.copy_(batch[other, :, rows, columns])
        share = 1 - box[0, 0].numel() / batch[0, 0].numel()
    else:
        mixed = torch.lerp(batch[other], batch, share)
    return mixed, torch.lerp(soft[other], soft, share)


def _box(height: int, width: int, area: float, draw: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box with that share of the area, at a random position, clipped at the edges."""

    def side(length: int) -> slice:
        half, centre = length * area**0.5 / 2, draw.uniform(0, length)
        return slice(max(0, round(centre - half)), min(length, round(centre + half)))

    return side(height), side(width)


def weighted_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the losses and the sum of the weights; their quotient is `F.cross_entropy`'s weighted mean.

    Several processes add up both before dividing. The weight of a mixed patch is the mean of its classes' weights by
    share; PyTorch's own mean would divide by the number of patches in that case.

    Args:
        logits: (patches, classes).
        targets: (patches,) class indices, or (patches, classes) shares summing to 1.
        weights: (classes,).
        label_smoothing: as in `F.cross_entropy`.
    """
    losses = F.cross_entropy(logits, targets, weight=weights, label_smoothing=label_smoothing, reduction="sum")
    shares = targets @ weights if targets.is_floating_point() else weights[targets]
    return losses, shares.sum()
