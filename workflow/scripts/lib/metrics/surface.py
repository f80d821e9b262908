"""Borders of binary masks and the distances between them: one search between border voxels, both ways.

No distance transform runs over the image. The coordinates of border voxels go into a k-d tree, except where
there are so many of them, as in masks full of noise, that a distance transform of the crop is faster.
"""

from __future__ import annotations

import numpy as np

# Nanoseconds on one thread; only the ratios matter. Counts decide rather than a trial of the clock, which would
# let the load of the machine move the last bit of a score.
_BUILD_PER_POINT = 150.0  # cKDTree construction
_QUERY_PER_POINT = 1000.0  # its nearest-neighbour search
_TRANSFORM_PER_VOXEL = 90.0  # scipy.ndimage.distance_transform_edt


def border(mask: np.ndarray) -> np.ndarray:
    """Voxels of a boolean mask with a face neighbour outside it; what lies beyond the array is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        target[1:] &= source[:-1]
        target[:-1] &= source[1:]
        target[0] = False
        target[-1] = False
    return mask ^ inner


def border_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: np.ndarray, method: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each border voxel of one mask to the nearest border voxel of the other, both ways.

    `prediction` and `reference`: boolean, equal shape, neither empty, cropped to their union. `spacing`: mm
    per axis. Returns two float64 arrays in mm, one value per border voxel of the prediction and of the
    reference, in no particular order. `method` ("tree", "transform") forces one of the two equal ways.
    """
    borders = border(prediction), border(reference)
    shared = borders[0] & borders[1]
    zeros = np.zeros(np.count_nonzero(shared))
    directed = []
    for own, other in (borders, borders[::-1]):
        away = own & ~shared  # border voxels of both masks are at distance 0 and need no search
        directed.append(np.concatenate((zeros, _nearest(away, other, spacing, method))))
    return directed[0], directed[1]


def _nearest(queries: np.ndarray, targets: np.ndarray, spacing: np.ndarray, method: str) -> np.ndarray:
    n_queries, n_targets = np.count_nonzero(queries), np.count_nonzero(targets)
    if n_queries == 0:
        return np.zeros(0)
    from scipy.spatial import cKDTree  # imported where needed: the names of metrics are read without SciPy

    tree_cost = _BUILD_PER_POINT * n_targets + _QUERY_PER_POINT * n_queries
    if method == "tree" or (method == "auto" and tree_cost < _TRANSFORM_PER_VOXEL * targets.size):
        coordinates = np.argwhere(targets) * spacing
        tree = cKDTree(coordinates, leafsize=24, balanced_tree=False, compact_nodes=False)
        return tree.query(np.argwhere(queries) * spacing)[0]
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~targets, sampling=spacing)[queries]
