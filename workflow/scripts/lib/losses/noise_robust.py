"""Losses made for wrong labels: generalised cross-entropy, symmetric cross-entropy, noise-robust Dice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.checks import check_number
from lib.losses.cross_entropy import cross_entropy_map
from lib.losses.pixel import PixelLoss
from lib.losses.similarity import check_overlap, mean_over_classes, pixel_sums, probabilities_and_one_hot
from lib.registry import register


@register("generalised_cross_entropy")
class GeneralisedCrossEntropy(PixelLoss):
    """Generalised cross-entropy: the mean over pixels of (1 - p^q) / q, p = probability of the label (Zhang 2018).

    q: 1 is half the mean absolute error, bounded and robust; towards 0 it becomes cross-entropy; 0.7 is the paper's
    choice. The paper's truncated variant is left out.
    Cite: zhang2018
    """

    def __init__(self, q: float = 0.7):
        super().__init__()
        check_number("generalised_cross_entropy", "q", q, 0, 1)
        if q == 0:
            raise BadInput("The loss 'generalised_cross_entropy' with q: 0 is cross-entropy; name that, or give q > 0.")
        self.q = q

    def pixel_map(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        return -torch.expm1(-self.q * cross_entropy_map(logits, target)) / self.q


@register("symmetric_cross_entropy")
class SymmetricCrossEntropy(PixelLoss):
    """Symmetric cross-entropy: alpha CE + beta RCE, RCE = -sum_c p_c log g_c with log 0 := log_zero (Wang 2019).

    With one label per pixel RCE is -log_zero (1 - p), p = probability of the label: CE that learns, MAE that resists.
    Known: the formula. Recalled: the defaults, the paper's for its easier data set with log_zero = -4. The authors'
    code clamps g at 1e-4 instead, which is log_zero: -9.21.
    Cite: wang2019
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0):
        super().__init__()
        check_number("symmetric_cross_entropy", "alpha", alpha, 0)
        check_number("symmetric_cross_entropy", "beta", beta, 0)
        check_number("symmetric_cross_entropy", "log_zero", log_zero, -1000, 0)
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def pixel_map(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        loss = cross_entropy_map(logits, target)
        return self.alpha * loss + self.beta * self.log_zero * torch.expm1(-loss)


@register("nr_dice")
class NoiseRobustDice(nn.Module):
    """Noise-robust Dice: mean over classes of sum |p - g|^gamma / (sum p^2 + sum g^2 + smooth) (Wang 2020, COPLE-Net).

    gamma: 2 is squared Dice, 1 the mean absolute error over the soft sizes; between them wrong labels weigh less.
    Default: the paper's 1.5. background, over, empty: see the family of similarity losses; smooth: added below only.
    The paper is binary; the mean over classes, and that the background does not count, are ours.
    Cite: wang2020covid
    """

    def __init__(
        self,
        gamma: float = 1.5,
        background: bool = False,
        over: str = "batch",
        smooth: float = 1e-5,
        empty: str = "skip",
    ):
        super().__init__()
        check_overlap("nr_dice", over, empty, smooth)
        check_number("nr_dice", "gamma", gamma, 1, 2)
        self.gamma, self.background, self.over, self.smooth, self.empty = gamma, background, over, smooth, empty

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        p, g = probabilities_and_one_hot(logits, target, valid)
        wrong = pixel_sums((p - g).abs() ** self.gamma, self.over)
        reference = pixel_sums(g, self.over)
        loss = wrong / (pixel_sums(p * p, self.over) + reference + self.smooth)
        return mean_over_classes(loss, reference, self.background, self.empty)
