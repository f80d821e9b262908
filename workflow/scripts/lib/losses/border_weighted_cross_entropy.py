"""Cross-entropy with the weight map of U-Net, which presses on the gaps between neighbouring objects."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from lib.losses.checks import check_number
from lib.losses.cross_entropy import cross_entropy_map
from lib.losses.pixel import PixelLoss
from lib.registry import register


@register("border_weighted_cross_entropy")
class BorderWeightedCrossEntropy(PixelLoss):
    """The mean over pixels of w CE,  w = 1 + w0 exp(-(d1 + d2)^2 / (2 sigma^2))  (Ronneberger 2015).

    d1, d2: distance of the pixel to the nearest and the second nearest object, 0 inside it, in pixels of the training
    resolution, the same along every axis whatever the spacing. sigma is in those pixels.
    Known: the formula, w0 = 10 and sigma = 5. The paper segments cells, and adds w_c, "to balance class frequencies",
    by a rule that it does not give. Reconstruction: for semantic labels an object is a connected component (neighbours
    across corners count) of one foreground class, so that where classes touch, pixels on both sides weigh most;
    w_c = 1; the mean divides by the number of pixels, not by the sum of weights. An image with fewer than two objects
    has w = 1 and plain cross-entropy. Ignored pixels belong to no object; distances pass through them.
    Distances are computed by scipy on the CPU from the labels as augmented, and on CUDA each step waits for them: one
    exact distance transform per object, within 6.5 sigma of it (beyond, the term is below 1e-8 w0). Cost: about one
    such transform per object and step, and so large for labels torn into many pieces.
    Cite: ronneberger2015
    """

    def __init__(self, w0: float = 10.0, sigma: float = 5.0):
        super().__init__()
        check_number("border_weighted_cross_entropy", "w0", w0, 0)
        check_number("border_weighted_cross_entropy", "sigma", sigma, 0.1)
        self.w0, self.sigma = w0, sigma

    def pixel_map(self, logits: Tensor, target: Tensor, **batch) -> Tensor:
        loss = cross_entropy_map(logits, target)
        weights = np.stack([border_weights(labels, self.w0, self.sigma) for labels in target.cpu().numpy()])
        return torch.from_numpy(weights).to(loss) * loss


def border_weights(labels: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """The weight map (*S) of a label map (*S); class 0 is the background."""
    reach = int(np.ceil(6.5 * sigma))
    nearest, second = np.full(labels.shape, np.inf), np.full(labels.shape, np.inf)
    for c in np.unique(labels[labels > 0]):
        components, _ = ndimage.label(labels == c, np.ones([3] * labels.ndim))
        for i, box in enumerate(ndimage.find_objects(components), 1):
            near = tuple(slice(max(0, axis.start - reach), axis.stop + reach) for axis in box)
            distance = ndimage.distance_transform_edt(components[near] != i)
            second[near] = np.minimum(second[near], np.maximum(nearest[near], distance))
            nearest[near] = np.minimum(nearest[near], distance)
    return 1 + w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
