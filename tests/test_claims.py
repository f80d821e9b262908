"""Verdicts on claims from constructed scores, one per verdict and edge, and the sentences that go with them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from lib.errors import BadInput
from lib.statistics import judge, situations
from lib.statistics.table import COLUMNS

CLAIM = {
    "source": "A paper",
    "says": "t beats c",
    "treatment": {"architecture": "t", "loss": "l"},
    "control": {"architecture": "c", "loss": "l"},
}


def table(treatment: np.ndarray, control: np.ndarray, metric: str = "dice", unit: str = "") -> pd.DataFrame:
    """Scores (seeds, patients) of the methods t+l and c+l; NaN becomes a missing row."""
    rows = [
        ("d", "clean", "cpu", f"{name}+l", name, "l", 0, seed, f"p{patient}", f"c{patient}", "liver", metric, value,
         unit, "scored")
        for name, values in (("t", treatment), ("c", control))
        for (seed, patient), value in np.ndenumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).dropna(subset="value")


def scores(difference: float, noise: float = 0.01, seeds: int = 3, patients: int = 20, base: float = 0.7, **kwargs):
    """Scores whose mean paired difference is exactly `difference`, with `noise` between patients and seeds."""
    rng = np.random.default_rng(0)
    control = base + rng.normal(size=(seeds, patients)) * 0.02
    error = rng.normal(size=(seeds, patients))
    return table(control + difference + noise * (error - error.mean()), control, **kwargs)


def judged(data: pd.DataFrame, **claim) -> pd.Series:
    result = judge(situations(data), {"claim": CLAIM | claim}, primary=data["metric"].iloc[0])
    assert len(result) == 1
    return result.iloc[0]


def says_better(sentence: str) -> bool:
    return bool(re.search(r"\b(better|worse|superior|outperform\w*|beats?|wins?|improv\w*)\b", sentence))


def test_reproduced_reaches_the_published_difference():
    row = judged(scores(0.11), published={"treatment": 0.83, "difference": 0.11})
    assert row["verdict"] == "reproduced"
    assert row["difference"] == pytest.approx(0.11)
    assert row["low"] > 0 and row["high"] >= 0.11
    assert (row["published_difference"], row["published_treatment"]) == (0.11, 0.83)
    assert row["mean_treatment"] - row["mean_control"] == pytest.approx(0.11)
    assert (row["n_patients"], row["n_seeds"], row["margin"]) == (20, 3, 0)
    assert row["sentence"].startswith(
        "On d (clean, protocol cpu) t+l has a better Dice (mean over structures) than c+l: t+l 0.8"
    )
    for part in (
        "difference +0.110",
        f"95 % interval {row['low']:+.3f} to {row['high']:+.3f}",
        "after Holm; 20 patients, 3 seeds",
        "published difference is +0.110; the interval reaches it.",
    ):
        assert part in row["sentence"]


def test_reproduced_without_a_published_number_needs_direction_alone():
    row = judged(scores(0.05))
    assert row["verdict"] == "reproduced"
    assert np.isnan(row["published_difference"])
    assert "published" not in row["sentence"]


def test_published_difference_follows_from_both_sides():
    row = judged(scores(0.05), published={"treatment": 0.83, "control": 0.53})
    assert row["published_difference"] == pytest.approx(0.30)
    assert row["verdict"] == "smaller"


def test_smaller_excludes_zero_and_falls_short():
    row = judged(scores(0.05), published={"difference": 0.11})
    assert row["verdict"] == "smaller"
    assert 0 < row["low"] < row["high"] < 0.11
    assert says_better(row["sentence"])
    assert "published difference is +0.110; the interval ends short of it" in row["sentence"]


def test_not_reproduced_when_the_control_is_better():
    row = judged(scores(-0.05), published={"difference": 0.11})
    assert row["verdict"] == "not reproduced"
    assert "c+l has a better Dice (mean over structures) than t+l: t+l 0." in row["sentence"]


def test_not_reproduced_when_the_gain_is_below_the_margin():
    row = judged(scores(0.0), margin=0.05)
    assert row["verdict"] == "not reproduced"
    assert row["low"] < 0 < row["high"] < 0.05
    assert not says_better(row["sentence"])
    assert "not separated" in row["sentence"]
    assert row["sentence"].endswith("A gain of 0.05 or more is ruled out.")
    assert judged(scores(0.0))["verdict"] == "inconclusive"  # the same data without a margin


def test_inconclusive_when_seeds_disagree():
    """Every patient agrees, but one seed reverses the order: with three seeds nothing is decided."""
    control = np.full((3, 20), 0.7)
    treatment = control + np.array([[0.06], [0.05], [-0.02]])
    row = judged(table(treatment, control))
    assert row["verdict"] == "inconclusive"
    assert row["low"] < 0 < row["high"]
    assert not says_better(row["sentence"])
    assert "t+l and c+l are not separated" in row["sentence"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_training_says_nothing_about_methods(seeds):
    row = judged(scores(0.2, seeds=seeds), published={"difference": 0.11})
    assert row["verdict"] == "one training"
    assert row["low"] > 0 and row["p"] < 0.001
    assert not says_better(row["sentence"])
    assert "over patients only; 20 patients, " + ("1 seed)" if seeds == 1 else "2 seeds)") in row["sentence"]
    assert "fewer than 3 seeds" in row["sentence"]


def test_missing_method_and_missing_overlap():
    data = scores(0.1)
    row = judged(data[data["method"] == "t+l"])
    assert (row["verdict"], row["n_patients"], row["treatment"], row["control"]) == ("missing", 0, "t+l", "c+l")
    assert row[["difference", "low", "high", "p", "p_holm"]].isna().all()
    assert "not tested" in row["sentence"]
    apart = data[(data["method"] == "t+l") == (data["seed"] == 0)]  # no seed in common
    assert judged(apart)["verdict"] == "missing"


def test_empty_table_leaves_every_claim_missing():
    result = judge(situations(pd.DataFrame(columns=COLUMNS)), {"one": CLAIM, "two": CLAIM})
    assert result["verdict"].tolist() == ["missing", "missing"]
    assert result["dataset"].tolist() == ["", ""]


def test_one_patient_is_inconclusive():
    row = judged(scores(0.1, patients=1))
    assert row["verdict"] == "inconclusive"
    assert row[["low", "high", "p", "p_holm"]].isna().all()
    assert "no interval, for it needs at least 2 patients; 1 patient, 3 seeds" in row["sentence"]


def test_identical_methods():
    same = np.full((3, 5), 0.7)
    row = judged(table(same, same))
    assert row[["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    assert row["verdict"] == "inconclusive"
    assert not says_better(row["sentence"])


def test_perfect_separation_without_variance():
    data = table(np.full((3, 5), 0.9), np.full((3, 5), 0.7))
    row = judged(data, published={"difference": 0.2 - 1e-6})
    assert (row["verdict"], row["p"]) == ("reproduced", pytest.approx(0, abs=1e-12))
    assert judged(data, published={"difference": 0.3})["verdict"] == "smaller"


def distances(difference: float, **kwargs) -> pd.DataFrame:
    return scores(difference, noise=0.1, base=5.0, metric="hd95", unit="mm", **kwargs)


@pytest.mark.parametrize(
    ("difference", "claim", "verdict"),
    [
        (-2.0, {"published": {"difference": -2.0}}, "reproduced"),
        (-2.0, {}, "reproduced"),
        (-1.0, {"published": {"difference": -2.0}}, "smaller"),
        (1.0, {"published": {"difference": -2.0}}, "not reproduced"),
        (0.0, {"margin": 0.5}, "not reproduced"),
        (0.0, {}, "inconclusive"),
    ],
)
def test_lower_is_better_for_distances(difference, claim, verdict):
    """The difference stays treatment - control; only its reading turns."""
    row = judged(distances(difference), metric="hd95", **claim)
    assert row["verdict"] == verdict
    assert row["difference"] == pytest.approx(difference)
    assert row["low"] <= row["high"]
    if verdict in ("reproduced", "smaller"):
        assert "t+l has a better HD95 (mean over structures) than c+l" in row["sentence"]
        assert f"difference {difference:+.2f} mm" in row["sentence"]


def test_pixels_are_called_pixels():
    data = distances(-2.0).assign(unit="px")
    assert "difference -2.00 px" in judged(data, metric="hd95")["sentence"]


def test_holm_is_over_all_claims_and_situations():
    """A difference that is separated alone is not among many claims; all situations belong to the family."""
    rng = np.random.default_rng(4)
    control = 0.7 + rng.normal(size=(4, 20)) * 0.02
    weak = table(control + 0.02 + rng.normal(size=(4, 1)) * 0.005 + rng.normal(size=(4, 20)) * 0.01, control)
    alone = judged(weak)
    assert alone["verdict"] == "reproduced"
    assert alone["p_holm"] == alone["p"] > 0.05 / 20
    claims = {f"claim{i}": CLAIM for i in range(10)}
    many = judge(situations(pd.concat([weak, weak.assign(condition="noisy")])), claims)
    assert len(many) == 20
    assert many["p_holm"].to_numpy() == pytest.approx(multipletests(many["p"], method="holm")[1])
    assert set(many["verdict"]) == {"inconclusive"}
    assert not many["sentence"].map(says_better).any()
    assert set(many["condition"]) == {"clean", "noisy"}


def test_a_structure_can_be_claimed():
    data = pd.concat([scores(0.2).assign(structure="liver"), scores(0.0).assign(structure="spleen")])
    assert judged(data)["difference"] == pytest.approx(0.1)
    liver = judged(data, structure="liver")
    assert liver["difference"] == pytest.approx(0.2)
    assert "better Dice (liver)" in liver["sentence"]


def test_failed_cells_are_mentioned():
    data = scores(0.1)
    failed = (data["method"] == "c+l") & (data["seed"] == 0)
    data.loc[failed, ["value", "status"]] = [0.0, "failed"]
    row = judged(data)
    assert row["difference"] > 0.2
    assert row["sentence"].endswith("Failed cells count with the worst scores.")
    excluded = judge(situations(data, failed="exclude"), {"claim": CLAIM}).iloc[0]
    assert (excluded["n_seeds"], excluded["verdict"]) == (2, "one training")
    assert excluded["sentence"].endswith("Failed cells are left out.")


def test_columns():
    assert list(judge(situations(scores(0.1)), {"claim": CLAIM}).columns) == [
        "claim", "dataset", "condition", "protocol", "source", "says", "kind", "metric", "treatment", "control",
        "published_difference", "published_treatment", "mean_treatment", "mean_control", "difference", "low", "high",
        "p", "p_holm", "n_patients", "n_seeds", "margin", "verdict", "sentence", "structure", "levels", "interval",
        "separated", "provenance", "budget",
    ]  # fmt: skip
    assert judge(situations(scores(0.1)), {}).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "equivalent"}, "claims: claim: kind equivalent needs a margin above 0, the largest difference"),
        ({"kind": "equal"}, "claims: claim: kind is 'equal'. Did you mean 'equivalent'"),
        ({"metric": "precision"}, "claims: claim: metric is 'precision'"),
        ({"metric": "dcie"}, "metric is 'dcie'. Did you mean 'dice'"),
        ({"structure": "livr"}, "structure is 'livr'. Did you mean 'liver'"),
        ({"treatment": {"architecture": "t"}}, "treatment is .*write treatment: {architecture"),
        ({"control": None}, "control is None"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"published": {"difference": -0.1}}, "published difference .* change its sign, or swap"),
    ],
)
def test_bad_claims(change, message):
    with pytest.raises(BadInput, match=message):
        judged(scores(0.1), **change)
