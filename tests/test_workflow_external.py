"""Predictions from folders beside a trained method, from the configuration to the report."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from project import Project
from test_workflow import TINY

pytestmark = pytest.mark.slow

METHOD = TINY["experiment"] | {"methods": ["unet_narrow+ce"], "claims": []}
BESIDE = TINY | {
    "external": {
        "copied": {"path": "theirs/fold{fold}", "file": "{case}.nii.gz"},
        "holey": {"path": "holey/fold{fold}"},
    },
    "experiment": METHOD | {"methods": ["unet_narrow+ce", "copied", "holey"], "seeds": [0, 1]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """One training and two copies of its predictions, one of which lacks a case of fold 0."""
    project = Project(tmp_path_factory.mktemp("external"), TINY | {"experiment": METHOD})
    project.snakemake("--until", "predict")
    cells = project.folder / "results/cells/brain_cohort/clean/smoke/unet_narrow/ce"
    for fold in ("fold0", "fold1"):
        shutil.copytree(cells / fold / "seed0/predictions", project.folder / "theirs" / fold)
    shutil.copytree(project.folder / "theirs", project.folder / "holey")
    next((project.folder / "holey/fold0").glob("*.nii.gz")).unlink()
    project.configure(BESIDE)
    project.snakemake()
    return project


def test_copied_predictions_get_the_scores_of_the_cells_that_made_them(project):
    scores = project.table("scores.csv")
    key = ["fold", "seed", "case", "structure", "metric"]
    made, copied = (scores[scores["method"] == m].set_index(key).sort_index() for m in ("unet_narrow+ce", "copied"))
    made = made.loc[(slice(None), 0), :]
    assert len(made) == len(copied) > 0
    assert made[["patient", "value", "unit", "status"]].equals(copied[["patient", "value", "unit", "status"]])
    assert set(copied["architecture"]) == {"copied"} and set(copied["loss"]) == {"external"}


def test_one_training_is_one_seed_and_separates_nothing(project):
    ledger = project.table("ledger.csv")
    assert ledger["method"].value_counts().to_dict() == {"unet_narrow+ce": 4, "copied": 2, "holey": 2}
    assert set(ledger.loc[ledger["loss"] == "external", "seed"]) == {0}
    pairs = project.table("comparisons.csv")
    pair = pairs[pairs[["method_a", "method_b"]].isin(["copied"]).any(axis=1)]
    assert len(pair) and set(pair["separated"].astype(str)) == {"False"} and set(pair["n_seeds"].astype(int)) == {1}


def test_a_missing_file_fails_its_cell_and_the_report_is_built(project):
    ledger = project.table("ledger.csv").set_index(["method", "fold"])
    row = ledger.loc[("holey", 0)]
    case = {p.name for p in (project.folder / "theirs/fold0").iterdir()} - {
        p.name for p in (project.folder / "holey/fold0").iterdir()
    }
    assert (row["state"], row["reason"]) == ("failed", "bad-input")
    assert f"no file for 1 of 3 test cases ({case.pop().removesuffix('.nii.gz')})" in row["message"]
    assert ledger.loc[("holey", 1), "state"] == "ok" and ledger.loc[("copied", 0), "state"] == "ok"
    assert ledger.loc[("copied", 0), "training_data"].startswith("not verified")
    page = (project.folder / "results/tiny/report/index.html").read_text()
    assert "no file for 1 of 3 test cases" in page and "copied" in page


def test_the_record_names_each_file_and_its_hash(project):
    folder = project.folder / "results/cells/brain_cohort/clean/smoke/copied/external/fold1/seed0"
    result = json.loads((folder / "predict.json").read_text())["result"]
    cases = pd.read_csv(folder / "scores.csv")["case"].unique()
    assert set(result["files"]) == set(cases)
    assert all(
        entry["file"].startswith("theirs/fold1/") and len(entry["sha256"]) == 64 for entry in result["files"].values()
    )


def test_a_file_that_appears_is_imported_and_a_finished_experiment_has_nothing_to_do(project):
    assert project.planned() == {}
    for file in (project.folder / "theirs/fold0").iterdir():
        shutil.copy(file, project.folder / "holey/fold0")
    plan = project.planned()
    assert (plan["import_predictions"], plan["evaluate"]) == (1, 1) and "train" not in plan and "predict" not in plan
