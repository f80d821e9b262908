"""What methods by intensity share: where an image means something, and which structure a level of intensity is.

A method of this kind divides the voxels of each image, by itself and without labels, into K levels ordered by
intensity. Which structure the k-th level is gets decided once per fold, on the training patients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lib.classical import Remember, Subject, about
from lib.data.store import IGNORE
from lib.errors import BadInput

MOST_LEVELS = 10  # the search over mappings takes 3^K steps
MARGIN_SHARE = 0.5  # of the border of the image


class LevelMethod(ABC):
    """Base of methods by intensity. `levels`: how many inside the image, None for as many as there are classes."""

    def __init__(self, levels: int | None, channel: int):
        if levels is not None and (not isinstance(levels, int) or not 2 <= levels <= MOST_LEVELS):
            raise BadInput(f"levels: {levels!r} must be a whole number from 2 to {MOST_LEVELS}, or null.")
        if not isinstance(channel, int) or channel < 0:
            raise BadInput(f"channel: {channel!r} must be the number of a channel of the image, from 0.")
        self.levels, self.channel = levels, channel
        self.mapping: np.ndarray | None = None  # level -> class

    @abstractmethod
    def divide(self, image: np.ndarray, inside: np.ndarray, spacing: Sequence[float], slices: bool) -> np.ndarray:
        """Levels (*S) uint8 in 0..K-1, ordered by intensity, of an image (C, *S) float32; any value outside."""

    def fit(self, training: Sequence[Subject], classes: int, remember: Remember) -> dict:
        """Learn the mapping with the highest mean Dice over training cases and structures."""
        self.set_levels(classes)
        counts = self.counts(training, classes, remember)
        self.mapping, dice = best_mapping(counts)
        return {"mapping": self.mapping.tolist(), "training_dice": dice}

    def set_levels(self, classes: int) -> None:
        self.levels = self.levels or classes
        if self.levels > MOST_LEVELS:
            raise BadInput(f"levels: null means one per class, here {classes}; give a number from 2 to {MOST_LEVELS}.")

    def segment(self, subject: Subject) -> np.ndarray:
        inside = where_inside(subject.image)
        return np.where(inside, self.mapping[self._divided(subject, inside)], 0).astype(np.uint8)

    def counts(self, training: Sequence[Subject], classes: int, remember: Remember, name: str = "counts") -> np.ndarray:
        """Voxels per level and class, (cases, 1 + K, classes); the first row are those outside, always background."""

        def counted(subject: Subject) -> np.ndarray:
            with about(subject):
                inside = where_inside(subject.image)
                rows = np.where(inside, 1 + self._divided(subject, inside), 0)
            scored = subject.label != IGNORE
            pairs = rows[scored].astype(np.int64) * classes + subject.label[scored]
            return np.bincount(pairs, minlength=(1 + self.levels) * classes).reshape(-1, classes)

        return np.stack([remember(f"{name}-{s.name}", lambda s=s: counted(s)) for s in training])

    def _divided(self, subject: Subject, inside: np.ndarray) -> np.ndarray:
        if self.channel >= len(subject.image):
            raise BadInput(f"channel: {self.channel} is not there; the image has {len(subject.image)}, from 0.")
        values = subject.image[self.channel]
        different = np.unique(values[inside])
        if len(different) < 2:
            raise BadInput("the image has no two different intensities, so nothing can be told apart by them.")
        if len(different) <= self.levels:  # as a denoiser may leave it
            return np.searchsorted(different, values).clip(0, len(different) - 1).astype(np.uint8)
        return self.divide(subject.image, inside, subject.spacing, subject.slices)


def where_inside(image: np.ndarray) -> np.ndarray:
    """Where an image (C, *S) means something, (*S) bool: not in the one value that surrounds it.

    Skull-stripping and padding leave an exactly constant margin. Where one value holds most of the border of the array,
    the voxels of that value that hang together with the border are outside; else nothing is.
    """
    from scipy import ndimage  # planning builds methods and needs none of it

    first = image[0]
    border = np.ones(first.shape, bool)
    border[tuple(slice(1, -1) if n > 2 else slice(None) for n in first.shape)] = False
    if not border.any():
        return np.ones(first.shape, bool)
    values, counts = np.unique(image[:, border], axis=1, return_counts=True)
    common = values[:, counts.argmax()]
    if counts.max() < MARGIN_SHARE * border.sum():
        return np.ones(first.shape, bool)
    same = (image == common.reshape(-1, *[1] * first.ndim)).all(axis=0)
    parts, _ = ndimage.label(same)
    return ~np.isin(parts, np.setdiff1d(parts[border & same], 0))


def best_mapping(counts: np.ndarray) -> tuple[np.ndarray, float]:
    """The class of each level that gives the highest mean Dice over cases and structures: exact.

    counts: (cases, 1 + K, C) voxels per level and class, the first row being voxels that are background for certain.
    Returns the mapping (K,) uint8 and its mean Dice; a case without a structure and without its levels counts as 1.
    A structure's Dice depends on its own set of levels alone, so sets are shared out by dynamic programming over
    subsets; of equal mappings the one with fewer levels in structures wins.
    """
    levels, classes = counts.shape[1] - 1, counts.shape[2]
    of_level, of_class = counts.sum(axis=2)[:, 1:], counts.sum(axis=1)
    subsets = [[k for k in range(levels) if bits >> k & 1] for bits in range(2**levels)]

    def dice(structure: int) -> np.ndarray:
        """Mean Dice over cases for each set of levels, (2^K,)"""
        both = np.stack([counts[:, 1:][:, chosen, structure].sum(axis=1) for chosen in subsets])
        size = np.stack([of_level[:, chosen].sum(axis=1) for chosen in subsets]) + of_class[:, structure]
        return np.where(size > 0, 2 * both / np.maximum(size, 1), 1.0).mean(axis=1)

    best, taken = np.zeros(2**levels), []  # of the sets that structures so far may share out
    for structure in range(1, classes):
        gain = dice(structure)
        new, choice = np.empty_like(best), np.zeros(2**levels, int)
        for bits in range(2**levels):
            parts = _subsets_of(subsets[bits])
            values = gain[parts] + best[bits ^ parts]
            choice[bits] = parts[values.argmax()]
            new[bits] = values.max()
        best = new
        taken.append(choice)
    mapping, left = np.zeros(levels, np.uint8), 2**levels - 1
    for structure in range(classes - 1, 0, -1):
        own = taken[structure - 1][left]
        mapping[subsets[own]] = structure
        left ^= own
    return mapping, float(best[-1] / (classes - 1))


def _subsets_of(levels: list[int]) -> np.ndarray:
    """All subsets as bits, small ones first."""
    return np.array([sum(1 << k for k in part) for n in range(len(levels) + 1) for part in combinations(levels, n)])
