"""Exact minimisation of a binary energy on a grid, by an s-t minimum cut: the label step of BIFSeg.

Source: Wang et al., BIFSeg, IEEE TMI 37(7) 2018, Eq. 5 and 7 (as other public code cites them); Boykov & Jolly 2001.

    E(y) = Σ_i U_i(y_i) + λ Σ_{i<j neighbours} [y_i ≠ y_j] · exp(-‖X_i - X_j‖² / 2σ²) / d_ij

The pairwise term is not negative, so the energy is submodular and its minimum is a minimum cut. SciPy's solver takes
integers: capacities are rounded to 2^-20, or coarser where that is too fine for 32 bits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from lib.errors import BadInput
from lib.interactive import BACKGROUND, FOREGROUND

NEIGHBOURHOODS = {2: (4, 8), 3: (6, 26)}
FINEST = 2**20  # integer units per unit of energy
LARGEST = 2**30 - 1  # capacity; the residual one of an edge and its reverse is twice that, in int32


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
    parts = []
    for offset in itertools.product((-1, 0, 1), repeat=dims):
        if offset <= (0,) * dims or (neighbourhood == 2 * dims and np.count_nonzero(offset) > 1):
            continue  # half of them, so that each pair comes once
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
        difference = image[(slice(None), *here)].astype(np.float64) - image[(slice(None), *there)]
        difference = np.sqrt(np.square(difference).mean(axis=0)).ravel()
        distance = np.full(difference.shape, np.sqrt(np.count_nonzero(offset)))
        parts.append((number[here].ravel(), number[there].ravel(), difference, distance))
    return Edges(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


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

    Arguments as of `energy`; unary and weights finite, weights not negative. Scribbled pixels keep their label: the
    capacity that holds them exceeds that of all their other edges together, which does what an infinite one would.
    """
    count = unary[0].size
    background, foreground = unary.reshape(2, count).astype(np.float64)
    least = np.minimum(background, foreground)
    costs = np.stack([background - least, foreground - least])  # of being background (cuts s→i), foreground (i→t)
    incident = np.bincount(edges.first, weights, count) + np.bincount(edges.second, weights, count)
    if scribbles is not None:
        marks = scribbles.ravel()
        costs[:, marks != 0] = 0
        costs[0, marks == FOREGROUND] = 2 * incident[marks == FOREGROUND] + 1
        costs[1, marks == BACKGROUND] = 2 * incident[marks == BACKGROUND] + 1
    scale = min(FINEST, LARGEST / max(costs.max(), weights.max(initial=0), 1))

    pixels, source, sink = np.arange(count), count, count + 1
    tails = np.concatenate([np.full(count, source), pixels, edges.first, edges.second])
    heads = np.concatenate([pixels, np.full(count, sink), edges.second, edges.first])
    capacities = np.rint(scale * np.concatenate([*costs, weights, weights])).astype(np.int32)
    kept = capacities > 0
    ends = tails[kept].astype(np.int32), heads[kept].astype(np.int32)
    graph = coo_array((capacities[kept], ends), shape=(count + 2, count + 2)).tocsr()
    residual = csr_array(graph - maximum_flow(graph, source, sink).flow)
    residual.eliminate_zeros()
    labels = np.zeros(count + 2, bool)
    labels[breadth_first_order(residual, source, return_predecessors=False)] = True
    return labels[:count].reshape(unary.shape[1:])
