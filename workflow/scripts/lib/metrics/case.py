"""All metrics of one case: overlap from voxel counts, surface metrics from one search between border voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib.errors import BadInput
from lib.metrics.surface import border_distances

# 1: higher is better, -1: lower is better, 0: the metric describes and never ranks
DIRECTION = {"dice": 1, "iou": 1, "precision": 0, "recall": 0, "hd95": -1, "assd": -1, "nsd": 1, "rvd": 0}
METRICS = tuple(DIRECTION)
DISTANCES = ("hd95", "assd")
_COLUMNS = ["structure", "metric", "value", "unit", "status"]
_TIE = 1 + 1e-6  # a distance equal to the tolerance counts as within it, whatever its last bits


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    structures: Mapping[str, int | Sequence[int]],
    tolerance: float,
    unit: str = "mm",
) -> pd.DataFrame:
    """Score one label map against its reference, per structure; the definitions are in docs/metrics.md.

    `prediction`, `reference`: integer or boolean label maps of equal shape, 2-D or 3-D. `spacing`: mm per
    array axis (1 per axis and `unit="px"` for images without spacing). `structures`: name -> label value, or
    several values whose union is the structure. `tolerance`: of the NSD, in `unit`.

    Returns one row per structure x metric: structure, metric, value (finite), unit ("" for ratios), status
    ("scored"; "missed" where only the reference has the structure; "hallucinated" where only the prediction
    has it; "both_empty"). Raises BadInput for shapes that differ, labels that are not integers, a spacing or
    tolerance that makes no sense.
    """
    prediction, reference = _label_map(prediction, "prediction"), _label_map(reference, "reference")
    if prediction.shape != reference.shape:
        raise BadInput(
            f"The prediction has shape {prediction.shape} and the reference {reference.shape}; "
            "resample the prediction to the geometry of the case first."
        )
    labels = _labels(structures)
    if not (np.isscalar(tolerance) and math.isfinite(tolerance) and tolerance >= 0):
        raise BadInput(f"The tolerance is {tolerance!r}; give a number >= 0 in {unit}.")
    shape, step = _true_axes(prediction.shape, spacing)
    diagonal = float(np.linalg.norm(np.multiply(shape, step)))
    prediction, reference = prediction.reshape(shape), reference.reshape(shape)

    if prediction.flags.f_contiguous and reference.flags.f_contiguous:  # as NIfTI is read: no copy
        prediction, reference, step = prediction.T, reference.T, step[::-1]
    prediction, reference = np.ascontiguousarray(prediction), np.ascontiguousarray(reference)
    if not any(0 in values for values in labels.values()):
        prediction, reference = _crop(prediction, reference)

    rows = []
    for name, values in labels.items():
        masks = _crop(_mask(prediction, values), _mask(reference, values))
        status, scores = _score_structure(*masks, step, tolerance, diagonal)
        rows += [(name, m, scores[m], unit if m in DISTANCES else "", status) for m in METRICS]
    return pd.DataFrame(rows, columns=_COLUMNS)


def worst_scores(
    shape: Sequence[int], spacing: Sequence[float], structures: Mapping[str, object], unit: str = "mm"
) -> pd.DataFrame:
    """The rows of a case that a failed method did not predict: as if every structure were missed.

    Same columns as `score_case`, status "failed", for a case of this shape and spacing (mm per axis).
    """
    values = _missed(float(np.linalg.norm(np.multiply(*_true_axes(tuple(shape), spacing)))))
    rows = [
        (name, metric, values[metric], unit if metric in DISTANCES else "", "failed")
        for name in structures
        for metric in METRICS
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _score_structure(
    p: np.ndarray, r: np.ndarray, spacing: np.ndarray, tolerance: float, diagonal: float
) -> tuple[str, dict[str, float]]:
    n_p, n_r = np.count_nonzero(p), np.count_nonzero(r)
    if n_p == 0 and n_r == 0:
        perfect = dict.fromkeys(("dice", "iou", "precision", "recall", "nsd"), 1.0)
        return "both_empty", perfect | {"hd95": 0.0, "assd": 0.0, "rvd": 0.0}
    if n_p == 0:
        return "missed", _missed(diagonal)
    if n_r == 0:
        return "hallucinated", _missed(diagonal) | {"rvd": 1.0}
    both = np.count_nonzero(p & r)
    to_reference, to_prediction = border_distances(p, r, spacing)
    n_border = len(to_reference) + len(to_prediction)
    within = sum(np.count_nonzero(d <= tolerance * _TIE) for d in (to_reference, to_prediction))
    return "scored", {
        "dice": 2 * both / (n_p + n_r),
        "iou": both / (n_p + n_r - both),
        "precision": both / n_p,
        "recall": both / n_r,
        "hd95": float(max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95))),
        "assd": float(to_reference.sum() + to_prediction.sum()) / n_border,
        "nsd": within / n_border,
        "rvd": (n_p - n_r) / n_r,
    }


def _missed(diagonal: float) -> dict[str, float]:
    zero = dict.fromkeys(("dice", "iou", "precision", "recall", "nsd"), 0.0)
    return zero | {"hd95": diagonal, "assd": diagonal, "rvd": -1.0}


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


def _labels(structures: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    if not structures:
        raise BadInput("No structures to score; name at least one, for example {'liver': 1}.")
    labels = {n: tuple(v) if isinstance(v, Sequence) else (v,) for n, v in structures.items()}
    for name, values in labels.items():
        if not values or not all(isinstance(v, (int, np.integer)) for v in values):
            raise BadInput(f"Structure '{name}' has the labels {structures[name]!r}; give one or more integers.")
    return labels


def _true_axes(shape: tuple[int, ...], spacing: Sequence[float]) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and spacing without axes of length 1: a single slice is a 2-D image, not a volume of border."""
    step = np.asarray(spacing, dtype=float)
    if step.shape != (len(shape),) or not np.all(np.isfinite(step)) or np.any(step <= 0):
        raise BadInput(f"The spacing is {spacing!r} for shape {shape}; give one number > 0 per axis.")
    axes = [axis for axis, n in enumerate(shape) if n > 1] or [0]
    return tuple(shape[axis] for axis in axes), step[axes]


def _mask(labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask


def _crop(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays cut to the smallest box that holds every non-zero value of either (views)."""
    for axis in range(a.ndim):
        others = tuple(i for i in range(a.ndim) if i != axis)
        used = np.flatnonzero(_any(a, others) | _any(b, others))
        box = [slice(None)] * a.ndim
        box[axis] = slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
        a, b = a[tuple(box)], b[tuple(box)]
    return a, b


def _any(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    if array.dtype.kind == "u":  # an order of magnitude faster than any()
        return array.max(axis=axes, initial=0) > 0
    return array.any(axis=axes)
