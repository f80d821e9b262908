"""The loss of a training: weighted terms, over levels of deep supervision and regions, without ignored pixels.

What every loss gets from here, so that none needs to know of it: logits (B, C, *S) of one level, a target (B, *S)
int64 in [0, C), and by keyword
valid: (B, *S) bool, False at ignored pixels, whose target is 0; None where there are none.
spacing: (B, d) float64 on the CPU, mm per axis of this level; None where it is not known.
share: the part of the training's iterations that is over.
An auxiliary term gets none of these; its method `auxiliary(image, features)` is called once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lib.data.store import IGNORE
from lib.errors import BadInput
from lib.losses.checks import at_share


class Criterion(nn.Module):
    """loss(logits, target, …) -> scalar. Built by `build_loss`; called as `forward` says."""

    def __init__(
        self,
        weights: list[list[float | dict]],
        losses: list[list[nn.Module]],
        regions: list[list[int]] | None,
        classes: int | None,
        spacing: list[float] | None,
    ):
        super().__init__()
        self.weights = weights
        self.terms = nn.ModuleList(nn.ModuleList(each) for each in losses)  # one per region, or one
        self.spacing = spacing
        members = None
        if regions is not None:
            count = max(classes or 0, *(max(region) + 1 for region in regions))
            members = torch.tensor([[int(c in region) for c in range(count)] for region in regions])
        self.register_buffer("members", members, persistent=False)  # (R, classes)

    def forward(
        self,
        logits: Tensor | list[Tensor],
        target: Tensor,
        *,
        spacing: Tensor | None = None,
        iteration: int | None = None,
        iterations: int | None = None,
        ignored: bool | None = None,
        image: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """The loss of one batch.

        logits: (B, C, *S) of any float type, or a list of such for deep supervision, finest first: level i weighs 2^-i
        (normalised), against the target at its size, by nearest neighbour. With regions C is their number.
        target: (B, *S) int64 of classes, IGNORE where a pixel shall not count. Any other value outside [0, classes)
        raises (on CUDA: asserts). ignored: whether there are such pixels; None looks, for which a GPU must wait.
        spacing: (B, d) mm, on the CPU. iteration of iterations: for ramps; without them, these are at their end.
        image (B, channels, *S) and features (B, channels, *s): for auxiliary terms.
        """
        share = 1.0 if iteration is None else iteration / iterations
        levels = [
            (part, list(self._problems(z, y)), {"valid": valid, "spacing": step, "share": share})
            for part, z, y, valid, step in self._levels(logits, target, spacing, ignored)
        ]
        total = 0.0
        for weights, losses in zip(self.weights, self.terms, strict=True):
            weight = math.prod(at_share(w, share) for w in weights)
            if hasattr(losses[0], "auxiliary"):
                if image is None or features is None:
                    raise BadInput("a term of the loss needs the image and the features of the network, and got none.")
                total = total + weight * losses[0].auxiliary(image, features)
                continue
            for part, problems, batch in levels:
                values = [loss(z, y, **batch) for loss, (z, y) in zip(losses, problems, strict=True)]
                total = total + weight * part / len(values) * sum(values)
        return total

    def _levels(
        self, logits: Tensor | list[Tensor], target: Tensor, spacing: Tensor | None, ignored: bool | None
    ) -> Iterator[tuple[float, Tensor, Tensor, Tensor | None, Tensor | None]]:
        """(weight, logits, target, valid, spacing) of each level of deep supervision."""
        if spacing is None and self.spacing is not None:
            spacing = torch.tensor([self.spacing] * len(target), dtype=torch.float64)
        dims = target.dim() - 1
        if spacing is not None and spacing.shape[1] != dims:
            raise BadInput(
                f"A loss got spacing {spacing[0].tolist()} for {dims}-D maps; give one number per spatial axis."
            )
        if ignored is None:
            ignored = bool((target == IGNORE).any())

        outputs = [logits] if isinstance(logits, Tensor) else logits
        total = sum(0.5**level for level in range(len(outputs)))
        for level, output in enumerate(outputs):
            y, size = nearest(target, output.shape[2:]), torch.tensor(output.shape[2:])
            step = None if spacing is None else spacing * torch.tensor(target.shape[1:]) / size
            valid = None
            if ignored:
                valid = y != IGNORE
                y = y.masked_fill(~valid, 0)
            yield 0.5**level / total, output, y, valid, step

    def _problems(self, logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(logits, target) as they are, or of two classes for each region."""
        if self.members is None:
            yield logits, target
            return
        if logits.shape[1] != len(self.members):
            raise BadInput(f"The network has {logits.shape[1]} outputs for {len(self.members)} regions.")
        for z, inside in zip(logits.unbind(1), self.members.to(target.device), strict=True):
            yield torch.stack([torch.zeros_like(z), z], 1), inside.index_select(0, target.flatten()).view_as(target)


def nearest(target: Tensor, size: tuple[int, ...]) -> Tensor:
    """A target (B, *S) at another size, each pixel that whose centre is nearest."""
    for axis, n in enumerate(size, start=1):
        before = target.shape[axis]
        if n != before:
            index = (torch.arange(n, device=target.device) * 2 + 1) * before // (2 * n)
            target = target.index_select(axis, index)
    return target


def labels_of_region(
    labels: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], members: list[int]
) -> Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]:
    """The same training labels as those of one region: 1 inside, 0 outside, IGNORE as it was."""
    return lambda: (
        (np.where(label == IGNORE, IGNORE, np.isin(label, members)).astype(np.uint8), spacing)
        for label, spacing in labels()
    )
