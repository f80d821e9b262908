"""Scores over the strength of a noise: which conditions make a curve, its means, the area under it and its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from lib.data.strengths import families
from lib.statistics import situations
from lib.statistics.degradation import AREA, DEGRADATION, area_weights, degradation
from lib.statistics.means import estimate_means
from lib.statistics.table import COLUMNS


def gaussian(strength: float, **settings) -> dict:
    return {"image": {"kind": "gaussian", "strength": strength} | settings}


def shifted(rate: float, mm: float) -> dict:
    return {"train_labels": {"kind": "boundary_shift", "rate": rate, "strength_mm": mm}}


def found(conditions: dict[str, dict], unit: str = "mm") -> dict[str, dict[str, float]]:
    return {f.name: dict(zip(f.conditions, f.strengths, strict=True)) for f in families(conditions, unit)}


def test_conditions_that_differ_in_strength_alone_are_a_family():
    conditions = {"strong": gaussian(0.2), "clean": {}, "weak": gaussian(0.1, seed=0, parts=["test", "train"])}
    assert found(conditions) == {"image gaussian": {"clean": 0.0, "weak": 0.1, "strong": 0.2}}
    (family,) = families(conditions)
    assert (family.part, family.conditions) == ("image", ("clean", "weak", "strong"))


def test_other_kinds_seeds_and_parts_are_other_families():
    conditions = {
        "clean": {},
        "a": gaussian(0.1),
        "b": {"image": {"kind": "rician", "strength": 0.2}},
        "c": gaussian(0.1, parts=["test"]),
        "d": gaussian(0.3, seed=1),
    }
    assert found(conditions) == {
        "image gaussian": {"clean": 0.0, "a": 0.1},
        "image rician": {"clean": 0.0, "b": 0.2},
        "image gaussian, parts test": {"clean": 0.0, "c": 0.1},
        "image gaussian, seed 1": {"clean": 0.0, "d": 0.3},
    }
    del conditions["clean"]
    assert found(conditions) == {}, "each is alone without the clean data"


def test_rate_and_strength_are_two_axes():
    conditions = {"clean": {}, "r1s2": shifted(1, 2), "r1s4": shifted(1.0, 4), "r5s4": shifted(0.5, 4)}
    assert found(conditions) == {
        "train_labels boundary_shift, rate 1 (mm)": {"clean": 0.0, "r1s2": 2.0, "r1s4": 4.0},
        "train_labels boundary_shift, strength_mm 4 (rate)": {"clean": 0.0, "r5s4": 0.5, "r1s4": 1.0},
    }
    alone = {"clean": {}, "r1s2": shifted(1, 2)}
    assert found(alone) == {"train_labels boundary_shift, rate 1 (mm)": {"clean": 0.0, "r1s2": 2.0}}
    drops = {"clean": {}, "x": {"train_labels": {"kind": "structure_drop", "rate": 0.1}}}
    assert found(drops) == {"train_labels structure_drop (rate)": {"clean": 0.0, "x": 0.1}}


def test_the_images_decide_between_millimetres_and_pixels():
    motion = {
        f"m{mm}": {"image": {"kind": "motion", "strength_mm": mm, "strength_px": px}} for mm, px in ((2, 5), (4, 9))
    }
    assert found(motion) == {"image motion (mm)": {"m2": 2.0, "m4": 4.0}}
    assert found(motion, "px") == {"image motion (px)": {"m2": 5.0, "m4": 9.0}}


def test_fewer_patients_are_shares_or_numbers():
    conditions = {name: {"train_patients": n} for name, n in (("q", 0.25), ("h", 0.5), ("n8", 8), ("n4", 4))}
    assert found(conditions | {"clean": {}}) == {
        "train_patients (share)": {"clean": 1.0, "h": 0.5, "q": 0.25},
        "train_patients (number)": {"n8": 8.0, "n4": 4.0},
    }


def test_a_condition_with_two_sorts_of_noise_does_not_start_at_clean():
    both = {name: gaussian(s) | shifted(1, 2) for name, s in (("a", 0.1), ("b", 0.2))}
    (family,) = families({"clean": {}} | both)
    assert dict(zip(family.conditions, family.strengths, strict=True)) == {"a": 0.1, "b": 0.2}
    assert families({"clean": {}, "a": both["a"]}) == []


def test_the_area_is_the_trapezoid_rule_over_the_range():
    x, y = (0.0, 0.05, 0.2, 0.3), np.array([0.9, 0.8, 0.4, 0.1])
    assert area_weights(x) @ y == pytest.approx(integrate.trapezoid(y, x) / 0.3)
    assert area_weights((1.0, 0.5, 0.25)) @ y[:3] == pytest.approx(integrate.trapezoid(y[2::-1], (0.25, 0.5, 1)) / 0.75)
    assert area_weights((0, 4)).tolist() == [0.5, 0.5]


def score_table(values: dict[str, dict[str, np.ndarray]], folds: int = 1) -> pd.DataFrame:
    """{condition: {method: (seeds, patients)}}; NaN becomes a missing row."""
    rows = [
        ("d", condition, "cpu", method, *method.split("+"), p % folds, s, f"p{p}", f"c{p}", "liver", "dice", value, "",
         "scored")
        for condition, methods in values.items() for method, table in methods.items()
        for (s, p), value in np.ndenumerate(table)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).dropna(subset="value")


CONDITIONS = {"clean": {}, "weak": gaussian(0.1), "strong": gaussian(0.4)}


def curves(rng, seeds=3, patients=12) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: {m: rng.normal(level - drop * i, 0.03, (seeds, patients)) for m, level, drop in (("a+l", 0.8, 0.1), ("b+l", 0.7, 0.02))}
        for i, name in enumerate(CONDITIONS)
    }  # fmt: skip


def test_rows_of_points_and_areas():
    values = curves(np.random.default_rng(0))
    table = degradation(situations(score_table(values, folds=2)), CONDITIONS)
    assert list(table.columns) == DEGRADATION
    assert table[["strength", "method"]].to_numpy().tolist() == [
        [s, m] for s in (0.0, 0.1, 0.4, AREA) for m in ("a+l", "b+l")
    ]
    assert (
        set(table["family"]) == {"image gaussian"} and set(table["n_seeds"]) == {3} and set(table["n_patients"]) == {12}
    )
    for row in table[table["strength"] != AREA].itertuples():
        each = estimate_means(values[row.condition][row.method][None], np.arange(12) % 2)
        assert row.mean == pytest.approx(each.mean[0])
        assert row.high - row.mean == pytest.approx(each.half_widths(0.95)[0])
    for row in table[table["strength"] == AREA].itertuples():
        clean, weak, strong = (values[c][row.method] for c in ("clean", "weak", "strong"))
        own = ((clean + weak) / 2 * 0.1 + (weak + strong) / 2 * 0.3) / 0.4  # of each training and patient
        each = estimate_means(own[None], np.arange(12) % 2)
        assert row.mean == pytest.approx(own.mean())
        assert row.high - row.mean == pytest.approx(each.half_widths(0.95)[0])
        assert row.condition == ""


def test_one_seed_is_the_t_interval_of_the_patients_areas():
    values = curves(np.random.default_rng(1), seeds=1)
    row = (
        degradation(situations(score_table(values)), CONDITIONS).query("strength == 'area' and method == 'a+l'").iloc[0]
    )
    own = np.tensordot([0.125, 0.5, 0.375], [values[c]["a+l"][0] for c in CONDITIONS], 1)
    expected = stats.ttest_1samp(own, 0).confidence_interval(0.95)
    assert [row["low"], row["high"]] == pytest.approx(expected, rel=1e-6)


def test_the_area_uses_what_every_strength_has():
    values = curves(np.random.default_rng(2))
    values["weak"]["a+l"][:, 5] = np.nan
    values["strong"]["a+l"][1] = np.nan
    table = degradation(situations(score_table(values)), CONDITIONS)
    area = table.query("strength == 'area' and method == 'a+l'").iloc[0]
    assert (area["n_patients"], area["n_seeds"]) == (11, 2)
    other = table.query("strength == 'area' and method == 'b+l'").iloc[0]
    assert (other["n_patients"], other["n_seeds"]) == (12, 3)
    weak = table.query("condition == 'weak' and method == 'a+l'").iloc[0]
    assert (weak["n_patients"], weak["n_seeds"]) == (11, 3)


def test_a_method_of_one_condition_has_no_area():
    values = curves(np.random.default_rng(3))
    del values["strong"]["b+l"]
    table = degradation(situations(score_table(values)), CONDITIONS)
    lost = table.query("method == 'b+l' and strength in ['area', 0.4]")
    assert lost["mean"].isna().all() and (lost["n_patients"] == 0).all()


def test_nothing_to_draw():
    assert degradation(situations(score_table({"clean": {"a+l": np.ones((3, 4))}})), {"clean": {}}).empty
    assert degradation([], CONDITIONS).empty
    only = {"clean": {"a+l": np.full((3, 4), 0.5)}}  # the other conditions have no scores
    assert degradation(situations(score_table(only)), CONDITIONS).empty


@pytest.mark.parametrize(("seeds", "folds"), [(3, 1), (3, 5), (5, 1)])
def test_the_area_s_interval_covers(seeds, folds):
    """95 % in 400 simulations of trainings that vary by condition (two standard errors and a half allowed)."""
    rng = np.random.default_rng(4)
    n, patients, fold = 400, 20, np.arange(20) % folds
    values = (rng.normal(size=(n, 3, seeds, folds)) * 0.03)[..., fold]
    values = values + rng.normal(size=(n, 1, 1, patients)) * 0.05 + rng.normal(size=(n, 3, seeds, patients)) * 0.02
    area = np.tensordot(area_weights((0, 0.1, 0.4)), values, (0, 1))
    assert np.mean(estimate_means(area, fold).p_values() > 0.05) >= 0.95 - 2.5 * np.sqrt(0.05 * 0.95 / n)
