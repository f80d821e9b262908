"""GrowCut: labels as bacteria that conquer their neighbours, a cellular automaton."""

from __future__ import annotations

import itertools

import numpy as np

from lib.interactive import FOREGROUND
from lib.interactive.seeded import Seeded
from lib.registry import register


@register("growcut")
class GrowCut(Seeded):
    """GrowCut in 2D and 3D, until no cell changes any more.

    Every scribbled pixel starts with strength 1. A neighbour q (of 8 or 26, Moore) takes p where
    g(‖C_p - C_q‖) · strength_q > strength_p, with g(x) = 1 - x / max‖C‖; p then has q's label and that strength. Of
    several attackers the strongest wins; the paper leaves it to their order, which moves nothing but ties once the
    automaton is stable. max‖C‖ is that of the crop, each channel shifted to begin at 0.

    Only cells that changed attack again, as no other attack can succeed. The strengths that remain are, for each
    pixel, the largest product of g over the paths from a scribble.
    Cite: vezhnevets2005
    """

    def grow(self, scribbles: np.ndarray) -> np.ndarray:
        around = [(0, 0)] + [(1, 1)] * scribbles.ndim  # so that every cell has all neighbours
        colours = self.image - self.image.min(axis=tuple(range(1, self.image.ndim)), keepdims=True)
        largest = max(float(np.sqrt(np.square(colours).sum(axis=0).max())), np.finfo(np.float32).tiny)
        padded = np.pad(colours.astype(np.float64), around)
        labels = np.pad(scribbles, around[1:])
        strength = (labels > 0).astype(np.float64)
        strength[~np.pad(np.ones(scribbles.shape, bool), around[1:])] = np.inf  # nobody takes the frame
        shape, inside = labels.shape, (slice(1, -1),) * scribbles.ndim
        colours, labels, strength = padded.reshape(len(padded), -1), labels.ravel(), strength.ravel()
        steps = [np.prod(shape[axis + 1 :], dtype=int) for axis in range(len(shape))]
        offsets = [int(np.dot(o, steps)) for o in itertools.product((-1, 0, 1), repeat=len(shape)) if any(o)]

        active = np.flatnonzero(labels > 0)
        while active.size:
            force, owner = strength[active], labels[active]  # of all attacks of this step
            changed = np.zeros(labels.size, bool)
            for offset in offsets:
                target = active + offset
                apart = np.sqrt(np.square(colours[:, active] - colours[:, target]).sum(axis=0))
                attack = (1 - apart / largest) * force
                won = attack > strength[target]
                strength[target[won]], labels[target[won]] = attack[won], owner[won]
                changed[target[won]] = True
            active = np.flatnonzero(changed)
        return labels.reshape(shape)[inside] == FOREGROUND
