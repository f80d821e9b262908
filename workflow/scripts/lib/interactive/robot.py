"""Simulated users: they see the reference, look at a segmentation and mark where it is wrong."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from lib.errors import BadInput
from lib.interactive import BACKGROUND, FOREGROUND
from lib.interactive.seeded import border_of

SMALLEST = {2: 10, 3: 30}  # pixels, voxels: nobody corrects less
STRATEGIES = ("centre", "random")
MARKS = ("scribble", "click")


class Robot:
    """One simulated user at one instance. What it marks is true: FOREGROUND only inside the object, BACKGROUND only
    outside, and always within one connected error of the segmentation.

    Errors are the components (8- or 26-connected) of what the segmentation leaves out and of what it adds, without
    those below SMALLEST. strategy "centre": the largest error (of equal ones what is left out), along its middle, as
    RITM and the CVPR 2025 challenge choose clicks. strategy "random": a place drawn evenly from all errors, since real
    users do not always aim at the middle (RClicks).

    mark "scribble", at most `length` pixels long and one wide: "centre" draws along the longest path of the error's
    skeleton, around the pixel that lies deepest; "random" from the drawn pixel towards another one of the same error,
    by the shortest way inside. mark "click": a disk of `radius` pixels around the deepest or the drawn pixel, cut to
    the error. In a volume one slice is marked, across the axis with the largest spacing (the first of equal ones):
    where the error has its largest area, or that of the drawn voxel.

    `seed`: what `numpy.random.default_rng` takes; `lib.data.conditions.case_rng(dataset, case, instance, repeat)` gives
    every instance a stream of its own. A robot remembers nothing but the state of its stream: what it sees alone
    decides what it marks, so a method that ignores a mark may be shown the same again.
    Cite: sofiiuk2022, antonov2024
    """

    def __init__(self, strategy: str = "centre", mark: str = "scribble", seed=0, length: int = 20, radius: int = 2):
        for key, value, known in (("strategy", strategy, STRATEGIES), ("mark", mark, MARKS)):
            if value not in known:
                raise BadInput(f"A robot's {key} is '{value}'; it must be one of {', '.join(known)}.")
        self.strategy, self.mark, self.length, self.radius = strategy, mark, length, radius
        self.rng = np.random.default_rng(seed)

    def converged(self, prediction: np.ndarray, reference: np.ndarray) -> bool:
        """Whether no error is left that a user would correct; both bool (*S)."""
        return all(not sizes.any() for _, sizes in _errors(prediction, reference, SMALLEST[reference.ndim]))

    def scribble(
        self, prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], smallest: int | None = None
    ) -> np.ndarray | None:
        """New marks, uint8 (*S), for a segmentation bool (*S), or None where no error has `smallest` voxels."""
        smallest = SMALLEST[reference.ndim] if smallest is None else smallest
        (missing, missing_sizes), (added, added_sizes) = _errors(prediction, reference, smallest)
        totals = missing_sizes.sum(), added_sizes.sum()
        if not any(totals):
            return None
        if self.strategy == "centre":
            foreground = missing_sizes.max() >= added_sizes.max()
            labels, sizes = (missing, missing_sizes) if foreground else (added, added_sizes)
            component, drawn = labels == sizes.argmax(), None
        else:
            number = self.rng.integers(sum(totals))
            foreground = number < totals[0]
            labels, sizes = (missing, missing_sizes) if foreground else (added, added_sizes)
            at = np.flatnonzero(sizes[labels])[number if foreground else number - totals[0]]
            drawn = tuple(int(i) for i in np.unravel_index(at, labels.shape))
            component = labels == labels[drawn]
        marks = np.zeros(reference.shape, np.uint8)
        marks[self._pixels(component, drawn, spacing)] = FOREGROUND if foreground else BACKGROUND
        return marks

    def seed(self, reference: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray | None:
        """The first mark inside the object for a method that needs seeds, however small it is; None where none is."""
        return self.scribble(np.zeros_like(reference), reference, spacing, smallest=1)

    def border(self, reference: np.ndarray) -> np.ndarray:
        """The border of the box as BACKGROUND, uint8 (*S), but where it touches the object."""
        return np.where(border_of(reference.shape) & ~reference, BACKGROUND, 0).astype(np.uint8)

    def _pixels(
        self, component: np.ndarray, drawn: tuple[int, ...] | None, spacing: tuple[float, ...]
    ) -> tuple[np.ndarray | int, ...]:
        """The index of what is marked in one error (*S); `drawn` for the random strategy."""
        if component.ndim == 2:
            return tuple(self._in_plane(component, drawn, spacing).T)
        axis = int(np.argmax(spacing))
        others = tuple(a for a in range(3) if a != axis)
        at = drawn[axis] if drawn else int(component.sum(axis=others).argmax())
        in_plane = self._in_plane(
            component.take(at, axis), drawn and tuple(drawn[a] for a in others), [spacing[a] for a in others]
        )
        return tuple(np.insert(in_plane, axis, at, axis=1).T)

    def _in_plane(self, area: np.ndarray, drawn: tuple[int, int] | None, spacing) -> np.ndarray:
        """(n, 2) pixels in one piece of `area`: that of `drawn`, else the largest."""
        pieces, _ = label(area, np.ones((3, 3)))
        piece = pieces == (pieces[drawn] if drawn else np.bincount(pieces.ravel())[1:].argmax() + 1)
        if self.strategy == "random":
            return self._disk(piece, drawn) if self.mark == "click" else self._towards_another(piece, drawn)
        depth = distance_transform_edt(np.pad(piece, 1), sampling=spacing)[1:-1, 1:-1]
        if self.mark == "click":
            return self._disk(piece, np.unravel_index(depth.argmax(), depth.shape))
        return self._along_middle(piece, depth)

    def _disk(self, piece: np.ndarray, centre: tuple[int, int]) -> np.ndarray:
        rows, columns = np.ogrid[: piece.shape[0], : piece.shape[1]]
        return np.argwhere(piece & ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= self.radius**2))

    def _along_middle(self, piece: np.ndarray, depth: np.ndarray) -> np.ndarray:
        from skimage.morphology import skeletonize

        path = _longest_path(skeletonize(piece))
        along = depth[tuple(path.T)]
        deepest = np.flatnonzero(np.isclose(along, along.max()))
        centre = deepest[np.abs(deepest - (len(path) - 1) / 2).argmin()]
        start = int(np.clip(centre - self.length // 2, 0, max(0, len(path) - self.length)))
        return path[start : start + self.length]

    def _towards_another(self, piece: np.ndarray, drawn: tuple[int, int]) -> np.ndarray:
        from skimage.graph import route_through_array

        places = np.argwhere(piece)
        end = places[self.rng.integers(len(places))]
        path, _ = route_through_array(np.where(piece, 1, -1), drawn, end)  # -1: no way through
        return np.array(path[: self.length])


def _errors(prediction: np.ndarray, reference: np.ndarray, smallest: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of what is missing, then of what is added: numbered components, and their sizes by number, 0 if too small."""
    found = []
    for error in (reference & ~prediction, prediction & ~reference):
        labels, _ = label(error, np.ones((3,) * error.ndim))
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        found.append((labels, np.where(sizes < smallest, 0, sizes)))
    return found


def _longest_path(skeleton: np.ndarray) -> np.ndarray:
    """(n, 2) pixels from one end to the other of the longest shortest path, by two sweeps: exact in a tree."""
    from skimage.graph import MCP_Geometric

    costs = np.where(skeleton, 1, -1)
    end = tuple(np.argwhere(skeleton)[0])
    for _ in range(2):
        start, ways = end, MCP_Geometric(costs)
        lengths, _ = ways.find_costs([start])
        end = np.unravel_index(np.where(np.isfinite(lengths), lengths, -1).argmax(), lengths.shape)
    return np.array(ways.traceback(end))
