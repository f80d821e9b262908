"""Losses of distance: average Hausdorff, Hausdorff from distance transforms (Karimi 2020) and its log, boundary.

Softmax probabilities p and one-hot reference g of the foreground classes, one by one; distances in the unit of
`spacing` (mm per axis, which the data give; without it, pixels), between voxel centres. Distance transforms are exact
and are computed by scipy, on the CPU, of the labels as augmented and, where stated, of the thresholded prediction. They
make these the slowest losses (see each), and on CUDA every step waits for them. No gradient flows through distances.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.checks import check_number
from lib.losses.similarity import mean_over_classes, probabilities_and_one_hot
from lib.registry import register

SMOOTH = 1e-5  # pixels; keeps the mean distance of an empty prediction finite


@register("average_hausdorff")
class AverageHausdorff(nn.Module):
    """Average Hausdorff distance, in its distance-transform form, as a share of the image diagonal:

        L = sum p D_g / sum p + sum g (1 - p) D_p / sum g,   D_S(x) = distance of x to the set S, 0 inside.

    D_p is that of p > 0.5. The mean is over images and the foreground classes in their reference; a class that an
    image lacks is left out there, since nothing has a distance to it. While p > 0.5 nowhere, D_p is the
    diagonal, so that the second term becomes the missed share. Lies in [0, 2).
    Known, from the drawing of Kim et al. (Sci Rep 2023): distances are taken over the two set differences, and the sum
    of both directions. Reconstruction: the soft form, which equals the average Hausdorff distance where p is 0 or 1,
    the division by the diagonal (sides times spacing, as in the metrics) and the rules for empty sets.
    Cost: two transforms per image and foreground class; on one core some 25 times cross-entropy.
    """

    def __init__(self, spacing: list[float] | None = None):
        super().__init__()
        self.spacing = spacing

    def forward(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        p, g = _foreground(logits, target)
        step = _step(self.spacing, p)
        diagonal = float(np.linalg.norm(np.multiply(p.shape[2:], step)))

        def distance(mask: np.ndarray) -> np.ndarray:
            if not mask.any():
                return np.full(mask.shape, diagonal)
            return ndimage.distance_transform_edt(~mask, sampling=step)

        to_reference, to_prediction = transform(g > 0, distance, p), transform(p > 0.5, distance, p)
        size = g.flatten(2).sum(2)
        false = (p * to_reference).flatten(2).sum(2) / (p.flatten(2).sum(2) + SMOOTH)
        missed = (g * (1 - p) * to_prediction).flatten(2).sum(2) / size.clamp(min=1)
        return mean_over_classes((false + missed) / diagonal, size, background=True, empty="skip")


@register("hausdorff_dt")
class HausdorffDT(nn.Module):
    """Hausdorff loss from distance transforms: the mean of (p - g)^2 (D_p^alpha + D_g^alpha) (Karimi & Salcudean 2020).

    D: distance to the border of a mask, from inside and outside, 0 where the mask is empty or everything, which has no
    border; D_p is that of p > 0.5. The mean is over images, foreground classes and pixels, so a class that an image
    lacks counts, through D_p. In (the unit of spacing)^alpha, not divided by the size of the image: choose its weight
    in a sum with that in mind.
    alpha: how much large errors dominate; 2 is the paper's choice. MONAI's HausdorffDTLoss is the same with spacing 1.
    Cost: four transforms per image and foreground class; on one core some 65 times cross-entropy.
    """

    def __init__(self, alpha: float = 2.0, spacing: list[float] | None = None):
        super().__init__()
        check_number("hausdorff_dt", "alpha", alpha, 0)
        self.alpha, self.spacing = alpha, spacing

    def forward(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        return hausdorff_dt(logits, target, self.alpha, self.spacing)


@register("log_hausdorff_dt")
class LogHausdorffDT(nn.Module):
    """log(1 + hausdorff_dt), which keeps large distances from drowning the other terms of a sum. The rest: as there."""

    def __init__(self, alpha: float = 2.0, spacing: list[float] | None = None):
        super().__init__()
        check_number("log_hausdorff_dt", "alpha", alpha, 0)
        self.alpha, self.spacing = alpha, spacing

    def forward(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        return torch.log1p(hausdorff_dt(logits, target, self.alpha, self.spacing))


@register("boundary")
class Boundary(nn.Module):
    """Boundary loss: the mean of phi (p - g), phi = distance to the border of g, negative inside (Kervadec 2019).

    The paper's is the mean of phi p; subtracting the constant phi g moves its minimum, reached at p = g, to 0 and
    changes no gradient. phi is 0 for a class that an image lacks or fills; the mean is over images, foreground classes
    and pixels, all of them. In the unit of spacing. The authors' code takes one pixel off the distances inside; this
    does not, so that pixels on either side of a border weigh the same.
    Alone it has the bad optimum of predicting nothing where objects are small: use it in a sum, as the paper does.
    Cost: two transforms per image and foreground class, all of the labels; on one core some 25 times cross-entropy.
    """

    def __init__(self, spacing: list[float] | None = None):
        super().__init__()
        self.spacing = spacing

    def forward(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        p, g = _foreground(logits, target)
        step = _step(self.spacing, p)

        def signed(mask: np.ndarray) -> np.ndarray:
            return border_distance(mask, step) * np.where(mask, -1, 1)

        return (transform(g > 0, signed, p) * (p - g)).mean()


def hausdorff_dt(logits: Tensor, target: Tensor, alpha: float, spacing: list[float] | None) -> Tensor:
    """The loss of that name."""
    p, g = _foreground(logits, target)
    step = _step(spacing, p)
    powers = [transform(mask, lambda m: border_distance(m, step) ** alpha, p) for mask in (p > 0.5, g > 0)]
    return ((p - g) ** 2 * (powers[0] + powers[1])).mean()


def border_distance(mask: np.ndarray, step: list[float]) -> np.ndarray:
    """Distance of each voxel to the nearest of the other kind; 0 where there is only one kind."""
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    inside, outside = (ndimage.distance_transform_edt(m, sampling=step) for m in (mask, ~mask))
    return inside + outside


def transform(masks: Tensor, function: Callable[[np.ndarray], np.ndarray], like: Tensor) -> Tensor:
    """`function` of every mask (*S) of masks (B, C, *S), on the device and of the type of `like`."""
    maps = np.stack([function(mask) for mask in masks.flatten(0, 1).cpu().numpy()])
    return torch.from_numpy(maps).to(like).view(masks.shape)


def _foreground(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    p, g = probabilities_and_one_hot(logits, target)
    return p[:, 1:], g[:, 1:]


def _step(spacing: list[float] | None, maps: Tensor) -> list[float]:
    dims = maps.dim() - 2
    if spacing is not None and len(spacing) != dims:
        raise BadInput(f"A loss of distance got spacing {spacing} for {dims}-D maps; give one number per spatial axis.")
    return [float(size) for size in spacing or [1.0] * dims]
