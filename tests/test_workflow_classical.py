"""Classical methods from the configuration to a claim, on a denoised condition too."""

from __future__ import annotations

import copy

import pytest
from project import COHORT, Project

pytestmark = pytest.mark.slow

TINY = {
    "datasets": {"brain_cohort": COHORT},
    "classical": {"coupled_tv": {"name": "coupled_tv", "weight": [0.3, 1], "rounds": 2}},
    "conditions": {
        "clear": {
            "image": {"kind": "rician", "strength": 0.2},
            "denoise": {"kind": "coupled_tv", "levels": 4, "rounds": 2},
        }
    },
    "claims": {
        "coupling_helps": {
            "source": "a paper",
            "says": "coupled is better",
            "kind": "superior",
            "treatment": {"method": "coupled_tv"},
            "control": {"method": "otsu"},
        }
    },
    "experiment": {
        "name": "tiny",
        "datasets": ["brain_cohort"],
        "conditions": ["clear"],
        "methods": ["otsu", "coupled_tv"],
        "protocol": "smoke",
        "folds": [0],
        "seeds": [0, 1, 2],
        "claims": ["coupling_helps"],
    },
}


def test_classical_methods_run_without_torch_and_meet_a_claim(tmp_path):
    project = Project(tmp_path, TINY)
    tables = [f"results/tiny/{name}.csv" for name in ("claims", "ledger")]
    project.snakemake(*tables)
    ledger = project.table("ledger.csv")
    assert list(ledger["state"]) == ["ok", "ok"] and set(ledger["seed"]) == {0}
    assert (ledger["wall_seconds"].astype(float) > 0).all() and (ledger["peak_memory_mb"].astype(float) > 50).all()
    claim = project.table("claims.csv").iloc[0]
    assert claim["verdict"] not in ("missing", "one training") and claim["n_seeds"] == 3
    scores = project.table("scores.csv")
    assert (scores.loc[scores["metric"] == "dice", "value"].astype(float) > 0.3).any()

    changed = copy.deepcopy(TINY)
    changed["classical"]["coupled_tv"]["weight"] = 1
    project.configure(changed)
    planned = project.planned(*tables)
    assert planned["segment_classical"] == 1 and planned["evaluate"] == 1 and "preprocess" not in planned
