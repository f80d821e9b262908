"""Label maps as the metrics take them: checked, without axes of length 1, along the rows in memory, cropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lib.errors import BadInput


def prepared(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both label maps without axes of length 1, last axis contiguous where they allow it, and the spacing to match.

    Raises BadInput for shapes that differ, labels that are not integers, a spacing that makes no sense.
    """
    prediction, reference = _label_map(prediction, "prediction"), _label_map(reference, "reference")
    if prediction.shape != reference.shape:
        raise BadInput(
            f"The prediction has shape {prediction.shape} and the reference {reference.shape}; "
            "resample the prediction to the geometry of the case first."
        )
    shape, step = true_axes(prediction.shape, spacing)
    prediction, reference = prediction.reshape(shape), reference.reshape(shape)
    if reference.flags.f_contiguous:  # as NIfTI is read
        return prediction.T, reference.T, step[::-1]
    return prediction, reference, step


def true_axes(shape: tuple[int, ...], spacing: Sequence[float]) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and spacing without axes of length 1: a single slice is a 2-D image, not a volume of border."""
    step = np.asarray(spacing, dtype=float)
    if step.shape != (len(shape),) or not np.all(np.isfinite(step)) or np.any(step <= 0):
        raise BadInput(f"The spacing is {spacing!r} for shape {shape}; give one number > 0 per axis.")
    axes = [axis for axis, n in enumerate(shape) if n > 1] or [0]
    return tuple(shape[axis] for axis in axes), step[axes]


def label_values(structures: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The label values of each structure; raises BadInput where there is none, or one is no integer."""
    if not structures:
        raise BadInput("No structures to score; name at least one, for example {'liver': 1}.")
    labels = {n: tuple(v) if isinstance(v, Sequence) else (v,) for n, v in structures.items()}
    for name, values in labels.items():
        if not values or not all(isinstance(v, (int, np.integer)) for v in values):
            raise BadInput(f"Structure '{name}' has the labels {structures[name]!r}; give one or more integers.")
    return labels


def mask_of(labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Where a label is one of the values."""
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask


def crop(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays cut to the smallest box that holds every non-zero value of either (views)."""
    for axis in range(a.ndim):
        others = tuple(i for i in range(a.ndim) if i != axis)
        used = np.flatnonzero(_any(a, others) | _any(b, others))
        box = [slice(None)] * a.ndim
        box[axis] = slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
        a, b = a[tuple(box)], b[tuple(box)]
    return a, b


def presence(n_prediction: int, n_reference: int) -> str:
    """The status of a structure by its voxels in the prediction and in the reference."""
    if n_prediction and n_reference:
        return "scored"
    if n_reference:
        return "missed"
    return "hallucinated" if n_prediction else "both_empty"


def _label_map(array: np.ndarray, what: str) -> np.ndarray:
    array = np.asanyarray(array)
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype.kind not in "iu":
        raise BadInput(
            f"The {what} holds {array.dtype} values; labels must be integers, so round or threshold them first."
        )
    if array.ndim not in (2, 3) or array.size == 0:
        raise BadInput(f"The {what} has shape {array.shape}; a label map has 2 or 3 axes and some voxels.")
    return array


def _any(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return array.view(f"u{array.itemsize}").max(axis=axes, initial=0) > 0  # an order of magnitude faster than any()
