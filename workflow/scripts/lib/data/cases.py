"""The cases of a dataset: which files hold their images and labels, as index.csv lists them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lib.files import write_table


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


def write_index(path: str | Path, cases: list[Case]) -> None:
    """Write index.csv, one row per case, sorted by case: case, patient, fields, image:NAME, label:NAME, mask."""
    rows = [
        {"case": c.case, "patient": c.patient, **c.fields}
        | {f"image:{name}": file for name, file in c.images.items()}
        | {f"label:{name}": file for name, file in c.labels.items()}
        | ({"mask": c.mask} if c.mask else {})
        for c in sorted(cases, key=lambda c: c.case)
    ]
    write_table(path, pd.DataFrame(rows, dtype=str).fillna(""))


def read_index(path: str | Path) -> list[Case]:
    """Read an index.csv as text throughout: patient "01" stays "01", and "NA" stays a name."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [_case(row) for row in table.to_dict("records")]


def _case(row: dict[str, str]) -> Case:
    def files(kind: str) -> dict[str, str]:
        return {key.removeprefix(kind): value for key, value in row.items() if key.startswith(kind) and value}

    known = {"case", "patient", "mask"}
    fields = {key: value for key, value in row.items() if key not in known and ":" not in key}
    return Case(row["case"], row["patient"], files("image:"), files("label:"), row.get("mask") or None, fields)
