"""Near duplicates: images of different patients that show the same thing, such as frames of one film."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

GRID = {2: 32, 3: 24}  # cells per axis
BLUR = 1 / 8  # of the grid: what is smoother than this is the same in all images of one kind, and is taken away
ROWS = 1000  # signatures compared at a time


def signature(image: np.ndarray) -> np.ndarray:
    """What an image (C, X, Y, Z) looks like: its mean channel on a coarse grid, without its coarsest shape.

    Returns float32 of mean 0 and norm 1 (all 0 for a constant image), so that a product of two is their correlation.
    Images of another size, brightness or contrast, or saved again, keep their signature; turned ones do not.
    """
    grey = image.mean(axis=0, dtype=np.float64)
    grey = grey[tuple(slice(None) if n > 1 else 0 for n in grey.shape)]
    cells = GRID[max(2, min(grey.ndim, 3))]
    for axis, n in enumerate(grey.shape):
        starts = np.arange(cells) * n // cells
        sizes = np.maximum(np.diff([*starts, n]), 1)
        grey = np.add.reduceat(grey, starts, axis) / sizes.reshape([-1 if a == axis else 1 for a in range(grey.ndim)])
    fine = grey - gaussian_filter(grey, cells * BLUR)
    fine -= fine.mean()
    norm = np.linalg.norm(fine)
    return (fine / norm if norm > 1e-12 else fine * 0).ravel().astype(np.float32)


def near_duplicates(
    signatures: list[np.ndarray], patients: list[str], threshold: float
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, similarity) of images of different patients that correlate above `threshold`, most alike first."""
    stacked, owner = {}, np.array(patients)
    for number, vector in enumerate(signatures):  # pictures never resemble volumes
        stacked.setdefault(len(vector), []).append(number)
    pairs = []
    for numbers in stacked.values():
        matrix, numbers = np.stack([signatures[n] for n in numbers]), np.array(numbers)
        for first in range(0, len(numbers), ROWS):
            alike = matrix[first : first + ROWS] @ matrix.T
            for a, b in np.argwhere(alike > threshold):
                i, j = int(numbers[first + a]), int(numbers[b])
                if i < j and owner[i] != owner[j]:
                    pairs.append((i, j, float(alike[a, b])))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def groups(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The group of each patient that shares images with another, directly or through others: its first name."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for a, b in pairs:
        low, high = sorted((find(a), find(b)))
        leader[high] = low
    return {name: find(name) for name in sorted(leader)}
