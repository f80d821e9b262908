from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_results import fake_ledger, fake_scores
from scipy.stats import t

from lib.diff import compare_results, describe, read_results
from lib.errors import BadInput
from lib.files import write_table


@pytest.fixture
def results(tmp_path):
    """Writes a results folder and reads it back, as a user's two results are."""

    def make(name: str, change=lambda ledger, scores: (ledger, scores)):
        ledger = fake_ledger(failed=None, missing=None).assign(
            code="c" * 64, recipe="r" * 64, data="d" * 64, hardware="Linux", software="python 3.11, torch 2.13.0"
        )
        scores = fake_scores(failed=None, missing=None)
        ledger, scores = change(ledger, scores)
        write_table(tmp_path / name / "ledger.csv", ledger)
        write_table(tmp_path / name / "scores.csv", scores)
        return read_results(tmp_path / name)

    return make


def of(table: pd.DataFrame, method: str, **where) -> np.ndarray:
    return np.logical_and.reduce([table["method"] == method, *(table[k] == v for k, v in where.items())])


def test_equal_results_do_not_differ(results):
    cells, methods = compare_results(results("old"), results("new"))
    assert cells.empty and (methods["difference"] == 0).all() and not methods["separated"].any()
    assert describe(cells, methods).startswith("No difference: ")


def test_rounding_is_no_change(results):
    cells, _ = compare_results(
        results("old"),
        results("new", lambda ledger, scores: (ledger, scores.assign(value=scores["value"] * (1 + 1e-15)))),
    )
    assert cells.empty


@pytest.mark.parametrize(
    ("software", "why"),
    [
        ("python 3.12, torch 2.13.0", "versions: python 3.11 -> 3.12"),
        ("python 3.11, torch not installed", "versions: torch 2.13.0 -> not installed"),
        ("python 3.11, torch 2.13.0, monai 1.6", "nothing that both ledgers record"),
        ("", "nothing that both ledgers record"),
    ],
)
def test_versions_that_both_record(results, software, why):
    def change(ledger, scores):
        return ledger.assign(software=software), scores.assign(value=scores["value"] + 0.1)

    cells, _ = compare_results(results("old"), results("new", change))
    assert set(cells["why"]) == {why}


def test_a_changed_cell_names_its_causes_and_is_held_against_the_seeds(results):
    method = fake_ledger()["method"].iloc[0]

    def change(ledger, scores):
        one = of(scores, method, fold=0, seed=1) & (scores["metric"] == "dice")
        scores.loc[one, "value"] -= 0.05
        ledger.loc[of(ledger, method), ["code", "software"]] = ["e" * 64, "python 3.11, torch 2.14.0"]
        return ledger, scores

    old, new = results("old"), results("new", change)
    cells, methods = compare_results(old, new)
    (cell,) = cells.itertuples()
    assert (cell.method, cell.fold, cell.seed) == (method, 0, 1)
    assert cell.why == "code of the training; versions: torch 2.13.0 -> 2.14.0"
    assert cell.difference == pytest.approx(-0.05, abs=1e-9)
    groups = []
    for side in (old, new):
        rows = side.scores[(side.scores["method"] == method) & (side.scores["metric"] == "dice")]
        patients = (
            rows.groupby(["fold", "seed", "patient", "case"])["value"].mean().groupby(["fold", "seed", "patient"])
        )
        means = patients.mean().groupby(["fold", "seed"]).mean()
        groups += [means[fold].to_numpy() for fold in (0, 1)]
    df = sum(len(group) - 1 for group in groups)
    sd = np.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / df)
    assert cell.seed_sd == pytest.approx(sd, rel=1e-9)
    assert bool(cell.beyond_seeds) == (t.ppf(0.975, df) * np.sqrt(2) * sd < 0.05)
    row = methods[methods["method"] == method].iloc[0]
    assert row["cells_changed"] == 1 and row["difference"] < 0 and not row["separated"]
    assert f"{method}: " in describe(cells, methods)


def test_a_method_that_fell_in_every_cell_is_separated(results):
    method = fake_ledger()["method"].iloc[0]

    def change(ledger, scores):
        scores.loc[of(scores, method) & (scores["metric"] == "dice"), "value"] *= 0.5
        return ledger, scores

    cells, methods = compare_results(results("old"), results("new", change))
    assert set(cells["method"]) == {method} and cells["beyond_seeds"].all()
    assert list(methods.loc[methods["separated"], "method"]) == [method]


def test_states_and_cells_of_one_side(results):
    names = fake_ledger()["method"].unique()

    def change(ledger, scores):
        gone = of(ledger, names[0], fold=0, seed=0)
        ledger.loc[gone, "state"] = "missing"
        scores = scores[~of(scores, names[0], fold=0, seed=0)]
        return ledger[~of(ledger, names[1])], scores[~of(scores, names[1])]

    cells, methods = compare_results(results("old"), results("new", change))
    why = cells.groupby("method")["why"].unique().map(list)
    assert why[names[0]] == ["missing in the new"] and why[names[1]] == ["only in the old"]
    assert names[1] not in set(methods["method"])


def test_one_seed_knows_no_spread(results):
    def change(ledger, scores, shift=0.0):
        scores.loc[scores["metric"] == "dice", "value"] *= 1 - shift
        return ledger[ledger["seed"] == 0], scores[scores["seed"] == 0]

    old = results("old", change)
    cells, methods = compare_results(old, results("new", lambda *tables: change(*tables, shift=0.1)))
    assert len(cells) and cells["beyond_seeds"].isna().all() and not methods["separated"].any()


def test_a_folder_without_tables_names_the_file(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere/ledger.csv is missing"):
        read_results(tmp_path / "nowhere")
