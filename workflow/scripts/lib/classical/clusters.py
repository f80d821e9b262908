"""Otsu's thresholds, k-means and Gaussian mixtures: levels of intensity by the histogram alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.classical.levels import LevelMethod
from lib.registry import register

SAMPLED = 50_000  # voxels of an image that clusters are found on
BINS = 256


@register("otsu")
class Otsu(LevelMethod):
    """Thresholds that maximise the variance between levels (Otsu 1979), for any number of levels.

    levels: number of levels inside the image, None for one per class. channel: of the image, from 0. Thresholds lie
    between the bins of a histogram of 256.

    Cite: otsu1979
    """

    def __init__(self, levels: int | None = None, channel: int = 0):
        super().__init__(levels, channel)

    def divide(self, image: np.ndarray, inside: np.ndarray, spacing: Sequence[float], slices: bool) -> np.ndarray:
        values = image[self.channel]
        return np.digitize(values, otsu_thresholds(values[inside], self.levels)).astype(np.uint8)


@register("kmeans")
class KMeans(LevelMethod):
    """Clusters of least squared distance to their means (Lloyd 1982), over all channels.

    levels: number of clusters inside the image, None for one per class. channel: by whose mean the clusters are
    ordered. Ten starts, a fixed seed.

    Cite: lloyd1982
    """

    def __init__(self, levels: int | None = None, channel: int = 0):
        super().__init__(levels, channel)

    def divide(self, image: np.ndarray, inside: np.ndarray, spacing: Sequence[float], slices: bool) -> np.ndarray:
        clusters = kmeans(_voxels(image, inside), self.levels)
        return _on_grid(clusters.predict(image[:, inside].T), clusters.cluster_centers_[:, self.channel], inside)


@register("gmm")
class GaussianMixture(LevelMethod):
    """A Gaussian mixture by expectation maximisation, started from k-means, over all channels.

    levels: number of components inside the image, None for one per class; each has a covariance of its own. channel: by
    whose mean the components are ordered. A voxel belongs to the component of highest posterior probability.

    Cite: dempster1977
    """

    def __init__(self, levels: int | None = None, channel: int = 0):
        super().__init__(levels, channel)

    def divide(self, image: np.ndarray, inside: np.ndarray, spacing: Sequence[float], slices: bool) -> np.ndarray:
        from sklearn.mixture import GaussianMixture as Mixture

        mixture = Mixture(self.levels, random_state=0).fit(_voxels(image, inside))
        return _on_grid(mixture.predict(image[:, inside].T), mixture.means_[:, self.channel], inside)


def otsu_thresholds(values: np.ndarray, levels: int) -> np.ndarray:
    """Ascending thresholds (levels - 1,) of maximal variance between the levels of `values` (n,).

    Exact over the histogram, by dynamic programming: what is maximised is the sum over levels of weight × mean².
    """
    counts, edges = np.histogram(values, BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    weight = np.concatenate([[0], np.cumsum(counts)])
    total = np.concatenate([[0], np.cumsum(counts * centres)])
    first, last = np.meshgrid(np.arange(BINS + 1), np.arange(BINS + 1), indexing="ij")
    n, s = weight[last] - weight[first], total[last] - total[first]
    gain = np.where((n > 0) & (first < last), s**2 / np.maximum(n, 1), -np.inf)  # of a level of the bins first..last-1

    best, cuts = gain[0], []
    for _ in range(levels - 1):
        through = best[:, None] + gain
        cuts.append(through.argmax(axis=0))
        best = through.max(axis=0)
    found, end = [], BINS
    for cut in reversed(cuts):
        end = cut[end]
        found.append(edges[end])
    return np.array(found[::-1])


def kmeans(voxels: np.ndarray, levels: int):
    """scikit-learn's fitted clusters of voxels (n, channels)."""
    from sklearn.cluster import KMeans as Clusters

    return Clusters(levels, n_init=10, random_state=0).fit(voxels)


def _voxels(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """At most twice SAMPLED voxels (n, C), evenly spaced."""
    voxels = image[:, inside].T
    return voxels[:: max(1, len(voxels) // SAMPLED)]


def _on_grid(numbers: np.ndarray, means: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Cluster numbers of the voxels inside to levels (*S) uint8 in ascending order of the clusters' means."""
    levels = np.zeros(inside.shape, np.uint8)
    levels[inside] = np.argsort(np.argsort(means))[numbers]
    return levels
