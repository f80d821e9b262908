"""Pairs of methods: moderated variances, the top group, tests over patients, sample sizes, variance components."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from test_statistics import dice, score_table, simulate

from lib.statistics import compare, components, pairs, situations
from lib.statistics.means import estimate_means
from lib.statistics.moderation import _trigamma_inverse, moderate, wary_of_folds
from lib.statistics.ranking import compare_pairs, differences, top_group


def all_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(n, 1)


def methods_of(rng, sd, seeds=3, folds=1, patients=20, patient=0.3, residual=0.3, trainings="normal"):
    """One study: scores (methods, seeds, patients) around 0, and folds; `sd` (methods,) or (methods, folds)."""
    sd = np.asarray(sd, float)
    sd = np.broadcast_to(sd[:, None] if sd.ndim == 1 else sd, (len(sd), folds))
    values, fold = simulate(rng, len(sd), seeds, patients, folds, 0.0, patient, residual)
    draw = rng.standard_t(3, (len(sd), seeds, folds)) / np.sqrt(3) if trainings == "t" else None
    draw = rng.normal(size=(len(sd), seeds, folds)) if draw is None else draw
    return values + (draw * sd[:, None])[..., fold], fold


# ---- moderated variances


def test_moderation_is_smyths_estimate_with_three_cautions():
    """Derived anew from sample variances of trainings alone, one fold: spread, prior, moderated variance, df."""
    n, seeds = 6, 4
    trainings = np.random.default_rng(1).normal(size=(n, seeds)) * np.array([[1], [1], [2], [2], [3], [3]])
    a, b = all_pairs(n)
    own = differences(np.repeat(trainings[:, :, None], 10, 2), a, b, np.zeros(10, int))
    own = estimate_means(
        np.repeat((trainings[a] - trainings[b])[:, :, None], 10, 2) + patients_noise(10), np.zeros(10, int)
    )
    variance = {
        pair: np.var(trainings[pair[0]] - trainings[pair[1]], ddof=1) / seeds for pair in combinations(range(n), 2)
    }
    df = seeds - 1
    corrected = {k: np.log(v) - special.digamma(df / 2) + np.log(df / 2) for k, v in variance.items()}
    spread = [np.var([c for k, c in corrected.items() if m not in k], ddof=1) for m in range(n)]
    error = np.sqrt((n - 1) / n * np.sum((spread - np.mean(spread)) ** 2))
    excess = np.var([*corrected.values()], ddof=1) - special.polygamma(1, df / 2) + 2 * error
    prior_df = optimize.brentq(lambda d: special.polygamma(1, d / 2) - excess, 1e-3, 1e6)
    common = np.exp(np.mean([*corrected.values()]))
    result = moderate(own, a, b)
    for k, pair in enumerate(combinations(range(n), 2)):
        drawn = (prior_df * common + df * variance[pair]) / (prior_df + df)
        assert result.training_variance[k] == pytest.approx(max(drawn, variance[pair]), rel=1e-5)
        assert result.training_df[k] == pytest.approx(min(prior_df + df, (n - 1) * df), rel=1e-5)


def patients_noise(n: int) -> np.ndarray:
    return np.linspace(-1e-4, 1e-4, n)


def test_trigamma_inverse():
    for x in (0.02, 0.5, 3.0, 400.0):
        assert _trigamma_inverse(special.polygamma(1, x)) == pytest.approx(x, rel=1e-6)
    assert _trigamma_inverse(-0.1) > 1e6


def test_moderation_only_adds_degrees_of_freedom():
    rng = np.random.default_rng(0)
    a, b = all_pairs(8)
    alike, fold = methods_of(rng, np.ones(8), folds=2)
    unlike, _ = methods_of(rng, np.geomspace(0.05, 5, 8), folds=2)
    gained = {}
    for name, values in (("alike", alike), ("unlike", unlike)):
        own = differences(values, a, b, fold)
        result = moderate(own, a, b)
        assert (result.training_variance >= own.training_variance).all()
        assert (result.patient_variance == own.patient_variance).all()
        gained[name] = np.median(result.training_df - own.training_df)
    assert gained["alike"] > 2
    assert gained["unlike"] < 1.5


def test_moderation_knows_neither_units_nor_order():
    rng = np.random.default_rng(2)
    values, fold = methods_of(rng, np.ones(6), folds=2)
    p = compare_pairs(values, np.arange(6), fold, 0.95).p_moderated
    again = compare_pairs(1000 * values + 7, np.arange(6), fold, 0.95).p_moderated
    np.testing.assert_allclose(again, p, rtol=1e-6)
    order = np.array([3, 1, 5, 0, 4, 2])
    mixed = compare_pairs(values, order, fold, 0.95)
    expected = {frozenset(k): v for k, v in zip(zip(*all_pairs(6), strict=True), p, strict=True)}
    for x, y, value in zip(mixed.a, mixed.b, mixed.p_moderated, strict=True):
        assert value == pytest.approx(expected[frozenset((x, y))], rel=1e-6)


def test_a_restless_fold_is_known_from_all_methods():
    """One of two folds varies six times as much: about seeds - 1 degrees of freedom, where pairs by chance show more."""
    rng = np.random.default_rng(3)
    values, fold = methods_of(rng, np.tile([6.0, 1.0], (8, 1)), folds=2, patient=0.01, residual=0.01)
    a, b = all_pairs(8)
    own = differences(values, a, b, fold)
    wary = wary_of_folds(own, a, b)
    assert own.training_df.max() > wary.training_df.max() + 0.5
    assert wary.training_df.max() < 2.4
    assert (wary.training_df <= own.training_df).all()
    assert (wary.training_variance == own.training_variance).all()
    by_hand = (own.training_effects**2).sum(1)  # (pairs, folds)
    usual = np.exp(np.log(by_hand).mean(0))
    assert wary.training_df.max() == pytest.approx(2 * usual.sum() ** 2 / (usual**2).sum())
    assert compare_pairs(values, np.arange(8), fold, 0.95).p == pytest.approx(wary.p_values())


def test_three_methods_stand_for_themselves():
    values, fold = methods_of(np.random.default_rng(0), np.ones(3))
    a, b = all_pairs(3)
    own = differences(values, a, b, fold)
    assert moderate(own, a, b) is own
    assert wary_of_folds(own, a, b) is own


def test_methods_in_which_nothing_is_random_tell_nothing_of_trainings():
    """Else each of them would repeat what is known of the others, and three trained methods would pass for eight."""
    values, fold = methods_of(np.random.default_rng(0), np.ones(8), folds=2)
    values[3:] = values[3:, :1]
    everyone = compare_pairs(values, np.arange(8), fold, 0.95)
    assert everyone.p_moderated == pytest.approx(everyone.deciding.p_values())
    values, fold = methods_of(np.random.default_rng(0), np.ones(8), folds=2)
    values[5:] = values[5:, :1]
    a, b = all_pairs(5)
    trained = moderate(own := differences(values, a, b, fold), a, b)
    every_a, every_b = all_pairs(8)
    fixed = np.arange(8) >= 5
    everyone = moderate(differences(values, every_a, every_b, fold), every_a, every_b, fixed)
    among = ~fixed[every_a] & ~fixed[every_b]
    assert everyone.training_df[among] == pytest.approx(trained.training_df)
    assert everyone.training_variance[among] == pytest.approx(trained.training_variance)
    assert (trained.training_df > own.training_df).all()


def test_pairs_with_too_few_seeds_are_left_alone():
    values, fold = methods_of(np.random.default_rng(0), np.ones(6))
    values[0, 1:] = np.nan  # one training of the first method
    a, b = all_pairs(6)
    own = differences(values, a, b, fold)
    result = moderate(own, a, b)
    assert not own.seeds_enough[a == 0].any()
    assert np.isinf(result.training_df[a == 0]).all()
    assert (result.training_df[a > 0] > own.training_df[a > 0]).all()
    compared = compare_pairs(values, np.arange(6), fold, 0.95)
    assert not compared.separated[compared.a == 0].any()


def test_same_scores_stay_without_a_difference():
    values, fold = methods_of(np.random.default_rng(0), np.ones(6))
    values[1] = values[0]
    compared = compare_pairs(values, np.arange(6), fold, 0.95)
    assert compared.p[0] == compared.p_moderated[0] == 1
    assert compared.deciding.half_widths(0.95)[0] == 0


# ---- top group


def study(rng, sd, truth, **kwargs):
    """Top group and pairs of a simulated study of methods with true means `truth`, ranked by their means."""
    values, fold = methods_of(rng, sd, **kwargs)
    values = values + np.asarray(truth, float)[:, None, None]
    order = np.argsort(-estimate_means(values, fold).mean, kind="stable")
    compared = compare_pairs(values, order, fold, 0.95)
    return top_group(compared, 1.0 + np.argsort(order), 1, 0.95), compared


def test_top_group_by_hand():
    """Differences of trainings alone in one fold with three methods: t-tests over seeds, two comparisons each."""
    rng = np.random.default_rng(0)
    values = (
        rng.normal(size=(3, 5, 1)) * 0.01 + np.array([0.9, 0.885, 0.8])[:, None, None] + 1e-7 * rng.random((3, 5, 9))
    )
    compared = compare_pairs(values, np.arange(3), np.zeros(9, int), 0.95)
    p = [stats.ttest_rel(values[i, :, 0], values[j, :, 0]).pvalue for i, j in combinations(range(3), 2)]
    np.testing.assert_allclose(compared.p, p, rtol=1e-3)
    np.testing.assert_allclose(compared.p_moderated, p, rtol=1e-3)
    adjusted = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(compared.p_holm, adjusted, rtol=1e-3)
    for level in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999):
        by_level = compare_pairs(values, np.arange(3), np.zeros(9, int), level)
        second = adjusted[0] <= 1 - level or 2 * p[0] <= 1 - level
        last = adjusted[1:].min() <= 1 - level or 2 * min(p[1:]) <= 1 - level
        assert top_group(by_level, np.array([1.0, 2, 3]), 1, level).tolist() == [True, not second, not last]
        worst_first = top_group(by_level, np.array([1.0, 2, 3]), -1, level)
        assert worst_first.all()  # with the opposite direction nobody beats anybody ranked behind


def test_two_methods_leave_the_top_group_when_separated():
    seen = set()
    for seed in range(40):
        top, compared = study(np.random.default_rng(seed), [1, 1], [2.5, 0])
        assert top.all() != compared.separated[0]
        seen.add(bool(compared.separated[0]))
    assert seen == {True, False}


def test_out_of_the_top_group_without_being_separated():
    """Of ten methods, comparisons with the best need a tenth of what all pairs need, and separated ones are out."""
    more = 0
    for seed in range(20):
        top, compared = study(np.random.default_rng(seed), np.ones(10), [4.0] + [0.0] * 9)
        beaten = {b for a, b, s in zip(compared.a, compared.b, compared.separated, strict=True) if s}
        assert not beaten & set(np.flatnonzero(top))
        more += (~top).sum() > len(beaten)
    assert more > 10


def test_top_group_of_unranked_and_tied_methods():
    values, fold = methods_of(np.random.default_rng(0), np.full(4, 1e-3), patient=1e-3, residual=1e-3)
    values += np.array([3.0, 3, 2, 1])[:, None, None]
    values[1] = values[0]
    compared = compare_pairs(values, np.arange(4), fold, 0.95)
    assert top_group(compared, np.array([1, 1, 3, np.nan]), 1, 0.95).tolist() == [True, True, False, False]
    # an unranked method throws nobody out
    assert top_group(compared, np.array([np.nan, np.nan, 1, 2]), 1, 0.95).tolist() == [False, False, True, False]


SCENARIOS = {
    "all alike": lambda m, f: np.ones((m, f)),
    "spread": lambda m, f: np.exp(np.linspace(-1, 1, m))[:, None] * np.ones(f),
    "one method 4 times": lambda m, f: np.where(np.arange(m)[:, None] == 0, 4.0, 1) * np.ones(f),
    "one fold 4 times": lambda m, f: np.ones((m, 1)) * np.where(np.arange(f) == 0, 4.0, 1),
}


def null_rates(n, methods, folds, scenario, trainings="normal") -> tuple[float, float]:
    """All methods equal: how often the one worst off is left out of the top group, and any pair is separated."""
    rng, out, separated = np.random.default_rng(5), [], []
    for _ in range(n):
        top, compared = study(rng, SCENARIOS[scenario](methods, folds), [0] * methods, folds=folds, trainings=trainings)
        out.append(~top)
        separated.append(compared.separated.any())
    out = np.array(out)
    return max(out[:, 0].mean(), out[:, -1].mean(), out.mean()), np.mean(separated)


def limit(n: int, rate=0.05) -> float:
    return rate + 2.6 * np.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize(
    ("methods", "folds", "scenario"), [(7, 1, "all alike"), (7, 1, "spread"), (5, 2, "one fold 4 times")]
)
def test_a_best_method_stays_in_the_top_group(methods, folds, scenario):
    out, separated = null_rates(150, methods, folds, scenario)
    assert max(out, separated) <= limit(150)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(("methods", "folds"), [(4, 1), (7, 1), (7, 2), (12, 5)])
def test_top_group_and_families_of_the_documentation(methods, folds, scenario):
    if folds > 1 or "fold" not in scenario:
        out, separated = null_rates(400, methods, folds, scenario)
        assert max(out, separated) <= limit(400)
    if scenario == "all alike":
        assert max(null_rates(400, methods, folds, scenario, "t")) <= limit(400)


@pytest.mark.slow
@pytest.mark.parametrize("unstable", [0, 1, 2])
@pytest.mark.parametrize(("methods", "rivals"), [(7, 1), (7, 3), (15, 2)])
def test_best_of_some_rivals_far_ahead_of_the_rest(methods, rivals, unstable):
    """Holm steps down over the many true differences; that must cost neither a rival nor the best its place.

    Not even if the best, or the best and one rival, are four times less stable than all others.
    """
    truth = np.where(np.arange(methods) <= rivals, 0.0, -1000.0 * np.arange(methods))
    rng, wrong = np.random.default_rng(6), []
    for _ in range(250):
        top, compared = study(rng, np.where(np.arange(methods) < unstable, 4.0, 1.0), truth)
        false = compared.separated & (truth[compared.a] == truth[compared.b])
        wrong.append((not top[0], false.any()))
    assert np.mean(wrong, 0).max() <= limit(250)


def test_moderation_finds_what_pairs_alone_do_not():
    """Three seeds, one fold, seven methods: a lead of 6 training deviations is seen, by t-tests alone it is not."""
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        top, compared = study(rng, np.ones(7), [6.0] + [0.0] * 6)
        alone = compared.own.p_values() * 6 <= 0.05
        found.append(((~top[1:]).mean(), alone[compared.a == 0].mean()))
    found = np.mean(found, 0)
    assert found[0] > 0.8
    assert found[1] < 0.5


# ---- tests over patients, effect sizes


def test_effect_size_and_wins():
    d = np.array([[1.0, 3.0, 2.0, np.nan], [-1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [np.nan] * 4, [0.0] * 4])
    np.testing.assert_allclose(pairs.effect_size(d)[:2], [2 / 1.0, 0.0])
    assert np.isinf(pairs.effect_size(d)[2])
    assert np.isnan(pairs.effect_size(d)[3]) and pairs.effect_size(d)[4] == 0
    np.testing.assert_allclose(pairs.wins(d, 1), [1, 0.5, 1, np.nan, 0.5])
    np.testing.assert_allclose(pairs.wins(d, -1), [0, 0.5, 0, np.nan, 0.5])


@pytest.mark.parametrize("patients", [5, 12, 40, 70])
def test_wilcoxon_is_scipys(patients):
    rng = np.random.default_rng(patients)
    d = rng.normal(0.3, 1, size=(6, patients))
    d[1, 1] = -d[1, 0]  # a tie
    d[2, 0] = 0.0
    result = pairs.wilcoxon(d)
    assert result[0] == pytest.approx(stats.wilcoxon(d[0]).pvalue, rel=1e-12)
    assert result[1] == pytest.approx(stats.wilcoxon(d[1]).pvalue, rel=1e-9)
    assert result[2] == pytest.approx(stats.wilcoxon(d[2, 1:]).pvalue, rel=1e-12)
    d[0, 1] = np.nan
    d[3] = 0.0
    d[4] = np.nan
    result = pairs.wilcoxon(d)
    assert result[0] == pytest.approx(stats.wilcoxon(np.delete(d[0], 1)).pvalue)
    assert result[3] == 1
    assert np.isnan(result[4])


@pytest.mark.parametrize("patients", [2, 4, 9, 13])
def test_sign_flips_are_scipys_exact_permutation_test(patients):
    d = np.random.default_rng(patients).normal(0.4, 1, size=(4, patients))
    d[1] = np.round(d[1])
    d[2] = 0.25  # all the same
    for row, p in zip(d, pairs.sign_flips(d), strict=True):
        reference = stats.permutation_test((row,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert p == pytest.approx(reference.pvalue, rel=1e-12)


def test_sign_flips_of_many_patients_and_of_absent_ones():
    d = np.random.default_rng(0).normal(0.4, 1, size=(3, 16))
    d[1, 4:] = np.nan
    d[2] = np.nan
    signs = np.array([*product((-1, 1), repeat=16)])
    exact = np.mean(np.abs(signs @ d[0]) >= abs(d[0].sum()) - 1e-12)
    result = pairs.sign_flips(d)
    assert result[0] == pytest.approx(exact, abs=4 * np.sqrt(exact / 9999))
    few = np.array([*product((-1, 1), repeat=4)])
    exact = np.mean(np.abs(few @ d[1, :4]) >= abs(d[1, :4].sum()) - 1e-12)
    assert result[1] == pytest.approx(exact, abs=4 * np.sqrt(exact / 9999))
    assert np.isnan(result[2])
    assert (pairs.sign_flips(d)[:2] == result[:2]).all()


def test_columns_of_the_comparisons():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.05, size=20)
    values = {
        f"{m}+l": shared + dice(rng, v, seed_spread=0.01) for m, v in zip("abcd", (0.85, 0.84, 0.8, 0.6), strict=True)
    }
    table = compare(score_table(values)).pairs
    for _, row in table.iterrows():
        d = (values[row["method_a"]] - values[row["method_b"]]).mean(0)
        assert row["effect_size"] == pytest.approx(d.mean() / d.std(ddof=1))
        assert row["wins"] == np.mean(d > 0)
        assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(d).pvalue)
        assert row["p_permutation"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.02)
        assert row["seeds_needed"] >= 3
        assert row["patients_needed"] >= 6
    for name in ("p_wilcoxon", "p_permutation"):
        np.testing.assert_allclose(table[f"{name}_holm"], multipletests(table[name], method="holm")[1])
    down = compare(score_table({m: 10 * v for m, v in values.items()}, metric="hd95"), primary="hd95").pairs
    assert down["method_b"].iloc[-1] == "a+l"
    assert (down["difference"] < 0).all() and (down["wins"] >= 0.5).all()


# ---- how many seeds, how many patients


def planned(difference, training, patient, residual, seeds=3, folds=1, patients=30):
    """A row of Means with these components in place of estimated ones."""
    values, fold = simulate(np.random.default_rng(0), 1, seeds, patients, folds, 1.0)
    means = estimate_means(values, fold)
    rest = residual**2 * means.value_share
    return _replaced(
        means,
        mean=np.array([difference]),
        training_variance=training**2 * means.training_share + rest,
        patient_variance=patient**2 / means.n_patients + rest,
        residual_variance=rest,
    )


def _replaced(means, **changes):
    return type(means)(**{name: changes.get(name, getattr(means, name)) for name in means.__dataclass_fields__})


@pytest.mark.parametrize("difference", [0.5, 0.8, 1.2])
def test_numbers_needed_are_those_of_the_t_test(difference):
    """Where trainings alone, or patients alone, vary: the paired t-test's sample size, from statsmodels."""
    expected = np.ceil(TTestPower().solve_power(effect_size=difference, power=0.8, alpha=0.05))
    seeds, patients = pairs.studies_needed(planned(difference, 1.0, 1e-6, 1e-6))
    assert seeds == expected
    assert np.isinf(patients)  # more patients are no remedy for three trainings
    seeds, patients = pairs.studies_needed(planned(difference, 1e-6, 1.0, 1e-6, seeds=200, patients=20))
    assert patients == expected
    assert np.isinf(seeds) if expected > 20 else seeds == 3


def test_numbers_needed_have_the_power():
    """Between the extremes and in several folds: simulated power at the recommended number, 80 % or little more."""
    rng = np.random.default_rng(0)
    for folds, (t, p, r), difference, patients in (
        (1, (0.3, 0.3, 1.0), 0.3, 30), (2, (0.3, 1.0, 1.0), 0.5, 60), (5, (0.5, 0.5, 0.5), 0.35, 40),
    ):  # fmt: skip
        seeds = int(pairs.studies_needed(planned(difference, t, p, r, 3, folds, patients))[0][0])
        assert seeds > 4
        values, fold = simulate(rng, 1500, seeds, patients, folds, t, p, r)
        power = np.mean(estimate_means(values + difference, fold).p_values() <= 0.05)
        assert 0.75 <= power <= 0.85, folds
    needed = int(pairs.studies_needed(planned(0.3, 0.3, 0.3, 1.0, 3, 5))[1][0])
    values, fold = simulate(rng, 1000, 3, needed, 5, 0.3, 0.3, 1.0)
    assert 0.75 <= np.mean(estimate_means(values + 0.3, fold).p_values() <= 0.05) <= 0.85


def test_numbers_needed_where_none_will_do():
    seeds, patients = pairs.studies_needed(planned(0.0, 1.0, 1.0, 1.0))
    assert np.isinf(seeds) and np.isinf(patients)
    two_seeds = estimate_means(np.random.default_rng(0).normal(size=(1, 2, 9)), np.zeros(9, int))
    assert np.isnan(pairs.studies_needed(two_seeds)).all()
    constant = estimate_means(np.full((1, 3, 9), 0.2), np.zeros(9, int))
    assert np.array(pairs.studies_needed(constant)).ravel().tolist() == [3, 6]


# ---- variance components


def test_components_are_those_of_a_mixed_model():
    """REML of crossed random effects equals the analysis of variance on balanced data with positive components."""
    seeds, patients = 5, 10
    values, fold = simulate(np.random.default_rng(3), 1, seeds, patients, 1, 0.8, 1.2, 0.5)
    data = pd.DataFrame(
        [(v, s, p) for (s, p), v in np.ndenumerate(values[0])], columns=["value", "training", "patient"]
    ).assign(one=1)
    model = MixedLM.from_formula(
        "value ~ 1", data, groups="one", vc_formula={"training": "0 + C(training)", "patient": "0 + C(patient)"}
    )
    fit = model.fit(reml=True)
    expected = dict(zip(model.exog_vc.names, fit.vcomp, strict=True)) | {"residual": fit.scale}
    for name, (estimate, low, high) in estimate_means(values, fold).components(0.95).items():
        assert estimate[0] ** 2 == pytest.approx(expected[name], rel=0.01), name
        assert low[0] < estimate[0] < high[0]


@pytest.mark.parametrize(("seeds", "folds", "patients"), [(3, 1, 30), (3, 5, 30), (10, 1, 12)])
def test_components_are_recovered(seeds, folds, patients):
    truth = {"training": 0.6, "patient": 1.0, "residual": 0.5}
    values, fold = simulate(np.random.default_rng(0), 1500, seeds, patients, folds, *truth.values())
    for name, (estimate, low, high) in estimate_means(values, fold).components(0.95).items():
        assert np.sqrt(np.mean(estimate**2)) == pytest.approx(truth[name], rel=0.05), name
        assert 0.93 <= np.mean((low <= truth[name]) & (truth[name] <= high)) <= 0.995, name


def test_table_of_components():
    rng = np.random.default_rng(0)
    table = score_table(
        {"a+l": dice(rng, 0.8, seeds=4, patients=40, seed_spread=0.05), "b+l": dice(rng, 0.8, seeds=2, patients=40)},
        structures=("x", "y"),
    )
    result = components(situations(table))
    assert len(result) == 2 * 3
    a = result.query("method == 'a+l' and structure == 'mean'").iloc[0]
    assert (a["n_seeds"], a["n_patients"]) == (4, 40)
    assert 0.02 < a["sd_training"] < 0.1
    assert a["sd_residual"] == pytest.approx(0.02, rel=0.15)
    assert a["sd_training_low"] < a["sd_training"] < a["sd_training_high"]
    b = result.query("method == 'b+l'")
    assert b.filter(like="sd_").isna().all(axis=None)
    few = score_table({"a+l": dice(rng, 0.8, patients=6)}, folds=3)
    small = components(situations(few)).iloc[0]
    assert np.isnan(small["sd_patient"]) and np.isfinite(small["sd_training"])
    assert list(components([]).columns) == list(result.columns)
