"""The cases of a dataset: which files hold their images and labels, as index.csv lists them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.formats import Geometry, read_geometry, read_image, read_label, read_mask
from lib.errors import BadInput
from lib.files import write_table

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as picture libraries turn colours to grey
APART = 0.05  # of the smallest voxel side: affines that differ by more belong to different grids


@dataclass(frozen=True)
class Case:
    """One image with its reference label map.

    images: path of each channel by name, in the order of the channels; one file is {"image": path}.
    labels: {"label": path} of one label map, or the path of a binary mask for each structure.
    mask: path of a binary mask of where the image means something. fields: further columns, such as site.
    """

    case: str
    patient: str
    images: dict[str, str]
    labels: dict[str, str]
    mask: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


def write_index(path: str | Path, cases: list[Case], hashes: dict[str, str] | None = None) -> None:
    """Write index.csv, one row per case, sorted by case: case, patient, fields, image:NAME, label:NAME, mask.

    `hashes`: of each case's data, as a column that `read_index` skips. With them the table changes whenever an image
    or label map does, so that what was made from it is made anew.
    """
    rows = [
        {"case": c.case, "patient": c.patient, **c.fields}
        | {f"image:{name}": file for name, file in c.images.items()}
        | {f"label:{name}": file for name, file in c.labels.items()}
        | ({"mask": c.mask} if c.mask else {})
        | ({"data:sha256": hashes[c.case]} if hashes else {})
        for c in sorted(cases, key=lambda c: c.case)
    ]
    write_table(path, pd.DataFrame(rows, dtype=str).fillna(""))


def read_index(path: str | Path) -> list[Case]:
    """Read an index.csv as text throughout: patient "01" stays "01", and "NA" stays a name."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [_case(row) for row in table.to_dict("records")]


def load_image(case: Case, colour: str | None = None) -> tuple[np.ndarray, Geometry]:
    """Return (image (C, X, Y, Z) float32, geometry of the first file), the channels of all files in their order.

    `colour`: "grey" makes one channel of a colour picture, "rgb" three of a grey one. Raises BadInput when a file
    cannot be read or the files of one case lie on different grids.
    """
    parts, geometry, first = [], None, ""
    for path in case.images.values():
        part, own = read_image(path)
        if colour and len(part) not in (1, 3):
            raise BadInput(f"{path}: has {len(part)} channels; preprocess.colour is for pictures with 1 or 3")
        if colour == "grey" and len(part) == 3:
            part = np.tensordot(LUMA, part, 1)[None]
        elif colour == "rgb" and len(part) == 1:
            part = np.repeat(part, 3, axis=0)
        if geometry is None:
            geometry, first = own, path
        require_same_grid(own, path, geometry, first)
        parts.append(part)
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)), geometry


def load_label(
    case: Case, structures: dict[str, int | list[int]], palette: dict[int, list[int]] | None = None
) -> tuple[np.ndarray, Geometry]:
    """Return (labels (X, Y, Z) uint8 or int32, geometry): the label map, or one made of the masks of structures.

    Raises BadInput when a file cannot be read, or masks of one case overlap or lie on different grids.
    """
    if set(case.labels) == {"label"}:
        return read_label(case.labels["label"], palette)
    first = next(iter(case.images.values()))
    geometry = read_geometry(first)
    labels = np.zeros(geometry.shape, np.int32)
    for name, path in case.labels.items():
        mask, own = read_mask(path)
        require_same_grid(own, path, geometry, first)
        if overlap := np.count_nonzero(labels[mask]):
            raise BadInput(
                f"{path}: {overlap} voxels lie in the mask of another structure of the same case too; a voxel may "
                "belong to one, so cut the masks, or write label maps and declare the structures as lists of values"
            )
        value = structures[name]
        labels[mask] = value[0] if isinstance(value, list) else value
    return (labels.astype(np.uint8) if labels.max() <= 255 else labels), geometry


def load_mask(case: Case) -> tuple[np.ndarray, Geometry] | None:
    """Return (mask (X, Y, Z) bool, its geometry) of where the image means something, if the case has one."""
    return read_mask(case.mask) if case.mask else None


def require_same_grid(geometry: Geometry, path: str, other: Geometry, other_path: str) -> None:
    """Raise BadInput unless two files of a case have one shape and, where both state it, one affine."""
    if geometry.shape != other.shape:
        raise BadInput(f"{path}: shape {geometry.shape} differs from shape {other.shape} of {other_path}")
    if geometry.unit == other.unit == "mm" and (apart := geometry.apart(other)) > APART * other.spacing.min():
        raise BadInput(
            f"{path}: its affine puts voxels up to {apart:.3g} mm away from those of {other_path}; "
            "copy the affine if the voxels correspond, else resample the file"
        )


def _case(row: dict[str, str]) -> Case:
    def files(kind: str) -> dict[str, str]:
        return {key.removeprefix(kind): value for key, value in row.items() if key.startswith(kind) and value}

    known = {"case", "patient", "mask"}
    fields = {key: value for key, value in row.items() if key not in known and ":" not in key}
    return Case(row["case"], row["patient"], files("image:"), files("label:"), row.get("mask") or None, fields)
