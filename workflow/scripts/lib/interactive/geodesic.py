"""Geodesic distance on an image: the least total change of intensity along a path.

Source: Wang et al., BIFSeg, IEEE TMI 37(7) 2018: G(i, S) = min over paths of ∫ |∇X · u| ds, on a grid the sum of
|ΔX| over the steps of the path. Exact, by Dijkstra's algorithm.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from lib.interactive.graph_cut import Edges

STEP = 1e-8  # added to each step, because SciPy takes a weight of 0 for a missing edge


def geodesic_distance(edges: Edges, seeds: np.ndarray, limit: float = np.inf) -> np.ndarray:
    """Distance (*S) float64 of each pixel to the nearest of `seeds` (*S) bool, along `edges` of the image.

    A step costs |ΔX|, over several channels the root of the mean of squares. Infinite beyond `limit`, and everywhere
    without a seed.
    """
    if not seeds.any():
        return np.full(seeds.shape, np.inf)
    graph = coo_array((edges.difference + STEP, (edges.first, edges.second)), shape=(seeds.size, seeds.size)).tocsr()
    found = dijkstra(graph, directed=False, indices=np.flatnonzero(seeds), min_only=True, limit=limit)
    return found.reshape(seeds.shape)
