"""Distances between the borders of structures: border voxels found in one pass, searched once each way.

No distance transform runs over the image. A border voxel first looks around itself, at the voxels of a ball in the
order of their distance, all structures at once: most surfaces to compare lie close. What it does not find there comes
from a k-d tree, or, where that would be slower, from a distance transform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Nanoseconds on one thread; only the ratios matter. Counts decide rather than a trial of the clock, which would
# let the load of the machine move the last bit of a score.
_LOOK = 1.5  # one border voxel at one place of the ball
_CALL = 12e3  # all calls for one place of the ball
_BUILD = 250.0  # cKDTree construction, per point
_QUERY = 1500.0  # its nearest-neighbour search, per point
_TRANSFORM = 90.0  # scipy.ndimage.distance_transform_edt, per voxel

_REACH, _PLACES = 6, 400  # the ball: voxels along an axis, and in all
_SLAB, _BATCH, _SAMPLE = 2**19, 2**16, 500  # voxels or border voxels at a time, small enough for the cache
_FOUND = 255  # code of a border voxel that needs no search any more


@dataclass(frozen=True)
class Distances:
    """Many distances in mm, of which a few recur: `values` (k,) float64, ascending, and how often each occurs."""

    values: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return int(self.counts.sum())

    def sum(self) -> float:
        return float(self.values @ self.counts)

    def within(self, limit: float) -> int:
        """How many are at most `limit`."""
        return int(self.counts[self.values <= limit].sum())

    def percentile(self, percent: float) -> float:
        """With linear interpolation between order statistics, as NumPy's default."""
        rank, upto = percent / 100 * (len(self) - 1), self.counts.cumsum()
        below, above = (self.values[np.searchsorted(upto, i, side="right")] for i in (int(rank), int(np.ceil(rank))))
        return float(below + (above - below) * (rank - int(rank)))


def border_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], count: int = 1, method: str = "auto"
) -> list[tuple[Distances, Distances]]:
    """Distances from each border voxel of a structure to the nearest one of it in the other label map, both ways.

    `prediction` and `reference`: of equal shape, integers or bool, with codes 1 … `count` (254 at most) of disjoint
    structures; 0 is none of them. A voxel is on the border if a face neighbour has another code or lies outside the
    array. `spacing`: mm per axis. Returns, per structure, the distances of the prediction's border voxels and of the
    reference's; none where either lacks the structure. `method` ("ball", "tree", "transform") forces one of the equal
    ways.
    """
    steps, distances = _ball(np.asarray(spacing, float))
    pad = np.maximum(np.abs(steps).max(axis=0), 1)
    borders, occurs = zip(*(_borders(labels, pad, count) for labels in (prediction, reference)), strict=True)
    present = occurs[0] & occurs[1]
    ways = [
        _search(own, other, steps, distances, np.asarray(spacing, float), present, method)
        for own, other in (borders, borders[::-1])
    ]
    return list(zip(*ways, strict=True))


def _ball(spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n, dims) to every voxel of a ball, and their lengths (n,) in mm, in the order of these."""
    axes = [np.arange(-_REACH, _REACH + 1)] * len(spacing)
    steps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(spacing))
    lengths = np.linalg.norm(steps * spacing, axis=1)
    nearest = np.argsort(lengths, kind="stable")
    nearest = nearest[lengths[nearest] < (_REACH + 1) * spacing.min()][:_PLACES]  # beyond, the cube misses some
    return steps[nearest], lengths[nearest]


def _borders(labels: np.ndarray, pad: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of border voxels, 0 elsewhere, uint8, with `pad` voxels around each axis; and which codes occur.

    Slab by slab along the first axis: in the cache, and with no copy of the whole.
    """
    borders = np.zeros([n + 2 * p for n, p in zip(labels.shape, pad, strict=True)], np.uint8)
    flat, row = borders.reshape(-1), borders[0].size
    depth, thick = len(labels), max(1, _SLAB // row)
    slab = np.zeros((thick + 2, *borders.shape[1:]), np.uint8)  # and the layers on both sides of it
    inside = tuple(slice(p, p + n) for p, n in zip(pad[1:], labels.shape[1:], strict=True))
    differs, edge = np.empty((2, slab.size), bool)
    occurs = np.zeros(count + 1, bool)
    for low in range(0, depth, thick):
        high = min(low + thick, depth)
        first, last = max(low - 1, 0), min(high + 1, depth)
        slab[:] = 0
        slab[(slice(first - low + 1, last - low + 1), *inside)] = labels[first:last]
        codes = slab.reshape(-1)
        edge[:] = False
        for axis in range(labels.ndim):
            step = codes.size // np.prod(slab.shape[: axis + 1], dtype=int)  # to the neighbour; the padding separates
            other = np.not_equal(codes[step:], codes[:-step], out=differs[step:])
            edge[step:] |= other
            edge[:-step] |= other
        middle = slice(row, row * (high - low + 1))
        at = np.flatnonzero(edge[middle] & (codes[middle] != 0))
        flat[at + (low + pad[0]) * row] = codes[middle][at]
        occurs[codes[middle][at]] = True
    return borders, occurs


def _search(
    own: np.ndarray,
    other: np.ndarray,
    steps: np.ndarray,
    lengths: np.ndarray,
    spacing: np.ndarray,
    present: np.ndarray,
    method: str,
) -> list[Distances]:
    """Distances from the border voxels `own` to those of the same code in `other`, per code."""
    flat = other.reshape(-1)
    jumps = steps @ [other[(0,) * (axis + 1)].size for axis in range(other.ndim)]
    looks = _looks(own, flat, jumps, present, method)
    found = np.zeros((len(jumps), len(present)), np.int64)
    far: list[tuple[np.ndarray, np.ndarray]] = []
    for at in _batches(own.reshape(-1), present):
        codes, done = own.reshape(-1)[at], 0
        for place in range(looks):
            hit = np.flatnonzero(flat[at + jumps[place]] == codes)
            if len(hit):
                found[place] += np.bincount(codes[hit], minlength=len(present))
                codes[hit] = _FOUND
                done += len(hit)
            if done > len(at) // 8:
                left = np.flatnonzero(codes != _FOUND)
                at, codes, done = at[left], codes[left], 0
        left = np.flatnonzero(codes != _FOUND)
        far.append((at[left], codes[left]))
    at, codes = (np.concatenate(part) for part in zip(*far, strict=True)) if far else np.zeros((2, 0), int)
    result = []
    for code in range(1, len(present)):
        beyond = at[codes == code]
        lone = _far(beyond, other, code, spacing, method) if len(beyond) else np.zeros(0)
        seen = found[:, code] > 0
        values, counts = np.append(lengths[seen], lone), np.append(found[seen, code], np.ones(len(lone), np.int64))
        order = np.argsort(values, kind="stable")
        result.append(Distances(values[order], counts[order]))
    return result


def _batches(flat: np.ndarray, present: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of border voxels to search for, some ten thousand at a time."""
    held: list[np.ndarray] = []
    for low in range(0, flat.size, _SLAB):
        at = np.flatnonzero(flat[low : low + _SLAB] != 0) + low
        held.append(at if present[1:].all() else at[present[flat[at]]])
        if sum(map(len, held)) >= _BATCH or low + _SLAB >= flat.size:
            yield np.concatenate(held)
            held = []


def _looks(own: np.ndarray, other: np.ndarray, jumps: np.ndarray, present: np.ndarray, method: str) -> int:
    """In how many places of the ball to look before the tree: what costs least by a regular sample of border voxels."""
    if method != "auto":
        return len(jumps) if method == "ball" else 0
    every = 17  # prime, so that it visits all columns
    at = np.flatnonzero(own.reshape(-1)[::every] != 0) * every
    at = at[present[own.reshape(-1)[at]]]
    total = len(at) * every
    at = at[:: len(at) // _SAMPLE + 1]
    if not len(at):
        return len(jumps)
    hit = other[at[:, None] + jumps] == own.reshape(-1)[at][:, None]
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), len(jumps))
    left = 1 - np.append(0, np.bincount(first, minlength=len(jumps) + 1)[: len(jumps)].cumsum()) / len(at)
    if left[-1] == 0:  # nor will others be far: no tree
        return len(jumps)
    look = np.append(0, (left[:-1] * total * _LOOK + _CALL * (1 + total // _BATCH)).cumsum())
    return int(np.argmin(look + left * total * _QUERY))


def _far(at: np.ndarray, other: np.ndarray, code: int, spacing: np.ndarray, method: str) -> np.ndarray:
    """Distances from the positions `at` to the nearest voxel of `code`."""
    flat = other.reshape(-1)
    targets = np.concatenate([np.flatnonzero(flat[i : i + _SLAB] == code) + i for i in range(0, flat.size, _SLAB)])
    points = _points(at, other.shape, spacing)
    tree = _BUILD * len(targets) + _QUERY * len(at)
    if method != "transform" and (method != "auto" or tree < _TRANSFORM * other.size):
        from scipy.spatial import cKDTree  # imported where needed: most cases do without

        coordinates = _points(targets, other.shape, spacing)
        return cKDTree(coordinates, leafsize=24, balanced_tree=False, compact_nodes=False).query(points)[0]
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(other != code, sampling=spacing, return_distances=False, return_indices=True)
    nearest = nearest.reshape(other.ndim, -1)[:, at].T
    return np.linalg.norm(points - nearest * spacing, axis=1)


def _points(at: np.ndarray, shape: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    """Coordinates (n, dims) in mm of positions, one axis at a time to save memory."""
    points = np.empty((len(at), len(shape)))
    for axis in reversed(range(len(shape))):
        at, points[:, axis] = np.divmod(at, shape[axis])
    return np.multiply(points, spacing, out=points)
