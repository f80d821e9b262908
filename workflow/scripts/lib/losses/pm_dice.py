"""Pixel-wise modulated Dice (Hosseini, arXiv 2506.15744)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.checks import check_number
from lib.losses.similarity import check_overlap, mean_over_classes, pixel_sums, probabilities_and_one_hot
from lib.registry import register


@register("pm_dice")
class PMDice(nn.Module):
    """Squared Dice in which easy pixels count less: m = |g - stopgrad(p)|^gamma per pixel and class,

        loss = 1 - mean_c (2 sum m g p + smooth) / (sum m (g^2 + p^2) + smooth).

    gamma: one number, or a list of one per class, background first; 0 is squared Dice.
    background, over, empty: see the family of similarity losses; smooth: the paper's epsilon, in weighted pixels.
    No gradient flows through m, so that finite differences of the loss do not equal its gradient where gamma > 0.
    Known, from a page that quotes the paper: the formula and that gamma may differ between classes. Reconstruction: the
    default gamma, that the background counts (the formula's mean runs over all C classes), that sums run over the
    batch, and that absent classes are skipped: the formula alone gives them about 1 once anything is predicted.
    Cite: hosseini2025
    """

    def __init__(
        self,
        gamma: float | list[float] = 1.0,
        background: bool = True,
        over: str = "batch",
        smooth: float = 1e-5,
        empty: str = "skip",
        classes: int | None = None,
    ):
        super().__init__()
        check_overlap("pm_dice", over, empty, smooth)
        for value in gamma if isinstance(gamma, list | tuple) else [gamma]:
            check_number("pm_dice", "gamma", value, 0)
        self.register_buffer("gammas", None, persistent=False)
        if isinstance(gamma, list | tuple):
            if classes is not None and len(gamma) != classes:
                raise BadInput(
                    f"The loss 'pm_dice' has {len(gamma)} values of gamma for {classes} classes: {gamma}. "
                    f"Give {classes}, the background first, or one number."
                )
            self.gammas = torch.tensor([float(value) for value in gamma])
        self.gamma = gamma
        self.background, self.over, self.smooth, self.empty = background, over, smooth, empty

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        p, g = probabilities_and_one_hot(logits, target, valid)
        error = g - p
        # A plain number has a fast power.
        gamma = self.gamma if self.gammas is None else self.gammas.to(p).view(1, -1, *[1] * (p.dim() - 2))
        m = error.detach().abs() ** gamma
        wrong = pixel_sums(m * error**2, self.over)  # = sum m (g^2 + p^2) - 2 sum m g p
        total = pixel_sums(m * (g + p * p), self.over)
        loss = wrong / (total + self.smooth)
        return mean_over_classes(loss, pixel_sums(g, self.over), self.background, self.empty)
