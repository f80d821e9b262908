"""Slic-Seg: a random forest learns from scribbles, a graph cut decides, and volumes are segmented slice by slice."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import (
    binary_closing,
    binary_dilation,
    binary_erosion,
    binary_opening,
    correlate1d,
    distance_transform_cdt,
    label,
    uniform_filter,
)

from lib.interactive import BACKGROUND, FOREGROUND, Crop
from lib.interactive.graph_cut import edges_of, minimum_cut
from lib.interactive.seeded import Seeded
from lib.registry import register

ORIENTATIONS = 8
ROI = 8  # side of the region whose wavelet coefficients a pixel has


@register("slic_seg")
class SlicSeg(Seeded):
    """Slic-Seg, slice by slice; it has no superpixels, in spite of its name. The steps and, where not said otherwise,
    the numbers are those of the code that the authors published.

    1. Features of each pixel (`pixel_features`) and a random forest of 20 trees of depth 8 on the scribbles so far,
       each tree on half of them.
    2. The probability of what is not connected to a foreground scribble, where it exceeds 0.5, falls to 0.4 of itself.
    3. Exact graph cut over 4 neighbours; closing and opening by a disk of `radius`.
    4. In volumes the slices with foreground scribbles, across the axis with the largest spacing, are such start slices.
       The others follow from their neighbour towards the nearest start: its eroded skeleton is foreground, what lies
       beyond its dilation is background, the probability is raised inside its shape and lowered outside, and the forest
       of that direction learns the new slice too.

    Ours: the forest is fitted anew to all samples instead of online, and with balanced classes, because the border of
    the box has many times the pixels of a scribble; leaves of `leaf` samples (published 10, for scribbles of some
    hundred pixels); smoothness and sigma, for crops of standard deviation 1 (published 10, and 5 of 256 grey levels);
    connectivity without the published window of placenta intensities.
    Cite: wang2016slicseg
    """

    def __init__(
        self,
        trees: int = 20,
        depth: int = 8,
        leaf: int = 2,
        smoothness: float = 3.0,
        sigma: float = 0.2,
        radius: int = 2,
        erosion: int = 5,
        dilation: int = 6,
    ):
        self.trees, self.depth, self.leaf = trees, depth, leaf
        self.smoothness, self.sigma = smoothness, sigma
        self.disk, self.erosion, self.dilation = _disk(radius), erosion, dilation

    def begin(self, crop: Crop) -> None:
        super().begin(crop)
        self.axis = int(np.argmax(crop.spacing)) if len(crop.spacing) == 3 else None
        slices = self.image[:, None] if self.axis is None else np.moveaxis(self.image, self.axis + 1, 1)
        self.slices = np.moveaxis(slices, 1, 0)  # (slices, C, Y, X)
        self.features = [None] * len(self.slices)

    def grow(self, scribbles: np.ndarray) -> np.ndarray:
        scribbles = scribbles[None] if self.axis is None else np.moveaxis(scribbles, self.axis, 0)
        starts = np.flatnonzero((scribbles == FOREGROUND).any(axis=(1, 2)))
        samples = [self._samples(at, scribbles[at]) for at in starts]
        samples = tuple(np.concatenate(parts) for parts in zip(*samples, strict=True))
        forest = self._forest(samples)
        result = np.zeros(scribbles.shape, bool)
        for at in starts:
            result[at] = self._start(at, forest, scribbles[at])
        # Each start reaches half-way to the next one, or to the end of the box.
        ends = [0, *((starts[1:] + starts[:-1]) // 2 + 1), len(result)]
        for start, low, high in zip(starts, ends, ends[1:], strict=False):
            self._propagate(result, scribbles, range(start - 1, low - 1, -1), start, forest, samples)
            self._propagate(result, scribbles, range(start + 1, high), start, forest, samples)
        return result[0] if self.axis is None else np.moveaxis(result, 0, self.axis)

    def _start(self, at: int, forest, scribbles: np.ndarray) -> np.ndarray:
        """The mask (Y, X) of a slice with foreground scribbles."""
        probability = self._probability(forest, at)
        likely = binary_closing(np.pad(probability >= 0.5, 3), _disk(3))[3:-3, 3:-3] | (scribbles == FOREGROUND)
        pieces, _ = label(likely, np.ones((3, 3)))
        connected = np.isin(pieces, np.unique(pieces[scribbles == FOREGROUND]))
        return self._cut(at, np.where(connected, probability, 0.4 * probability), scribbles)

    def _propagate(self, result, scribbles, way: range, before: int, forest, samples: tuple) -> None:
        """Write the masks of the slices of `way`, from that beside `before` outwards, into `result`."""
        for at in way:
            prior = result[before]
            if prior.sum() <= 10:  # nothing left to follow
                return
            seeds = np.where(scribbles[at] > 0, scribbles[at], seeds_of(prior, self.erosion, self.dilation))
            result[at] = self._cut(at, with_shape(self._probability(forest, at), prior), seeds)
            new = self._samples(at, seeds_of(result[at], self.erosion, self.dilation, ring=True))
            samples = tuple(np.concatenate(parts) for parts in zip(samples, new, strict=True))
            forest, before = self._forest(samples), at

    def _samples(self, at: int, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, features) and whether foreground (n,) of the marked pixels of a slice."""
        return self._features(at)[marks.ravel() > 0], marks[marks > 0] == FOREGROUND

    def _features(self, at: int) -> np.ndarray:
        if self.features[at] is None:
            self.features[at] = pixel_features(self.slices[at])
        return self.features[at]

    def _forest(self, samples: tuple[np.ndarray, np.ndarray]):
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            self.trees,
            max_depth=self.depth,
            min_samples_leaf=self.leaf,
            max_samples=max(1, len(samples[1]) // 2),
            class_weight="balanced",
            random_state=0,
        )
        return forest.fit(*samples)

    def _probability(self, forest, at: int) -> np.ndarray:
        """Of foreground (Y, X)."""
        votes = forest.predict_proba(self._features(at))
        inside = votes[:, 1] if len(forest.classes_) == 2 else np.full(len(votes), float(forest.classes_[0]))
        return inside.reshape(self.slices[at].shape[1:])

    def _cut(self, at: int, probability: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        edges = edges_of(self.slices[at], 4)
        weights = self.smoothness * edges.weights(self.sigma)
        mask = minimum_cut(unary_terms(probability), edges, weights, seeds)
        wide = len(self.disk)
        mask = np.pad(mask, wide, "edge")  # the border of the box is not that of the object
        mask = binary_opening(binary_closing(mask, self.disk), self.disk)
        return mask[wide:-wide, wide:-wide]


def unary_terms(probability: np.ndarray) -> np.ndarray:
    """Costs (2, Y, X) of background and foreground, as published: -log(1 - a + a · p of the label), where `a` is 0.5
    above p = 0.6 and 0.13 below 0.1, and 0.1 between: a forest that is unsure leaves the pixel to its neighbours.
    """
    certainty = np.select([probability > 0.6, probability < 0.1], [0.5, 0.13], 0.1)
    return -np.log(1 - certainty + certainty * np.stack([1 - probability, probability]))


def pixel_features(image: np.ndarray) -> np.ndarray:
    """Features (pixels, n) of a slice (C, Y, X) float, each of mean 0 and standard deviation 1; 31 per channel.

    Intensity: mean m over 5 x 5, its square, cube and exponential, standard deviation over 5 x 5. Gradient: magnitude
    g, its root, square and cube, and a histogram of 8 orientations over 9 x 9 weighted by g and a Gaussian. Texture:
    mean and standard deviation over 8 x 8 of the seven bands of an undecimated Haar wavelet of two levels.
    """
    found = []
    for channel in image.astype(np.float64):
        mean, deviation = _local(channel, 5)
        found += [mean, mean**2, mean**3, np.exp(mean), deviation]
        down, right = (correlate1d(channel, [-1, 0, 1], axis, mode="nearest") for axis in (0, 1))
        magnitude = np.hypot(down, right)
        found += [magnitude, np.sqrt(magnitude), magnitude**2, magnitude**3]
        turn = (np.arctan2(down, right) / (2 * np.pi)) % 1
        direction = np.minimum((turn * ORIENTATIONS).astype(int), ORIENTATIONS - 1)
        window = np.exp(-(np.arange(-4, 5) ** 2) / 16)
        histogram = [
            correlate1d(correlate1d(np.where(direction == k, magnitude, 0), window, 0), window, 1)
            for k in range(ORIENTATIONS)
        ]
        total = np.sum(histogram, axis=0)
        found += [np.divide(part, total, out=np.zeros_like(part), where=total > 0) for part in histogram]
        for band in _haar(channel):
            found += _local(band, ROI)
    table = np.stack([feature.ravel() for feature in found], axis=1)
    spread = table.std(axis=0)
    return ((table - table.mean(axis=0)) / np.where(spread > 1e-12, spread, 1)).astype(np.float32)


def seeds_of(mask: np.ndarray, erosion: int, dilation: int, ring: bool = False) -> np.ndarray:
    """Certain pixels (Y, X) uint8 for the slice beside one with `mask`; `ring`: background only close by, to learn."""
    from skimage.morphology import skeletonize

    core = binary_erosion(mask, _disk(erosion))
    core = skeletonize(core if core.sum() >= 100 else mask)
    near = binary_dilation(mask, _disk(dilation))
    outside = binary_dilation(mask, _disk(dilation + 1)) & ~near if ring else ~near
    return np.select([core, outside], [FOREGROUND, BACKGROUND], 0).astype(np.uint8)


def with_shape(probability: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Lower outside the neighbouring slice's mask, where it exceeds 0.5, and raised inside, most in its middle."""
    depth = distance_transform_cdt(np.pad(prior, 1), "taxicab")[1:-1, 1:-1]
    outside = np.where(probability > 0.5, 0.4 * probability, probability)
    inside = np.where(probability < 0.8, probability + 0.2 * depth / depth.max(), probability)
    return np.where(prior, inside, outside)


def _local(values: np.ndarray, size: int) -> list[np.ndarray]:
    """Mean and standard deviation over size x size pixels."""
    mean = uniform_filter(values, size, mode="nearest")
    return [mean, np.sqrt(np.maximum(uniform_filter(values**2, size, mode="nearest") - mean**2, 0))]


def _haar(channel: np.ndarray) -> list[np.ndarray]:
    """The bands LH, HL, HH of the first level, then of the second, and its LL; all of the channel's shape."""
    bands, low = [], channel
    for step in (1, 2):
        kernel = np.zeros(2 * step + 1)
        kernel[step], kernel[0] = 1, 1
        smooth = kernel / np.sqrt(2)
        kernel[0] = -1
        sharp = kernel / np.sqrt(2)
        along = {name: correlate1d(low, k, 0, mode="nearest") for name, k in (("L", smooth), ("H", sharp))}
        bands += [correlate1d(along[a], k, 1, mode="nearest") for a, k in (("L", sharp), ("H", smooth), ("H", sharp))]
        low = correlate1d(along["L"], smooth, 1, mode="nearest")
    return [*bands, low]


def _disk(radius: int) -> np.ndarray:
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return rows**2 + columns**2 <= radius**2
