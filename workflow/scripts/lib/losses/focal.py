"""Focal loss (Lin 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.losses.checks import check_number
from lib.losses.cross_entropy import cross_entropy_map
from lib.losses.pixel import PixelLoss
from lib.registry import register


@register("focal")
class Focal(PixelLoss):
    """Focal loss: the mean over pixels of (1 - p)^gamma CE, p = softmax probability of the true class.

    gamma: how much easy pixels are discounted; 0 is cross-entropy, 2 the paper's choice. Its class weight alpha is left
    out. Libraries that average over channels as well report this divided by the number of classes.
    Cite: lin2017
    """

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        check_number("focal", "gamma", gamma, 0)
        self.gamma = gamma

    def pixel_map(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        loss = cross_entropy_map(logits, target)
        if self.gamma == 0:
            return loss
        doubt = -torch.expm1(-loss)  # 1 - p, exact where p is near 1
        # A power below 1 has an infinite slope at 0; the clamp's is 0.
        return doubt.clamp(min=torch.finfo(loss.dtype).tiny) ** self.gamma * loss
