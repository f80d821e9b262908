"""The random walker: the label whose scribbles a walker from a pixel reaches first, most often."""

from __future__ import annotations

import warnings

import numpy as np

from lib.interactive import FOREGROUND
from lib.interactive.seeded import Seeded
from lib.registry import register


@register("random_walker")
class RandomWalker(Seeded):
    """Random walks with edge weights exp(-beta · ΔX²), as scikit-image scales them.

    As in the paper, neighbours are neighbours however far apart; scikit-image's `spacing` takes ΔX per unit of length,
    which binds thick slices to each other all the more.

    beta: how much a walker avoids edges; 130 is scikit-image's default, the paper's depends on the image. Solved
    exactly in 2D and by conjugate gradients with multigrid (pyamg) in 3D, to a tolerance of 1e-4.
    Cite: grady2006
    """

    def __init__(self, beta: float = 130.0):
        self.beta = beta

    def grow(self, scribbles: np.ndarray) -> np.ndarray:
        from skimage.segmentation import random_walker

        if not (scribbles == 0).any():
            return scribbles == FOREGROUND
        image, beta = np.moveaxis(self.image, 0, -1).astype(np.float64), self.beta
        if not image.any():  # constant; scikit-image divides by the spread
            image, beta = np.arange(image.size, dtype=float).reshape(image.shape), 0.0
        with warnings.catch_warnings():
            # Conjugate gradients that stop short decide only where both labels are about as likely.
            warnings.filterwarnings("ignore", message="The probability range|Conjugate gradient")
            labels = random_walker(
                image,
                scribbles.astype(np.int32),
                beta=beta,
                mode="bf" if scribbles.ndim == 2 else "cg_mg",
                tol=1e-4,
                channel_axis=-1,
            )
        return labels == FOREGROUND
