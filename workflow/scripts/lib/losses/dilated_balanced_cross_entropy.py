"""Dilated balanced cross-entropy (Hosseini & Soleymani Baghshah, arXiv 2412.06045, BMC Med Imaging 2026)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.cross_entropy import cross_entropy_map
from lib.registry import did_you_mean, register

COMBINE = ("sum", "max")
FREQUENCY = ("image", "batch")


@register("dilated_balanced_cross_entropy")
class DilatedBalancedCrossEntropy(nn.Module):
    """Cross-entropy whose balancing weights go to each class together with its surroundings.

    With M_c the pixels of class c, D_c = M_c dilated by a disk (ball in 3-D) of the radius, N pixels and C
    classes present:  w_c = N / (C |D_c|),  W(p) = sum (or max) of w_c over the c with p in D_c,  loss =
    mean_p W(p) CE(p).

    radius: in pixels of the training resolution, the same along every axis whatever the spacing; an offset
    belongs to the disk where its Euclidean length is at most the radius. 0 is exactly balanced cross-entropy.
    combine: `sum` has mean weight 1 for every radius, and tends to plain cross-entropy as the radius grows;
    `max` has a mean weight that shrinks towards 1/C, so that the effective learning rate drifts with the
    radius.
    frequency: count |D_c|, N and C in each `image` or over the whole `batch`. Absent classes are left out.
    Parameters: none. No gradient flows through the weights.
    Known, from abstract and reviews: weights per class on its dilated mask, with a disk of variable radius;
    balanced CE as the special case. Reconstruction: the combination rule, per-image counting, and the default
    radius.
    """

    def __init__(self, radius: float = 5, combine: str = "sum", frequency: str = "image"):
        super().__init__()
        name = "dilated_balanced_cross_entropy"
        if not isinstance(radius, int | float) or isinstance(radius, bool) or not radius >= 0:
            raise BadInput(f"The loss '{name}' needs a radius of at least 0 pixels, not {radius!r}.")
        for key, value, known in (("combine", combine, COMBINE), ("frequency", frequency, FREQUENCY)):
            if value not in known:
                raise BadInput(f"The loss '{name}' has no {key} '{value}'.{did_you_mean(str(value), known)}")
        self.radius, self.combine, self.frequency = radius, combine, frequency

    def forward(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        loss = cross_entropy_map(logits, target)
        weights = dilated_balanced_weights(target, logits.shape[1], self.radius, self.combine, self.frequency)
        return (weights.to(loss.dtype) * loss).mean()


def dilated_balanced_weights(
    target: Tensor, classes: int, radius: float, combine: str = "sum", frequency: str = "image"
) -> Tensor:
    """The weight map W (B, *S), float32, of a target (B, *S) int64 with values in [0, classes)."""
    if classes > 63:
        raise BadInput(f"The loss 'dilated_balanced_cross_entropy' takes at most 63 classes, not {classes}.")
    # Bit c of a pixel: it belongs to class c. One map of small integers then carries all masks through the
    # dilation.
    width = torch.uint8 if classes <= 8 else torch.int32 if classes <= 31 else torch.int64
    flags = torch.tensor([1 << c for c in range(classes)], dtype=width, device=target.device)
    dilated = dilate(flags[target], radius)

    per_class = (1, classes, *[1] * (target.dim() - 1))
    member = (dilated.unsqueeze(1) & flags.view(per_class)) != 0  # (B, C, *S)
    area = member.flatten(2).sum(2, dtype=torch.int32)  # (B, C); ten times faster than int64 on CPUs
    pixels = target[0].numel()
    if frequency == "batch":
        area, pixels = area.sum(0, keepdim=True), target.numel()
    present = (area > 0).sum(1, keepdim=True)
    weight = torch.where(area > 0, pixels / (present * area.clamp(min=1)), 0.0)
    weighted = member * weight.view(-1, *per_class[1:])
    return weighted.sum(1) if combine == "sum" else weighted.amax(1)


def dilate(masks: Tensor, radius: float) -> Tensor:
    """Dilate bit masks (B, *S), an integer type, by the disk or ball of all offsets of length at most
    `radius`.

    Exact, for every bit at once: the union of shifted copies, one per row of the ball, of masks dilated along
    the last axis by the length of that row. Returns a tensor of the same shape and type.
    """
    farthest = sum((n - 1) ** 2 for n in masks.shape[1:])
    squared = int(min(radius**2, farthest))

    rows = [masks]  # rows[k]: dilated by k along the last axis
    for step in range(1, min(math.isqrt(squared), masks.shape[-1] - 1) + 1):
        row = rows[-1].clone()
        _unite_shifted(row, masks, -1, step)
        rows.append(row)

    def union(axis: int, squared: int) -> Tensor:
        if axis == masks.dim() - 1:
            return rows[min(math.isqrt(squared), len(rows) - 1)]
        result = union(axis + 1, squared).clone()
        for step in range(1, min(math.isqrt(squared), masks.shape[axis] - 1) + 1):
            _unite_shifted(result, union(axis + 1, squared - step * step), axis, step)
        return result

    return union(1, squared)


def _unite_shifted(result: Tensor, masks: Tensor, axis: int, step: int) -> None:
    """result |= masks moved by +step and by -step along the axis, in place."""
    kept = masks.shape[axis] - step
    result.narrow(axis, step, kept).bitwise_or_(masks.narrow(axis, 0, kept))
    result.narrow(axis, 0, kept).bitwise_or_(masks.narrow(axis, step, kept))
