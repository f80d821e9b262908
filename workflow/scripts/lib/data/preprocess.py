"""From files to arrays that a training opens in milliseconds, and from a network's output back to the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from scipy.ndimage import zoom

from lib.data.nifti import load_image, load_label
from lib.errors import BadInput
from lib.files import atomic, write_json

SLICE_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}  # axis of a canonical (RAS) volume across the slices
CROP_MARGIN = 2  # voxels


def preprocess_cases(
    index: pd.DataFrame,
    folder: str | Path,
    dataset: str,
    condition: str,
    structures: dict[str, int | list[int]],
    settings: dict,
) -> None:
    """Write the store of all cases of `index` to `folder`, complete or not at all.
    `settings`: spacing [x, y, z] in mm along the axes of the canonical (RAS) volume, null = keep; slices
    axial, coronal, sagittal or null; intensity zscore or none; crop nonzero or null. Each case is treated by
    itself, in this order: intensity (z-score: mean and SD of the non-zero voxels of the whole image, applied
    to all voxels), canonical orientation without interpolation, crop to the box of the raw image's non-zero
    voxels and a small margin, linear resampling (labels: one class at a time, the largest wins), slice axis
    first. A structure of several label values is one class, written back as the first of them. Raises
    BadInput for conditions other than `clean`.
    """
    if condition != "clean":
        raise BadInput(f"conditions: '{condition}' is not available yet; the only condition is `clean: {{}}`")
    values = [[0], *(value if isinstance(value, list) else [value] for value in structures.values())]
    slices = settings.get("slices")
    spatial = {"spatial_dims": 2 if slices else 3, "slice_axis": 0 if slices else None}
    cases = {}
    with atomic(folder) as temporary:
        temporary.mkdir()
        for row in index.itertuples():
            raw, spacing, affine = load_image(row.image)
            labels, _, _ = load_label(row.label)
            geometry = plan(raw, spacing, affine, settings)
            image = _to_stored(_normalised(raw, settings.get("intensity", "zscore"), row.image), geometry)
            label = np.zeros(geometry["stored"], np.uint8)
            best = np.full(geometry["stored"], -1, np.float32)
            for number, belonging in enumerate(values):
                _keep_largest(label, best, number, _to_stored(np.isin(labels, belonging).astype(np.float32), geometry))
            np.save(temporary / f"{row.case}.image.npy", image[None])
            np.save(temporary / f"{row.case}.label.npy", label)
            cases[row.case] = {
                "patient": row.patient,
                "shape": geometry["stored"],
                "spacing": geometry.pop("spacing"),
                "voxels": np.bincount(label.ravel(), minlength=len(values)).tolist(),
                "sha256": hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest(),
                "geometry": geometry,
            }
        meta = {"dataset": dataset, "condition": condition, "classes": ["background", *structures]}
        meta |= {"values": [belonging[0] for belonging in values], "channels": 1, **spatial, "cases": cases}
        write_json(temporary / "store.json", meta)


def restore(probabilities: np.ndarray, geometry: dict) -> np.ndarray:
    """Class indices (X, Y, Z) uint8 on the grid of the case's file, from `probabilities` (C, *stored) float.
    `geometry` is the case's entry of store.json. Each class is resampled linearly to the original grid, the
    largest wins (the lower class on ties), then orientation and axis order are undone; outside the crop is
    background. With no resampling the argmax comes back voxel by voxel. Raises ValueError when the shape is
    not the stored one.
    """
    if list(probabilities.shape[1:]) != geometry["stored"]:
        raise ValueError(f"probabilities of shape {probabilities.shape} do not fit {geometry['stored']} of the store")
    orientation = np.array(geometry["orientation"])
    box = tuple(slice(low, high) for low, high in geometry["crop"])
    size = [high - low for low, high in geometry["crop"]]
    label = np.zeros(size, np.uint8)
    best = np.full(size, -np.inf, np.float32)
    for number, values in enumerate(probabilities):
        values = np.transpose(values.astype(np.float32, copy=False), np.argsort(geometry["axes"]))
        _keep_largest(label, best, number, _resample(values, size))
    canonical = np.zeros([geometry["shape"][int(axis)] for axis in np.argsort(orientation[:, 0])], np.uint8)
    canonical[box] = label
    return np.ascontiguousarray(apply_orientation(canonical, ornt_transform(axcodes2ornt("RAS"), orientation)))


def plan(raw: np.ndarray, spacing: np.ndarray, affine: np.ndarray, settings: dict) -> dict:
    """The geometry of one case: what `restore` needs, JSON-able, and the spacing of the stored axes.
    shape: of the file; orientation: nibabel's (axis, flip) per axis of the file, to RAS; crop: [low, high)
    per RAS axis; axes: the RAS axis of each stored axis; stored: shape of the stored arrays; spacing: mm per
    stored axis.
    """
    orientation = io_orientation(affine)
    order = np.argsort(orientation[:, 0])  # file axis of each RAS axis
    canonical = apply_orientation(raw, orientation)
    if settings.get("crop") == "nonzero":
        crop = [_extent((canonical != 0).any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    else:
        crop = [[0, n] for n in canonical.shape]
    size = [high - low for low, high in crop]
    resampled, actual = [], []
    for n, side, target in zip(size, spacing[order], settings.get("spacing") or [None] * 3, strict=True):
        resampled.append(max(1, round(n * side / target)) if target else n)
        actual.append(float(n * side / resampled[-1]))
    across = SLICE_AXIS.get(settings.get("slices"))
    axes = [0, 1, 2] if across is None else [across, *sorted({0, 1, 2} - {across})]
    return {
        "shape": list(raw.shape),
        "orientation": orientation.astype(int).tolist(),
        "crop": crop,
        "axes": axes,
        "stored": [resampled[axis] for axis in axes],
        "spacing": [actual[axis] for axis in axes],
    }


def _extent(occupied: np.ndarray) -> list[int]:
    """[low, high) around the True entries with the margin; everything if there is none."""
    where = np.flatnonzero(occupied)
    if not where.size:
        return [0, len(occupied)]
    return [max(0, int(where[0]) - CROP_MARGIN), min(len(occupied), int(where[-1]) + 1 + CROP_MARGIN)]


def _normalised(raw: np.ndarray, intensity: str, path: str) -> np.ndarray:
    if intensity == "none":
        return raw
    inside = raw[raw != 0].astype(np.float64)
    if not inside.size or inside.std() == 0:
        raise BadInput(f"{path}: its non-zero voxels have no spread, so no z-score; set preprocess.intensity: none")
    return ((raw - inside.mean()) / inside.std()).astype(np.float32)


def _to_stored(array: np.ndarray, geometry: dict) -> np.ndarray:
    """An array on the file's grid, float32, to the stored grid."""
    box = tuple(slice(low, high) for low, high in geometry["crop"])
    canonical = apply_orientation(array, np.array(geometry["orientation"]))[box]
    size = [geometry["stored"][at] for at in np.argsort(geometry["axes"])]
    return np.ascontiguousarray(np.transpose(_resample(canonical, size), geometry["axes"]))


def _resample(array: np.ndarray, size: list[int]) -> np.ndarray:
    """Linear interpolation to `size` over the same field of view; voxels are boxes, edges are held."""
    if list(array.shape) == list(size):
        return array
    factors = [new / old for new, old in zip(size, array.shape, strict=True)]
    return zoom(array, factors, order=1, mode="nearest", grid_mode=True)


def _keep_largest(label: np.ndarray, best: np.ndarray, number: int, values: np.ndarray) -> None:
    """Write `number` into `label` where `values` exceed `best`, in place: an argmax, one class at a time."""
    larger = values > best
    label[larger] = number
    best[larger] = values[larger]
