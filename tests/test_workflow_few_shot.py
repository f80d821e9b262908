"""Few-shot methods beside a trained one, from the configuration to the tables."""

from __future__ import annotations

import json

import pytest
from project import COHORT, Project

pytestmark = pytest.mark.slow

BASE = {"name": "alpnet", "width": 4, "depth": 2, "window": 2}
CONFIG = {
    "datasets": {"brain_cohort": COHORT},
    "protocols": {"smoke": {"iterations": 3, "batch": 1, "patch": [32, 32], "warmup": 0}},
    "few_shot": {
        "kfo_2shot": {"name": "bm_kfo", "base": BASE, "shots": 2, "training_shots": 1},
        "same_2shot": {"name": "prototypes", "base": BASE, "shots": 2, "tasks": "superpixels"},
    },
    "claims": {
        "kfo_gains": {
            "source": "this test",
            "says": "more",
            "treatment": {"method": "kfo_2shot"},
            "control": {"method": "same_2shot"},
        }
    },
    "experiment": {
        "name": "tiny",
        "datasets": ["brain_cohort"],
        "methods": ["unet_narrow+ce", "kfo_2shot", "same_2shot"],
        "protocol": "smoke",
        "folds": [0],
        "seeds": [0],
        "claims": ["kfo_gains"],
    },
    "attempts": 1,
}
TARGETS = ("results/tiny/ledger.csv", "results/tiny/claims.csv")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("few_shot"), CONFIG)
    project.snakemake(*TARGETS)
    return project


def test_few_shot_methods_are_rows_of_the_same_tables(project):
    ledger = project.table("ledger.csv").set_index("method")
    assert set(ledger["state"]) == {"ok"} and len(ledger) == 3
    assert ledger.loc[["kfo_2shot", "same_2shot"], "loss"].tolist() == ["few_shot"] * 2
    # Labels: a model for each of three structures; superpixels: one for all.
    assert ledger["iterations"].astype(int).to_dict() == {"unet_narrow+ce": 3, "kfo_2shot": 9, "same_2shot": 3}
    assert (ledger[["wall_seconds", "parameters", "flops", "peak_memory_mb"]].astype(float) > 0).all(axis=None)
    scores = project.table("scores.csv")
    cases = {method: set(rows["case"]) for method, rows in scores.groupby("method")}
    assert len(cases) == 3 and len({tuple(sorted(c)) for c in cases.values()}) == 1
    assert set(scores.loc[scores["method"] == "kfo_2shot", "structure"]) == {"csf", "gray_matter", "white_matter"}
    assert set(project.table("curves.csv")["method"]) == set(ledger.index)
    (claim,) = project.table("claims.csv").to_dict("records")
    assert (claim["claim"], claim["verdict"]) == ("kfo_gains", "one training")


def test_all_methods_get_the_same_support_from_training_patients(project):
    cells = project.folder / "results/cells/brain_cohort/clean/smoke"
    kfo, same = (
        json.loads((cells / name / "few_shot/fold0/seed0/predict.json").read_text())["result"]["support"]
        for name in ("kfo_2shot", "same_2shot")
    )
    assert kfo == same and kfo.keys() == {"csf", "gray_matter", "white_matter"}
    splits = json.loads((project.folder / "results/data/brain_cohort/splits.json").read_text())
    training = {case for patient in splits["folds"][0]["train"] for case in splits["cases"][patient]}
    assert {case for places in kfo.values() for case, _ in places} <= training


def test_an_edited_entry_trains_its_cells_alone(project):
    assert project.planned(*TARGETS) == {}
    entry = CONFIG["few_shot"]["kfo_2shot"]
    project.configure(CONFIG | {"few_shot": CONFIG["few_shot"] | {"kfo_2shot": entry | {"lr": 0.2}}})
    plan = project.planned(*TARGETS)
    assert (plan["train_few_shot"], plan["predict_few_shot"]) == (1, 1) and "train" not in plan
