"""What the methods share that grow a segmentation from scribbles of both kinds."""

from __future__ import annotations

import numpy as np

from lib.interactive import BACKGROUND, FOREGROUND, Crop
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
