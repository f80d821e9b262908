"""Exact minimisation of a binary energy on a grid, by an s-t minimum cut: the label step of BIFSeg.

Source: Wang et al., BIFSeg, IEEE TMI 37(7) 2018, Eq. 5 and 7 (as other public code cites them); Boykov & Jolly 2001.

    E(y) = Σ_i U_i(y_i) + λ Σ_{i<j neighbours} [y_i ≠ y_j] · exp(-‖X_i - X_j‖² / 2σ²) / d_ij

The pairwise term is not negative, so the energy is submodular and its minimum is a minimum cut (`lib.graph_cut`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib import graph_cut
from lib.errors import BadInput
from lib.interactive import BACKGROUND, FOREGROUND

NEIGHBOURHOODS = {2: (4, 8), 3: (6, 26)}


@dataclass(frozen=True)
class Edges:
    """Pairs of neighbouring pixels: first, second (E,) int64, flat indices; difference (E,): root mean square over
    channels of their difference in intensity; distance (E,): of their centres, in pixels."""

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    distance: np.ndarray

    def weights(self, sigma: float) -> np.ndarray:
        """exp(-difference² / 2σ²) / distance, float64 (E,)."""
        return np.exp(-0.5 * (self.difference / sigma) ** 2) / self.distance


def edges_of(image: np.ndarray, neighbourhood: int) -> Edges:
    """Every pair of neighbours of an image (C, *S), once. neighbourhood: 4 or 8 in 2D, 6 or 26 in 3D.

    The difference of several channels is the root of the mean of squares, so that σ means the same for any number of
    them (the paper has one). Raises BadInput for another neighbourhood.
    """
    shape, dims = image.shape[1:], image.ndim - 1
    if neighbourhood not in NEIGHBOURHOODS[dims]:
        raise BadInput(f"neighbourhood: {neighbourhood} must be one of {NEIGHBOURHOODS[dims]} in {dims}D.")
    number = np.arange(image[0].size).reshape(shape)
    first, second, distance = graph_cut.neighbours(number, (1,) * dims, diagonal=neighbourhood > 2 * dims)
    values = image.reshape(len(image), -1).astype(np.float64)
    difference = np.sqrt(np.square(values[:, first] - values[:, second]).mean(axis=0))
    return Edges(first, second, difference, distance)


def energy(
    labels: np.ndarray, unary: np.ndarray, edges: Edges, weights: np.ndarray, scribbles: np.ndarray | None = None
) -> float:
    """E of `labels` (*S) bool: unary (2, *S) of background and foreground, weights (E,) = λ times those of `edges`.

    Infinite where a label contradicts `scribbles` (*S); at scribbled pixels the unary term is 0 (Eq. 7).
    """
    labels = np.asarray(labels, bool)
    own = np.where(labels, unary[1], unary[0])
    if scribbles is not None:
        if (labels[scribbles != 0] != (scribbles[scribbles != 0] == FOREGROUND)).any():
            return np.inf
        own = np.where(scribbles != 0, 0, own)
    flat = labels.ravel()
    return float(own.sum() + weights[flat[edges.first] != flat[edges.second]].sum())


def minimum_cut(
    unary: np.ndarray, edges: Edges, weights: np.ndarray, scribbles: np.ndarray | None = None
) -> np.ndarray:
    """The labels (*S) bool of least energy; of several such, the one with the smallest foreground.

    Arguments as of `energy`; unary and weights finite, weights not negative. Scribbled pixels keep their label: their
    unary term exceeds all their edges together, which does what an infinite one would.
    """
    cost = (unary[1].astype(np.float64) - unary[0]).ravel()  # of foreground instead of background
    if scribbles is not None:
        incident = np.bincount(edges.first, weights, cost.size) + np.bincount(edges.second, weights, cost.size)
        marks = scribbles.ravel()
        cost = np.where(marks == FOREGROUND, -2 * incident - 1, np.where(marks == BACKGROUND, 2 * incident + 1, cost))
    return graph_cut.minimum_cut(cost, edges.first, edges.second, weights, weights).reshape(unary.shape[1:])
