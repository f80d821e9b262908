"""Scores of one cell: predictions against references, both as files in the case's own geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.cases import Case, load_label, read_index
from lib.data.formats import Geometry, label_suffix, read_image, read_label
from lib.errors import BadInput
from lib.files import read_json, write_table
from lib.metrics import score_case, worst_scores

COLUMNS = [
    "dataset", "condition", "protocol", "method", "architecture", "loss", "fold", "seed",
    "patient", "case", "structure", "metric", "value", "unit", "status",
]  # fmt: skip


def evaluate_cell(job: dict) -> dict:
    """Score the test cases of a cell's fold and write the tidy table.

    `job`: cell (columns that name it), index (CSV), splits (JSON), predictions (folder), structures, palette, ignore,
    tolerance {"mm", "px"}, output (CSV). Raises BadInput when a prediction is missing or has another shape than its
    reference.
    """
    tables, units = [], _units(job["splits"])
    for case in test_cases(job["index"], job["splits"], job["cell"]["fold"]):
        file = Path(job["predictions"]) / f"{case.case}{label_suffix(next(iter(case.images.values())))}"
        if not file.exists():
            raise BadInput(f"{file} is missing; the prediction of every test case is needed")
        prediction, _ = read_label(file)
        reference, geometry = _reference(case, job)
        if prediction.shape != reference.shape:
            label = next(iter(case.labels.values()), f"the reference of {case.case}")
            raise BadInput(f"{file} has shape {prediction.shape}, but {label} has {reference.shape}")
        unknown = np.isin(reference, job["ignore"])
        if unknown.any():
            prediction, reference = (np.where(unknown, 0, labels) for labels in (prediction, reference))
        scores = score_case(
            prediction,
            reference,
            geometry.spacing,
            job["structures"],
            tolerance=job["tolerance"][geometry.unit],
            unit=geometry.unit,
        )
        tables.append(scores.assign(patient=units.get(case.patient, case.patient), case=case.case))
    write_scores(tables, job["cell"], job["output"])
    return {"cases": len(tables)}


def write_failed_scores(job: dict) -> None:
    """The table of a cell that failed for a scientific reason: the worst score for every test case and structure."""
    tables, units = [], _units(job["splits"])
    for case in test_cases(job["index"], job["splits"], job["cell"]["fold"]):
        reference, geometry = _reference(case, job)
        scores = worst_scores(reference.shape, geometry.spacing, job["structures"], unit=geometry.unit)
        tables.append(scores.assign(patient=units.get(case.patient, case.patient), case=case.case))
    write_scores(tables, job["cell"], job["output"])


def write_scores(tables: list[pd.DataFrame], cell: dict, output: str | Path) -> None:
    """Write the tidy table of one cell; an empty list writes the header alone."""
    table = pd.concat(tables).assign(**cell)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)
    write_table(output, table)


def test_cases(index: str | Path, splits: str | Path, fold: int) -> list[Case]:
    """Cases whose patients are tested in `fold`."""
    tested = set(read_json(splits)["folds"][fold]["test"])
    return [case for case in read_index(index) if case.patient in tested]


def _reference(case: Case, job: dict) -> tuple[np.ndarray, Geometry]:
    """Reference labels, and the geometry of the label map, or the image's where only that one states millimetres."""
    labels, geometry = load_label(case, job["structures"], job["palette"])
    if geometry.unit == "px":
        _, of_image = read_image(next(iter(case.images.values())))
        geometry = of_image if of_image.shape == geometry.shape else geometry
    return labels, geometry


def _units(splits: str | Path) -> dict[str, str]:
    """For patients that share near duplicates with others, the first of their group: only groups are independent."""
    return {patient: group[0] for group in read_json(splits)["groups"] for patient in group}
