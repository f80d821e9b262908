"""Coupled denoising and segmentation: total variation over a reduced set of intensities.

Source: Tuysuzoglu et al., Model-based coupled denoising and segmentation of medical images, SPIE 2012: each pixel takes
one of K intensities c_1 ≤ … ≤ c_K, so that pixels of one value form a region. The abstract names the model, Gaussian
and multiplicative Rayleigh noise and the global optimum for two levels; the energy follows from it. The neighbourhood,
its weights and λ are ours.

    E(x, c) = Σ_p D(y_p, c_{x_p}) + λ Σ_{p,q neighbours} w_pq |c_{x_p} − c_{x_q}|,   w_pq = 1 / distance
    Gaussian: D(y, c) = (y − c)² / 2σ²;   Rayleigh, y = c n: D(y, c) = 2 ln c + y² / 2c²
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lib.errors import BadInput
from lib.graph_cut import minimum_cut, neighbours

NOISES = ("gaussian", "rayleigh")
ROBUST = (1, 99)  # percentiles whose distance is the unit of intensities, as in conditions
LOWEST = 1e-3  # level of Rayleigh noise, of which 0 has no density
RAYLEIGH_MEAN = math.sqrt(math.pi / 2)  # of y = c n, as a multiple of c
TOLERANCE = 1e-7  # of the energy
SAMPLED = 50_000  # voxels that the first levels are found on


@dataclass
class Solution:
    """labels: (N,) uint8 of the voxels inside. levels: (K,) ascending, in the units of the data. energies: before the
    first and after every half step (labels, levels, labels, …)."""

    labels: np.ndarray
    levels: np.ndarray
    energies: list[float] = field(default_factory=list)


def check_parameters(noise: str, weight: float | list[float], sigma: float | None, rounds: int) -> None:
    """Raise BadInput for values that make no sense."""
    if noise not in NOISES:
        raise BadInput(f"noise: {noise!r} must be one of {', '.join(NOISES)}.")
    if isinstance(weight, list) and not weight:
        raise BadInput("weight: [] must hold a number, such as 1.0.")
    for value in weight if isinstance(weight, list) else [weight]:
        if not _is_number(value) or not 0 <= value < math.inf:
            raise BadInput(f"weight: {value!r} must be a number, 0 or more, or a list of such.")
    if sigma is not None and (not _is_number(sigma) or not 0 < sigma < math.inf):
        raise BadInput(f"sigma: {sigma!r} must be a share of the intensity range above 0, such as 0.1, or null.")
    if sigma is not None and noise == "rayleigh":
        raise BadInput(f"sigma: {sigma!r} has no meaning for rayleigh noise; leave it out.")
    if not isinstance(rounds, int) or rounds < 1:
        raise BadInput(f"rounds: {rounds!r} must be a whole number, 1 or more.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def coupled(
    image: np.ndarray, inside: np.ndarray, spacing: Sequence[float], across: int | None, *, levels: int, noise: str,
    weight: float, sigma: float | None, diagonal: bool, rounds: int,
) -> Solution:  # fmt: skip
    """The alternate minimum of the energy of an image (*S), over the voxels inside; levels in units of the image.

    Intensities are counted from the smallest of the image in units of the distance of its 1st and 99th percentile
    inside, so that σ and λ mean the same in every image; the distance of neighbours is in units of the shortest side of
    a voxel. across: the axis along which there are no neighbours, only slices. sigma: None for an estimate, here and
    for Rayleigh noise, which has none. Raises BadInput where the image has no intensity range.
    """
    from sklearn.cluster import KMeans  # slow to import

    values = image[inside].astype(np.float64)
    low, high = np.percentile(values, ROBUST)
    if not low < high:
        raise BadInput(f"the image has no intensity range: its 1st and 99th percentile inside are both {low:g}")
    origin, unit = float(image.min()), high - low
    data = (values - origin) / unit
    spacing = np.array(spacing, float)
    if across is not None:
        spacing[across] = np.inf
    spacing /= spacing.min()
    nodes = np.full(inside.shape, -1)
    nodes[inside] = np.arange(len(values))
    first, second, distance = neighbours(nodes, spacing, diagonal)
    if noise == "gaussian" and sigma is None:
        sigma = estimated_sigma((image.astype(np.float64) - origin) / unit, inside, spacing)
    sample = data[:: max(1, len(data) // SAMPLED), None]
    start = np.sort(KMeans(levels, n_init=10, random_state=0).fit(sample).cluster_centers_[:, 0])
    if noise == "rayleigh":
        start = np.maximum(start / RAYLEIGH_MEAN, LOWEST)
    solution = minimise(data, first, second, weight / distance, start, noise, sigma, rounds)
    solution.levels = origin + unit * solution.levels
    return solution


def estimated_sigma(values: np.ndarray, inside: np.ndarray, spacing: np.ndarray) -> float:
    """SD of white noise (Gaussian) from differences of neighbours along the first of the finest axes.

    The median of |difference| is not moved by the few that lie across an edge: σ = 1.4826 median / √2.
    """
    axis = int(np.argmin(spacing))
    values, inside = np.moveaxis(values, axis, 0), np.moveaxis(inside, axis, 0)
    pairs = inside[1:] & inside[:-1]
    if not pairs.any():
        raise BadInput("no two neighbouring voxels lie inside the image, so its noise cannot be estimated; give sigma")
    sigma = 1.4826 * float(np.median(np.abs(np.diff(values, axis=0)[pairs]))) / math.sqrt(2)
    return max(sigma, LOWEST)


def minimise(
    data: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray, levels: np.ndarray, noise: str,
    sigma: float | None, rounds: int,
) -> Solution:  # fmt: skip
    """Alternate exact label steps and level steps until labels stay or `rounds` are over; E never rises.

    data y (N,); first, second (E,) neighbours and weights (E,) λ w_pq of them; levels (K,) ascending to start from.
    """
    labels = np.abs(data[:, None] - levels).argmin(1).astype(np.uint8)
    energies = [energy(data, labels, levels, first, second, weights, noise, sigma)]
    for _ in range(rounds):
        new = best_labels(data, levels, first, second, weights, noise, sigma)
        if energy(data, new, levels, first, second, weights, noise, sigma) > energies[-1]:
            new = labels  # capacities are rounded, and the old labels were as good
        energies.append(energy(data, new, levels, first, second, weights, noise, sigma))
        stays, labels = np.array_equal(new, labels) and len(energies) > 2, new
        if stays:
            break
        levels = best_levels(data, labels, levels, first, second, weights, noise, sigma)
        energies.append(energy(data, labels, levels, first, second, weights, noise, sigma))
    return Solution(labels, levels, energies)


def energy(
    data: np.ndarray, labels: np.ndarray, levels: np.ndarray, first: np.ndarray, second: np.ndarray,
    weights: np.ndarray, noise: str, sigma: float | None,
) -> float:  # fmt: skip
    """E(x, c)"""
    own = levels[labels]
    return float(data_term(data, own, noise, sigma).sum() + (weights * np.abs(own[first] - own[second])).sum())


def data_term(data: np.ndarray, level: np.ndarray | float, noise: str, sigma: float | None) -> np.ndarray:
    """D(y, c)"""
    if noise == "gaussian":
        return (data - level) ** 2 / (2 * sigma**2)
    return 2 * np.log(level) + data**2 / (2 * level**2)


def best_labels(
    data: np.ndarray, levels: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray, noise: str,
    sigma: float | None,
) -> np.ndarray:  # fmt: skip
    """The labels (N,) of least energy for these levels: exact.

    |c_x − c_x'| is the sum over k of (c_k − c_{k−1}) |[x ≥ k] − [x' ≥ k]|, so E is a sum of K − 1 binary energies in
    b_k = [x ≥ k], tied by b_k ≤ b_{k−1} alone. Each is minimised by a cut of its own; where the minima are ordered
    they are the optimum (always for Gaussian noise, whose data term is convex: Darbon & Sigelle 2006). Elsewhere the
    graph of Ishikawa (2003), with all K − 1 sheets and the order as edges, gives it.
    """
    terms = data_term(data[:, None], levels, noise, sigma)
    unary, gaps = np.diff(terms, axis=1), np.diff(levels)
    above = np.zeros((len(data), len(gaps)), bool)
    for k in range(len(gaps)):
        capacity = weights * gaps[k]
        above[:, k] = minimum_cut(unary[:, k], first, second, capacity, capacity)
    ordered = np.minimum.accumulate(above, axis=1)
    if not np.array_equal(above, ordered):

        def cost(b: np.ndarray) -> float:
            cut = sum((weights * gap * (b[first, k] != b[second, k])).sum() for k, gap in enumerate(gaps))
            return float((unary * b).sum() + cut)

        bound = cost(above)
        if cost(ordered) > bound + TOLERANCE * np.abs(unary).sum():
            ordered = _ishikawa(unary, gaps, first, second, weights)
    return ordered.sum(axis=1).astype(np.uint8)


def _ishikawa(
    unary: np.ndarray, gaps: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """b (N, K − 1) bool of least energy with b_k ≤ b_{k−1}: one cut through a graph of N (K − 1) nodes."""
    count, sheets = unary.shape
    nodes = np.arange(count * sheets).reshape(sheets, count)
    pairs = len(first), (sheets - 1) * count
    capacity = (gaps[:, None] * weights).ravel()
    # More than what any change of one voxel can gain, so that no minimum breaks the order.
    degree = np.bincount(first, weights, count) + np.bincount(second, weights, count)
    forbidden = 1 + (np.abs(unary).sum(axis=1) + degree * gaps.sum()).max()
    joined = minimum_cut(
        unary.T.ravel(),
        np.concatenate([nodes[:, first].ravel(), nodes[1:].ravel()]),
        np.concatenate([nodes[:, second].ravel(), nodes[:-1].ravel()]),
        np.concatenate([capacity, np.full(pairs[1], forbidden)]),
        np.concatenate([capacity, np.zeros(pairs[1])]),
    )
    return joined.reshape(sheets, count).T


def best_levels(
    data: np.ndarray, labels: np.ndarray, levels: np.ndarray, first: np.ndarray, second: np.ndarray,
    weights: np.ndarray, noise: str, sigma: float | None,
) -> np.ndarray:  # fmt: skip
    """Levels (K,) of no higher energy for these labels: each in turn at its best between its neighbours, twice over.

    Given the order, total variation is linear in each level, with slope g_k: the length of the region's border with
    lower regions less that with higher ones. Without it, levels are the mean (Gaussian) or √(mean y² / 2) (Rayleigh) of
    their region; it draws them together, as total variation does. The level of an empty region stays.
    """
    levels, count = levels.copy(), len(levels)
    number = np.bincount(labels, minlength=count)
    total = np.bincount(labels, data if noise == "gaussian" else data**2, count)
    x, z = labels[first].astype(int), labels[second].astype(int)
    sign = np.sign(x - z) * weights
    slope = np.bincount(x, sign, count) - np.bincount(z, sign, count)
    for k in [*range(count)] * 2:
        if number[k] == 0:
            continue
        low = levels[k - 1] if k else (-np.inf if noise == "gaussian" else LOWEST)
        high = levels[k + 1] if k + 1 < count else np.inf
        if noise == "gaussian":
            levels[k] = np.clip((total[k] - slope[k] * sigma**2) / number[k], low, high)
            continue
        roots = np.roots([slope[k], 2 * number[k], 0, -total[k]])
        real = roots[np.abs(roots.imag) < 1e-9 * np.abs(roots)].real
        candidates = np.array([c for c in (*real, low, high, levels[k]) if low <= c <= high and 0 < c < np.inf])
        costs = 2 * number[k] * np.log(candidates) + total[k] / (2 * candidates**2) + slope[k] * candidates
        levels[k] = candidates[costs.argmin()]
    return levels
