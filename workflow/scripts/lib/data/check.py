"""The health of a dataset, before anything is trained: all problems at once, each with its file."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import nibabel as nib
import numpy as np
import pandas as pd

from lib.data.nifti import load_image, load_label
from lib.errors import BadInput
from lib.provenance import value_hash

AFFINE_TOLERANCE = 0.05  # of the smallest voxel side; rounding in headers stays far below


def check_cases(index: pd.DataFrame, structures: dict[str, int | list[int]], dataset: str) -> dict:
    """Read every image and label map of `index` and return what check.json holds.
    Per case: shape, spacing (mm) and orientation of the file's axes, voxels per label value, intensity range
    and mean, and SHA-256 of the decoded voxels of image and label; over all: warnings and data_hash (cases,
    patients, voxels, affines). Raises one BadInput that lists every problem with its file: files that cannot
    be read; image and label of different shape or affine; NaN or infinity; a constant image; labels that are
    not whole numbers, are not declared, or are all background; a declared structure that no case has; one
    image under two patients.
    """
    declared = {name: value if isinstance(value, list) else [value] for name, value in structures.items()}
    allowed = {0, *(value for values in declared.values() for value in values)}
    problems, warnings, cases, affines = [], [], [], []
    undeclared: set[int] = set()
    present: Counter[int] = Counter()
    lacking: dict[str, list[str]] = defaultdict(list)
    same_image: dict[str, list] = defaultdict(list)
    complete = True  # every label map was read, so absence is known

    for row in index.itertuples():
        try:
            image, spacing, affine = load_image(row.image)
        except BadInput as error:
            problems.append(str(error))
            image = None
        try:
            label, _, label_affine = load_label(row.label)
        except BadInput as error:
            problems.append(str(error))
            label = None
        complete &= label is not None
        if image is not None:
            intensity, fault = _intensity(image)
            problems += [f"{row.image}: {fault}"] if fault else []
            image_sha256 = _digest(image)
            same_image[image_sha256].append(row)
        if label is not None:
            counts = _counts(label)
            present.update(counts)
            if strange := sorted(set(counts) - allowed):
                undeclared.update(strange)
                listed = ", ".join(f"{value} ({counts[value]} voxels)" for value in strange)
                problems.append(f"{row.label}: label values that `structures` does not declare: {listed}")
            if set(counts) == {0}:
                problems.append(f"{row.label}: the label map is empty (all 0); remove the case or restore its labels")
            for name, values in declared.items():
                if not set(counts) & set(values):
                    lacking[name].append(row.case)
        if image is None or label is None:
            continue
        if image.shape != label.shape:
            problems.append(
                f"{row.label}: shape {label.shape} differs from shape {image.shape} of its image {row.image}"
            )
        elif (apart := _apart(affine, label_affine, image.shape)) > AFFINE_TOLERANCE * spacing.min():
            problems.append(
                f"{row.label}: its affine puts voxels up to {apart:.3g} mm away from those of its image "
                f"{row.image}; copy the image's affine if the voxels correspond, else resample the label map"
            )
        affines.append([float(value) for value in affine.ravel()])
        cases.append({
            "case": row.case, "patient": row.patient, "image": row.image, "label": row.label,
            "shape": list(image.shape), "spacing": [round(float(side), 6) for side in spacing],
            "orientation": "".join(nib.aff2axcodes(affine)),
            "labels": {str(value): count for value, count in sorted(counts.items())},
            "intensity": intensity, "image_sha256": image_sha256, "label_sha256": _digest(label),
        })  # fmt: skip

    for rows in same_image.values():
        if len(rows) > 1:
            files = " and ".join(row.image for row in rows)
            if len({row.patient for row in rows}) > 1:
                patients = ", ".join(sorted({row.patient for row in rows}))
                problems.append(
                    f"{files}: the same image under the patients {patients}, so training would see test "
                    "data; remove all but one"
                )
            else:
                warnings.append(f"{files}: the same image twice, of patient {rows[0].patient}")
    for name, values in declared.items():
        if complete and len(lacking[name]) == len(index):
            found = ", ".join(map(str, sorted(set(present) - {0}))) or "none"
            problems.append(
                f"structures.{name}: no label map has the value {' or '.join(map(str, values))} "
                f"(there are: {found}); correct the value or remove the structure"
            )
        elif lacking[name]:
            warnings.append(f"structure {name} is absent from {_some(lacking[name])}")
    if problems:
        text = f"dataset '{dataset}' has {len(problems)} problem{'s' * (len(problems) > 1)}:"
        text += "".join(f"\n  - {problem}" for problem in problems)
        if undeclared:
            corrected = _yaml(structures, undeclared)
            text += f"\nIf the label maps are right, declare their values:\n    structures: {corrected}"
        raise BadInput(text)
    keys = ("case", "patient", "shape", "image_sha256", "label_sha256")
    hashed = [[*(case[key] for key in keys), affine] for case, affine in zip(cases, affines, strict=True)]
    return {"dataset": dataset, "cases": cases, "warnings": warnings, "data_hash": value_hash(hashed)}


def _intensity(image: np.ndarray) -> tuple[dict[str, float], str]:
    """Minimum, maximum and mean, and what is wrong with them ("" if nothing)."""
    low, high = float(image.min()), float(image.max())
    summary = {"min": low, "max": high, "mean": float(image.mean(dtype=np.float64))}
    if not (np.isfinite(low) and np.isfinite(high)):
        count = np.count_nonzero(~np.isfinite(image))
        return (
            summary,
            f"{count} voxels are NaN or infinite; replace them (by 0 outside the body) or remove the case",
        )
    if low == high:
        return (
            summary,
            f"the image is constant (every voxel is {low:g}); remove the case or restore its image",
        )
    return summary, ""


def _counts(label: np.ndarray) -> dict[int, int]:
    """Voxels per value that occurs."""
    if label.dtype == np.uint8:
        counts = np.bincount(label.ravel(order="K"))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return {int(value): int(count) for value, count in zip(*np.unique(label, return_counts=True), strict=True)}


def _digest(array: np.ndarray) -> str:
    """SHA-256 of shape, type and voxels, so that another compression or header does not hide a copy."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array.T))
    return digest.hexdigest()


def _apart(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the places that two affines give to a corner voxel."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm(((first - second) @ corners)[:3], axis=0).max())


def _some(names: list[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{len(names)} case{'s' * (len(names) > 1)}: {', '.join(names[:count])}{more}"


def _yaml(structures: dict[str, int | list[int]], undeclared: set[int]) -> str:
    added = {f"label_{value}".replace("-", "minus_"): value for value in sorted(undeclared)}
    return "{" + ", ".join(f"{name}: {value}" for name, value in {**structures, **added}.items()) + "}"
