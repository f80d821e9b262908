"""What losses of single pixels share: a map of losses, and its mean over the pixels that count."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PixelLoss(nn.Module):
    """The mean over pixels of `pixel_map(logits (B, C, *S), target (B, *S), **batch)` (B, *S), float32 at least.

    A subclass writes `pixel_map` only, and may then stand in an envelope. `batch`: see `criterion`.
    """

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        return mean_over_valid(self.pixel_map(logits, target, valid=valid, **batch), valid)


def mean_over_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of a map over the pixels that count: all, or those of the mask; 0 where there are none."""
    if valid is None:
        return values.mean()
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)
