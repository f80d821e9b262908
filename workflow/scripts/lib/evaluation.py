"""Scores of one cell: predictions against references, both as files in the case's own geometry."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.data.index import read_index
from lib.data.nifti import load_label
from lib.errors import BadInput
from lib.files import read_json, write_table
from lib.metrics import score_case, worst_scores

COLUMNS = [
    "dataset", "condition", "protocol", "method", "architecture", "loss", "fold", "seed",
    "patient", "case", "structure", "metric", "value", "unit", "status",
]  # fmt: skip


def evaluate_cell(job: dict) -> dict:
    """Score the test cases of a cell's fold and write the tidy table.

    `job`: cell (columns that name it), index (CSV), splits (JSON), predictions (folder), structures, tolerance (mm),
    output (CSV). Raises BadInput when a prediction is missing or has another shape than its reference.
    """
    tables = []
    for case in test_cases(job["index"], job["splits"], job["cell"]["fold"]).itertuples():
        file = Path(job["predictions"]) / f"{case.case}.nii.gz"
        if not file.exists():
            raise BadInput(f"{file} is missing; the prediction of every test case is needed")
        prediction, _, _ = load_label(file)
        reference, spacing, _ = load_label(case.label)
        if prediction.shape != reference.shape:
            raise BadInput(f"{file} has shape {prediction.shape}, but {case.label} has {reference.shape}")
        scores = score_case(prediction, reference, spacing, job["structures"], tolerance=job["tolerance"])
        tables.append(scores.assign(patient=case.patient, case=case.case))
    write_scores(tables, job["cell"], job["output"])
    return {"cases": len(tables)}


def write_failed_scores(job: dict) -> None:
    """The table of a cell that failed for a scientific reason: the worst score for every test case and structure."""
    tables = []
    for case in test_cases(job["index"], job["splits"], job["cell"]["fold"]).itertuples():
        reference, spacing, _ = load_label(case.label)
        scores = worst_scores(reference.shape, spacing, job["structures"])
        tables.append(scores.assign(patient=case.patient, case=case.case))
    write_scores(tables, job["cell"], job["output"])


def write_scores(tables: list[pd.DataFrame], cell: dict, output: str | Path) -> None:
    """Write the tidy table of one cell; an empty list writes the header alone."""
    table = pd.concat(tables).assign(**cell)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)
    write_table(output, table)


def test_cases(index: str | Path, splits: str | Path, fold: int) -> pd.DataFrame:
    """Rows of the index whose patients are tested in `fold`."""
    cases = read_index(index)
    return cases[cases["patient"].isin(read_json(splits)["folds"][fold]["test"])]
