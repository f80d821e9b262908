"""Interactive segmentation, measured by simulated users: methods that see a box and scribbles, and robots that see the
reference.

Docs: docs/interactive.md. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lib.registry import Registry

METHODS = Registry("lib.interactive.methods")

# Of structures: those that a network is trained on, and those that it never sees before the test.
GROUPS = ("seen", "unseen")
# Values of scribbles; 0 is a pixel that nobody marked.
BACKGROUND, FOREGROUND = 1, 2


@dataclass(frozen=True)
class Crop:
    """What a method may see of an instance: the image inside the box.

    image: float32 (C, *S), intensities as the store has them, *S = (Y, X) in 2D and (Z, Y, X) in 3D; a method that
    needs them standardised does so inside the crop. spacing: mm (px for pictures without) per axis of *S.
    """

    image: np.ndarray
    spacing: tuple[float, ...]


class InteractiveMethod(Protocol):
    """A method of the registry, built as `METHODS.get(name)(**parameters)`.

    One with a trained network takes the folder that training wrote as the keyword `network: Path | None`.
    """

    # A method that segments nothing without a scribble (random walker, GeoS, GrowCut, Slic-Seg) starts with the border
    # of the box as background and one scribble inside the object, which count as one interaction.
    needs_seeds: bool

    def begin(self, crop: Crop) -> None:
        """A new instance; nothing of the last one may remain."""

    def segment(self, scribbles: np.ndarray) -> np.ndarray:
        """All scribbles so far, uint8 (*S), to the segmentation, bool (*S). Deterministic.

        The first call is without scribbles unless the method needs seeds.
        """
