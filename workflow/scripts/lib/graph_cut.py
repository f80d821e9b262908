"""Binary energies on graphs, minimised exactly by an s-t minimum cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

LARGEST = 2**28  # capacity; SciPy's solver takes int32, and residuals of an edge and its reverse add up


def neighbours(
    nodes: np.ndarray, spacing: Sequence[float], diagonal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of neighbouring nodes of a grid, once: first, second (E,) and their distance (E,) in units of spacing.

    nodes: (*S) integers, the number of the node at each place, −1 for none. An infinite spacing joins nothing along its
    axis. diagonal: 8 neighbours in the plane and 26 in space instead of 4 and 6.
    """
    parts = []
    for offset in itertools.product((-1, 0, 1), repeat=nodes.ndim):
        steps = np.array(offset)
        if offset <= (0,) * nodes.ndim or (not diagonal and np.abs(steps).sum() > 1):
            continue  # half of them, so that each pair comes once
        distance = np.linalg.norm(np.array(spacing)[steps != 0])
        if np.isinf(distance):
            continue
        here = nodes[tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, nodes.shape, strict=True))].ravel()
        there = nodes[tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, nodes.shape, strict=True))].ravel()
        both = (here >= 0) & (there >= 0)
        parts.append((here[both], there[both], np.full(both.sum(), distance)))
    empty = (np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True)) if parts else empty


def minimum_cut(
    unary: np.ndarray, first: np.ndarray, second: np.ndarray, forward: np.ndarray, backward: np.ndarray
) -> np.ndarray:
    """The b (n,) bool of least Σ_i u_i b_i + Σ_e (forward_e b_i (1 − b_j) + backward_e (1 − b_i) b_j), with e = (i, j).

    unary u (n,); first, second (E,) indices i and j; forward, backward (E,) not negative. Of several minima the one
    with the fewest ones. A node whose own term outweighs all its edges together is decided beforehand, and then its
    neighbours, and so on; what is left goes to SciPy's Dinic with capacities rounded to 28 bits, so the minimum is
    exact up to 4e-9 of the largest capacity per node and edge.
    """
    unary, count = unary.astype(np.float64), len(unary)
    decided, result = np.zeros(count, bool), np.zeros(count, bool)
    while True:
        leaving = np.bincount(first, forward, count) + np.bincount(second, backward, count)
        entering = np.bincount(first, backward, count) + np.bincount(second, forward, count)
        ones = ~decided & (unary < -leaving)
        zeros = ~decided & (unary >= entering)
        if not (ones | zeros).any():
            break
        result |= ones
        for at, other, out, into in ((first, second, forward, backward), (second, first, backward, forward)):
            unary -= np.bincount(other[ones[at]], out[ones[at]], count)
            unary += np.bincount(other[zeros[at]], into[zeros[at]], count)
        decided |= ones | zeros
        live = ~(decided[first] | decided[second])
        first, second, forward, backward = first[live], second[live], forward[live], backward[live]
    if not decided.all():
        rest = np.flatnonzero(~decided)
        number = np.empty(count, np.int64)
        number[rest] = np.arange(len(rest))
        result[rest] = _source_side(unary[rest], number[first], number[second], forward, backward)
    return result


def _source_side(
    unary: np.ndarray, first: np.ndarray, second: np.ndarray, forward: np.ndarray, backward: np.ndarray
) -> np.ndarray:
    """The smallest source side (n,) bool of a minimum cut: i lies there for b_i = 1."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    count = len(unary)
    nodes, source, sink = np.arange(count), count, count + 1
    tails = np.concatenate([np.full(count, source), nodes, first, second])
    heads = np.concatenate([nodes, np.full(count, sink), second, first])
    costs = np.concatenate([np.maximum(-unary, 0), np.maximum(unary, 0), forward, backward])
    capacities = np.rint(costs * (LARGEST / costs.max())).astype(np.int32)
    kept = capacities > 0
    ends = tails[kept].astype(np.int32), heads[kept].astype(np.int32)
    graph = coo_array((capacities[kept], ends), shape=(count + 2, count + 2)).tocsr()
    residual = csr_array(graph - maximum_flow(graph, source, sink).flow)
    residual.eliminate_zeros()
    reached = np.zeros(count + 2, bool)
    reached[breadth_first_order(residual, source, return_predecessors=False)] = True
    return reached[:count]
