"""What traditional methods share: growing from scribbles of both kinds, neighbours with their distance in space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lib.interactive import BACKGROUND, FOREGROUND, Crop
from lib.interactive.graph_cut import NEIGHBOURHOODS, Edges, edges_of
from lib.interactive.instances import standardised


class Seeded:
    """A method that needs a scribble; where only one kind of scribble is there, everything is of that kind.

    Subclasses write `grow`: scribbles (*S) uint8 of both kinds -> bool (*S), from `self.image` (C, *S) float32,
    standardised per channel inside the crop, and `self.spacing`. Scribbled pixels keep their label whatever it says.
    """

    needs_seeds = True

    def begin(self, crop: Crop) -> None:
        self.image, self.spacing = standardised(crop.image), crop.spacing

    def segment(self, scribbles: np.ndarray) -> np.ndarray:
        foreground = scribbles == FOREGROUND
        if not foreground.any() or not (scribbles == BACKGROUND).any():
            return np.full(scribbles.shape, foreground.any())
        return np.where(scribbles > 0, foreground, self.grow(scribbles))

    def grow(self, scribbles: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def border_of(shape: tuple[int, ...]) -> np.ndarray:
    """The outermost voxels of a box, bool; an axis of one or two has no inside, and so no border."""
    border = np.ones(shape, bool)
    border[tuple(slice(1, -1) if n > 2 else slice(None) for n in shape)] = False
    return border


def edges_in_space(image: np.ndarray, spacing: tuple[float, ...]) -> Edges:
    """All 8 (6 in 3D) neighbours of an image (C, *S), their distance in units of the smallest side of a voxel."""
    shape = image.shape[1:]
    edges = edges_of(image, {2: NEIGHBOURHOODS[2][1], 3: NEIGHBOURHOODS[3][0]}[len(shape)])
    steps = np.subtract(np.unravel_index(edges.second, shape), np.unravel_index(edges.first, shape))
    sides = np.divide(spacing, min(spacing))
    return replace(edges, distance=np.linalg.norm(steps * sides[:, None], axis=0))
