"""An experiment with learning rates from the configuration to two verdicts on a claim."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
from project import COHORT, Project

pytestmark = pytest.mark.slow

TINY = {
    "datasets": {"brain_cohort": COHORT},
    "protocols": {"smoke": {"iterations": 6, "batch": 2, "patch": [32, 32], "validate_every": 3}},
    "losses": {"explosive": {"name": "explosive"}},
    "claims": {
        "explosive_helps": {
            "source": "a paper",
            "says": "it helps",
            "treatment": {"architecture": "unet_narrow", "loss": "explosive"},
            "control": {"architecture": "unet_narrow", "loss": "ce"},
        },
        "sooner": {
            "source": "a paper",
            "says": "it is fast",
            "metric": "iterations_to_dice",
            "dice": 0.01,
            "treatment": {"architecture": "unet_narrow", "loss": "ce"},
            "control": {"architecture": "unet_narrow", "loss": "explosive"},
        },
    },
    "experiment": {
        "name": "tiny",
        "datasets": ["brain_cohort"],
        "methods": ["unet_narrow+ce", "unet_narrow+explosive"],
        "protocol": "smoke",
        "folds": [0],
        "seeds": [0, 1],
        "claims": ["explosive_helps", "sooner"],
        "learning_rates": [0.001, 0.02],
    },
    "attempts": 1,
}


def test_both_comparisons_come_out_and_nothing_changes_without_the_key(tmp_path):
    project = Project(tmp_path, TINY)
    tables = [f"results/tiny/{name}.csv" for name in ("claims", "learning_rates")]
    together = project.planned("--config", "seeds_per_job=2")
    assert (together["train"], together["choose_rate"], together["predict"]) == (4, 4, 4)
    planned = project.planned(*tables)
    assert (planned["train"], planned["choose_rate"], planned["predict"], planned["evaluate"]) == (8, 4, 8, 8)

    one = copy.deepcopy(TINY)
    one["experiment"]["seeds"] = [0]
    project.configure(one)
    project.snakemake(*tables)
    rates = project.table("learning_rates.csv").set_index(["method", "learning_rate"])
    assert len(rates) == 2 * 2 and set(rates["protocol"]) == {"smoke@tuned"}
    ce, explosive = rates.loc["unet_narrow+ce"], rates.loc["unet_narrow+explosive"]
    dice = ce["validation_dice"].astype(float)
    assert dice.nunique() == 2, "another rate is another training"
    assert ce["chosen"].tolist() == (dice == dice.max()).tolist()
    assert set(explosive["reason"]) == {"diverged"} and not explosive["chosen"].any()
    states = project.table("ledger.csv").set_index(["protocol", "method"])["state"].to_dict()
    assert states == {
        (protocol, f"unet_narrow+{loss}"): state
        for protocol in ("smoke", "smoke@tuned")
        for loss, state in (("ce", "ok"), ("explosive", "failed"))
    }
    claims = project.table("claims.csv")
    assert sorted(claims["protocol"]) == ["smoke", "smoke", "smoke@tuned", "smoke@tuned"]
    sooner = claims[claims["claim"] == "sooner"]
    assert set(sooner["n_trainings"]) == {1} and set(sooner["mean_control"].astype(float)) == {6.0}
    assert project.planned(*tables) == {}

    verified = project.snakemake("verify", check=False)  # the tables that were not asked for are missing
    assert "4 cells scored again: 0 differences" in verified.stdout
    project.snakemake("publish")
    published = project.folder / "docs/results/tiny"
    assert len(pd.read_csv(published / "ledger.csv")) == 4 and len(pd.read_csv(published / "learning_rates.csv")) == 4
    page = (published / "README.md").read_text(encoding="utf-8")
    assert "## Learning rates" in page and "smoke@tuned" in page

    del one["experiment"]["learning_rates"]
    project.configure(one)
    planned = project.planned(tables[0])
    assert not {"train", "predict", "evaluate", "choose_rate"} & planned.keys(), "the trainings at the common rate stay"
