"""Objects of label maps, one by one: their boxes, their crops, and the grid on which a network sees a crop.

Source: Wang et al., BIFSeg, IEEE TMI 37(7) 2018. A multi-class set becomes a set of binary instances, each an object
inside its bounding box with a random margin; what kind of object it is, is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from lib.data.preprocess import resample
from lib.data.store import IGNORE
from lib.data.structures import classes_of
from lib.errors import BadInput
from lib.interactive import Crop
from lib.registry import did_you_mean

LONGEST = 4  # times the shorter side that a slice keeps, at most, on the network's grid: thin objects, long boxes


@dataclass(frozen=True)
class Instance:
    """One object: a structure in a slice (2D) or in a volume (3D).

    slice_index: of the slice along the stored axis 0; None in 3D. box: tight around the object, one slice per axis of
    the slice or the volume. size: its pixels or voxels.
    """

    case: str
    patient: str
    structure: str
    slice_index: int | None
    box: tuple[slice, ...]
    size: int


def members_of(structures: dict[str, int | list[int]], names: list[str] | None = None) -> dict[str, list[int]]:
    """The class indices of a store's label that make up each of the structures, of all or of those in `names`.

    structures: as a dataset declares them, {name: label value or values}. Raises BadInput for an unknown name.
    """
    regions = classes_of(structures).regions or [[number] for number in range(1, len(structures) + 1)]
    members = dict(zip(structures, regions, strict=True))
    for name in names or ():
        if name not in members:
            raise BadInput(f"the dataset has no structure '{name}'.{did_you_mean(name, members)}")
    return {name: members[name] for name in (members if names is None else names)}


def instances_of(
    label: np.ndarray,
    members: dict[str, list[int]],
    spatial_dims: int,
    *,
    case: str,
    patient: str,
    min_size: int = 1,
    slices_per_case: int | None = None,
) -> list[Instance]:
    """The instances of a case's label (Z, Y, X) uint8 that have at least `min_size` pixels (2D) or voxels (3D).

    In 3D one per structure; in 2D one per structure and slice along axis 0, the `slices_per_case` largest of each
    structure (all where None, the lower slice first among equals). Structures in the order of `members`.
    """
    found = []
    for structure, classes in members.items():
        mask = np.isin(label, classes)
        parts = [(None, mask)] if spatial_dims == 3 else [*enumerate(mask)]
        sizes = [int(np.count_nonzero(part)) for _, part in parts]
        largest = sorted(range(len(parts)), key=lambda number: -sizes[number])[:slices_per_case]
        for number in largest:
            if sizes[number] >= max(min_size, 1):
                slice_index, part = parts[number]
                box = find_objects(part.astype(np.uint8))[0]
                found.append(Instance(case, patient, structure, slice_index, box, sizes[number]))
    return found


def of_instance(array: np.ndarray, instance: Instance) -> np.ndarray:
    """The slice of an array (…, Z, Y, X) that the instance lies in, or, in 3D, the array itself."""
    return array if instance.slice_index is None else array[..., instance.slice_index, :, :]


def jittered_box(
    instance: Instance, shape: tuple[int, ...], margin: int, rng: np.random.Generator
) -> tuple[slice, ...]:
    """The instance's box, moved out by 0 to `margin` pixels (each as likely) on every side, inside an image of `shape`.

    The margin in the paper's training is 0 to 10 (recalled).
    """
    return grown(instance.box, shape, rng.integers(0, margin + 1, (len(shape), 2)))


def grown(box: tuple[slice, ...], shape: tuple[int, ...], margins: np.ndarray) -> tuple[slice, ...]:
    """A box moved out by `margins` (axes, 2) int pixels at its low and high ends, cut at the border of the image."""
    return tuple(
        slice(max(0, side.start - int(low)), min(n, side.stop + int(high)))
        for side, n, (low, high) in zip(box, shape, margins, strict=True)
    )


def crop(image: np.ndarray, box: tuple[slice, ...], spacing: tuple[float, ...]) -> Crop:
    """The part of an image (C, *S) in a box, as methods see it; spacing per axis of *S."""
    return Crop(np.array(image[(slice(None), *box)], np.float32), tuple(float(side) for side in spacing))


def standardised(image: np.ndarray) -> np.ndarray:
    """A crop (C, *S) with mean 0 and standard deviation 1 per channel; a constant channel becomes 0. float32."""
    axes = tuple(range(1, image.ndim))
    image = image.astype(np.float64)
    centred = image - image.mean(axes, keepdims=True)
    deviation = image.std(axes, keepdims=True)
    # Rounding leaves a constant channel a deviation of some ulp, which must not be blown up to noise.
    flat = deviation <= 1e-6 * np.abs(image).max(axes, keepdims=True)
    return np.where(flat, 0, centred / np.where(flat, 1, deviation)).astype(np.float32)


def network_shape(shape: tuple[int, ...], size: int | None) -> tuple[int, ...]:
    """The grid on which a network sees a crop of `shape`: shorter side `size` in 2D, longest side `size` in 3D.

    The aspect ratio is kept, except that a slice's longer side ends at LONGEST times `size` (ours; else the memory for
    a thin object has no bound). None keeps the crop's own grid. The paper's sizes are 96 and 80 (recalled).
    """
    if size is None:
        return tuple(shape)
    factor = size / (min(shape) if len(shape) == 2 else max(shape))
    longest = size * (LONGEST if len(shape) == 2 else 1)
    return tuple(min(max(1, round(side * factor)), longest) for side in shape)


def resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An image (C, *S) float on the grid `shape`, by linear interpolation over the same field of view."""
    return np.stack([resample(channel, list(shape)) for channel in image])


def resized_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask (*S) bool on the grid `shape`: where its linear interpolation exceeds one half."""
    return mask if mask.shape == tuple(shape) else resample(mask.astype(np.float32), list(shape)) > 0.5


def resized_scribbles(scribbles: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scribbles (*S) uint8 on the grid `shape`, so that no mark is lost: each pixel takes the mark of the nearest one
    there, and each mark is put on the pixel that holds its centre. Where two meet, foreground stays.
    """
    if scribbles.shape == tuple(shape):
        return scribbles
    nearest = [(2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(shape, scribbles.shape, strict=True)]
    result = scribbles[np.ix_(*nearest)]
    where = np.array(np.nonzero(scribbles))
    marks = scribbles[tuple(where)]
    sizes = np.array(scribbles.shape)[:, None]
    there = (2 * where + 1) * np.array(shape)[:, None] // (2 * sizes)
    for mark in np.unique(marks):  # foreground is the larger value, so it comes last
        result[tuple(there[:, marks == mark])] = mark
    return result


def binary_label(label: np.ndarray, classes: list[int]) -> np.ndarray:
    """A label (*S) uint8 of classes as that of one structure: 1 inside, 0 outside, IGNORE as it was."""
    return np.where(label == IGNORE, IGNORE, np.isin(label, classes)).astype(np.uint8)
