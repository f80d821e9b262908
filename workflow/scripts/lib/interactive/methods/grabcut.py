"""GrabCut: graph cuts in turn with Gaussian mixtures of the colours inside and outside."""

from __future__ import annotations

import numpy as np

from lib.interactive import BACKGROUND, FOREGROUND, Crop
from lib.interactive.graph_cut import minimum_cut
from lib.interactive.instances import standardised
from lib.interactive.seeded import border_of, edges_in_space
from lib.registry import register

FITTED = 20_000  # voxels of each side, at most, that a mixture is fitted to


@register("grabcut")
class GrabCut:
    """GrabCut from a box: its border is background, what is inside may be either, scribbles are certain.

    In 2D with 1 or 3 channels OpenCV's, on 8 bits between the 1st and 99th percentile of each channel; it has 5
    Gaussians on both sides and gamma 50. Otherwise own code, for any number of channels, in 3D, and where gamma or the
    Gaussians are not the defaults: Gaussian mixtures by EM (scikit-learn) where the paper assigns each pixel to one
    component, and exact cuts over the 8 or 6 nearest neighbours. The first call starts from the box, later ones from
    the last answer, as users edit in the paper.

    iterations: of mixtures and cut. gamma: weight of the smoothness (paper: 50). foreground, background: Gaussians of
    the mixtures of the own code (BIFSeg's comparison: 3 and 5, as recalled).
    Cite: rother2004
    """

    needs_seeds = False

    def __init__(self, iterations: int = 5, gamma: float = 50.0, foreground: int = 3, background: int = 5):
        self.iterations, self.gamma, self.components = iterations, gamma, (background, foreground)

    def begin(self, crop: Crop) -> None:
        self.image, self.spacing = crop.image, crop.spacing
        self.edges, self.last = None, None

    def segment(self, scribbles: np.ndarray) -> np.ndarray:
        known = scribbles.copy()
        known[border_of(known.shape) & (known == 0)] = BACKGROUND
        if not (known == BACKGROUND).any() or (known == BACKGROUND).all():
            return known != BACKGROUND
        inside = known != BACKGROUND if self.last is None else np.where(known > 0, known == FOREGROUND, self.last)
        defaults = (self.gamma, *self.components) == (50, 5, 3)
        in_opencv = defaults and scribbles.ndim == 2 and len(self.image) in (1, 3)
        self.last = (self._opencv if in_opencv else self.mixtures_and_cuts)(known, inside)
        return self.last

    def _opencv(self, known: np.ndarray, inside: np.ndarray) -> np.ndarray:
        import cv2

        probable = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
        mask = np.select([known == FOREGROUND, known == BACKGROUND], [cv2.GC_FGD, cv2.GC_BGD], probable)
        mask, models = mask.astype(np.uint8), np.zeros((2, 1, 65))
        cv2.setRNGSeed(0)  # its k-means draws
        cv2.grabCut(_eight_bits(self.image), mask, None, *models, self.iterations, cv2.GC_INIT_WITH_MASK)
        return (mask & 1).astype(bool)  # GC_FGD and GC_PR_FGD are odd

    def mixtures_and_cuts(self, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The own code: known (*S) uint8 as scribbles, 0 where unknown, and labels (*S) to start from -> bool (*S)."""
        image = standardised(self.image)
        colours = image.reshape(len(image), -1).T.astype(np.float64)
        if self.edges is None:
            self.edges = edges_in_space(image, self.spacing)
        contrast = np.sqrt(np.square(self.edges.difference).mean()) or 1.0  # β = 1 / 2⟨‖ΔX‖²⟩
        weights = self.gamma * self.edges.weights(contrast)
        mixtures: list = [None, None]
        for _ in range(self.iterations):
            sides = [colours[labels.ravel() == side] for side in (False, True)]
            if not all(len(side) for side in sides):
                break
            mixtures = [_fitted(*of_side) for of_side in zip(mixtures, sides, self.components, strict=True)]
            unary = np.stack([-mixture.score_samples(colours).reshape(labels.shape) for mixture in mixtures])
            before, labels = labels, minimum_cut(unary, self.edges, weights, known)
            if (before == labels).all():
                break
        return labels


def _fitted(mixture, colours: np.ndarray, components: int):
    """A mixture fitted by EM, from the last one where it has as many components."""
    from sklearn.mixture import GaussianMixture

    colours = colours[:: len(colours) // FITTED + 1]
    components = min(components, len(np.unique(colours, axis=0)))
    # The covariance of a flat region may not shrink to a point; the image has deviation 1.
    settings = {"reg_covar": 1e-3, "random_state": 0, "max_iter": 20, "tol": 1e-2}
    if mixture is not None and mixture.n_components == components:
        settings |= {
            "weights_init": mixture.weights_ / mixture.weights_.sum(),
            "means_init": mixture.means_,
            "precisions_init": mixture.precisions_,
        }
    return GaussianMixture(components, **settings).fit(np.repeat(colours, 2, axis=0) if len(colours) < 2 else colours)


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """(Y, X, 3) uint8 of an image (1 or 3, Y, X)."""
    low, high = np.percentile(image, [1, 99], axis=(1, 2), keepdims=True)
    scaled = np.clip((image - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1)
    colours = np.broadcast_to(np.rint(255 * scaled).astype(np.uint8), (3, *image.shape[1:]))
    return np.ascontiguousarray(np.moveaxis(colours, 0, -1))
