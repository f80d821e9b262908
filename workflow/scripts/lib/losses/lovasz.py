"""Lovász-softmax (Berman 2018): the tight convex extension of the Jaccard loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.losses.checks import check_choice
from lib.losses.similarity import OVER, mean_over_classes, probabilities_and_one_hot
from lib.registry import register


@register("lovasz")
class Lovasz(nn.Module):
    """Lovász-softmax: per class, sum_i e_(i) (J(i) - J(i - 1)) over the errors e = |g - p| in descending order.

    J(i) is the Jaccard loss when the i pixels of largest error are wrong. Absent classes are left out of the mean
    (the paper's `present`).
    background: whether class 0 counts. over: sort all pixels of the `batch` together (the authors' default), or of each
    `image`.
    The sort is stable and the sums count in integers, so results on CUDA are deterministic; pixels of equal error may
    swap, which changes neither the value nor what their gradients sum to. Cost: one sort per class, several times a
    cross-entropy.
    Cite: berman2018
    """

    def __init__(self, background: bool = True, over: str = "batch"):
        super().__init__()
        check_choice("lovasz", "over", over, OVER)
        self.background, self.over = background, over

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        p, g = (x.movedim(1, 0).flatten(2) for x in probabilities_and_one_hot(logits, target, valid))  # (C, B, pixels)
        if self.over == "batch":
            p, g = p.flatten(1).unsqueeze(1), g.flatten(1).unsqueeze(1)
        errors = (g - p).abs()
        loss = (errors * jaccard_steps(errors.detach(), g > 0)).sum(2)
        return mean_over_classes(loss.T, g.sum(2).T, self.background, "skip")


def jaccard_steps(errors: Tensor, mask: Tensor) -> Tensor:
    """What each pixel adds to the Jaccard loss when pixels become wrong in descending order of error: (…, N).

    errors: at least 0; mask: bool.
    A pixel of the mask takes 1 from the intersection: 1/U; another adds 1 to the union: I/(U - 1) - I/U. In this form
    no digits cancel, unlike in differences of the Jaccard loss itself. Zero where the mask is empty.
    """
    # Floats that are not negative sort as their bits do, and integers sort twice as fast.
    keys = errors.view(torch.int32) if errors.dtype == torch.float32 else errors
    order = keys.argsort(dim=-1, descending=True, stable=True)
    inside = mask.gather(-1, order)
    found = inside.cumsum(-1, dtype=torch.int64)
    size = found[..., -1:]
    rank = torch.arange(1, errors.shape[-1] + 1, device=errors.device)
    intersection = (size - found).to(errors.dtype)
    union = (size + rank - found).to(errors.dtype)
    steps = torch.where(inside, 1 / union.clamp(min=1), intersection / (union * (union - 1).clamp(min=1)))
    return torch.zeros_like(errors).scatter_(-1, order, steps)
