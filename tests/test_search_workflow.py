"""A search within the workflow: a cell trains the genotype that its own search found, or fails with it."""

from __future__ import annotations

import json

import pytest
import yaml
from project import COHORT, Project

pytestmark = pytest.mark.slow

TINY = {
    "datasets": {"brain_cohort": COHORT},
    "protocols": {"smoke": {"iterations": 4, "batch": 2, "patch": [32, 32], "validate_every": 4}},
    "searches": {"tiny": {"patch": [16, 16], "width": 4, "depth": 1, "nodes": 2, "epochs": 2, "batch": 12, "alphas_from": 0}},
    "architectures": {"searched": {"name": "nas_unet", "width": 4, "depth": 2, "genotype": {"search": "tiny"}}},
    "experiment": {
        "name": "tiny",
        "datasets": ["brain_cohort"],
        "methods": ["searched+ce"],
        "protocol": "smoke",
        "folds": [0],
        "seeds": [0],
    },
    "attempts": 1,
}  # fmt: skip
CELL = "results/cells/brain_cohort/clean/smoke/searched/ce/fold0/seed0"
FOUND = "results/cells/brain_cohort/clean/tiny/nas_unet/search/fold0/seed0"
PREDICTED = f"{CELL}/predict.json"


def counted(project: Project) -> list[int]:
    planned = project.planned(PREDICTED)
    return [planned.get(rule, 0) for rule in ("search", "train", "predict")]


def test_a_cell_trains_what_its_search_found(tmp_path):
    project = Project(tmp_path, TINY)
    project.snakemake(PREDICTED)
    genotype = yaml.safe_load((tmp_path / FOUND / "genotype.yaml").read_text())["architecture"]["genotype"]
    notes = tmp_path / CELL.replace("results/cells", "results/attempts")
    for stage in ("train", "predict"):
        assert json.loads((notes / f"{stage}.job.json").read_text())["model"]["genotype"] == genotype
    assert json.loads((tmp_path / CELL / "training/cost.json").read_text())["search"] == FOUND

    settings = TINY["searches"]["tiny"]
    project.configure(TINY | {"searches": {"tiny": settings | {"checkpoint_minutes": 3}}})
    assert counted(project) == [0, 0, 0]
    project.configure(TINY | {"searches": {"tiny": settings | {"lr": 1e30, "clip": None}}})
    assert counted(project) == [1, 1, 1]
    project.snakemake(PREDICTED)  # a search that finds nothing is why its cells failed
    record = json.loads((tmp_path / PREDICTED).read_text())
    assert (record["state"], record["reason"]) == ("failed", "diverged") and "/tiny/nas_unet/search/" in record["log"]
