"""Ranking schemes, their bootstrap and agreement: SciPy, scikit-posthocs, challengeR, and tables ranked by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from test_statistics import dice, score_table

from lib.statistics import rank, situations
from lib.statistics.consensus import CONSENSUS, consensus
from lib.statistics.critical_difference import critical_difference
from lib.statistics.means import estimate_means
from lib.statistics.ranking import rank_intervals, resample, resampled_means
from lib.statistics.robustness import challenger_table, compare_rankings, kendall_tau
from lib.statistics.schemes import SCHEMES, rank_by_schemes, resampled_scores, signed_rank_p_values


def ranked(scores: pd.DataFrame, metric: str = "dice", **options) -> dict[str, dict[str, tuple[float, int]]]:
    """{scheme: {method: (value, rank)}} of the measured rankings."""
    part = situations(scores)[0]
    names = part.methods["architecture"].to_numpy()
    return {
        scheme: dict(
            zip(names[ranking.methods], zip(ranking.value.tolist(), ranking.rank.tolist(), strict=True), strict=True)
        )
        for scheme, ranking in rank_by_schemes(part, metric, resamples=20, **options).items()
    }


# One seed; rows are methods, columns patients. Per patient the ranks are a 1 1 3 3 3, b 2 3 1 1 1, c 3 1 1 2 2: b ties
# with nobody, a and c tie at patient 2, b and c at patient 3.
BY_HAND = {"a+l": [[0.9, 0.8, 0.3, 0.2, 0.3]], "b+l": [[0.8, 0.7, 0.6, 0.6, 0.5]], "c+l": [[0.1, 0.8, 0.6, 0.4, 0.4]]}


def test_schemes_by_hand():
    by_hand = ranked(score_table({method: np.array(values) for method, values in BY_HAND.items()}))
    approx = lambda pairs: {m: (pytest.approx(value), rank) for m, (value, rank) in pairs.items()}  # noqa: E731
    assert by_hand["mean_then_rank"] == approx({"a": (0.5, 2), "b": (0.64, 1), "c": (0.46, 3)})
    assert by_hand["median_then_rank"] == approx({"a": (0.3, 3), "b": (0.6, 1), "c": (0.4, 2)})
    assert by_hand["rank_then_mean"] == approx({"a": (11 / 5, 3), "b": (8 / 5, 1), "c": (9 / 5, 2)})
    assert by_hand["rank_then_median"] == approx({"a": (3, 3), "b": (1, 1), "c": (2, 2)})
    assert by_hand["test_then_rank"] == approx({"a": (0, 1), "b": (0, 1), "c": (0, 1)})  # 5 patients cannot do it


def test_ties_share_the_better_rank():
    table = score_table({"a+l": np.array([[0.5, 0.7]]), "b+l": np.array([[0.7, 0.5]]), "c+l": np.array([[0.4, 0.4]])})
    for scheme, methods in ranked(table).items():
        expected = {"a": 1, "b": 1, "c": 1 if scheme == "test_then_rank" else 3}
        assert {method: rank for method, (_, rank) in methods.items()} == expected, scheme


def test_lower_distances_rank_first_and_keep_their_sign():
    values = {"a+l": np.array([[3.0, 4.0, 5.0]]), "b+l": np.array([[1.0, 2.0, 6.0]])}
    by_hand = ranked(score_table(values, metric="hd95"), "hd95")
    assert by_hand["mean_then_rank"] == {"a": (4.0, 2), "b": (3.0, 1)}
    assert by_hand["rank_then_median"] == {"a": (2.0, 2), "b": (1.0, 1)}


def test_seeds_are_averaged_before_ranking():
    values = {"a+l": np.array([[0.2, 0.2], [0.8, 0.8], [0.8, 0.8]]), "b+l": np.full((3, 2), 0.7)}
    assert ranked(score_table(values))["rank_then_mean"] == {"a": (2.0, 2), "b": (1.0, 1)}


def test_a_method_without_all_patients_is_not_ranked():
    values = {
        "a+l": np.array([[0.9, 0.9, np.nan]]),
        "b+l": np.array([[0.5, 0.5, 0.5]]),
        "c+l": np.array([[0.4, 0.6, 0.4]]),
    }
    schemes = compare_rankings(score_table(values)).schemes.query("empty == 'penalise'")
    for scheme in SCHEMES:
        rows = schemes[schemes["scheme"] == scheme].set_index("method")
        assert pd.isna(rows.loc["a+l", "rank"])
        assert np.isnan(rows.loc["a+l", "value"])
        assert rows.loc["b+l", "rank"] == 1


def test_failed_cells_rank_last_or_not_at_all():
    values = {"a+l": np.full((1, 4), 0.6), "b+l": np.full((1, 4), 0.5)}
    table = score_table(values)
    broken = (table["method"] == "a+l") & (table["patient"] == "p000")
    table.loc[broken, ["status", "value"]] = ["failed", 0.0]
    for failed, ranks in (("worst", {"a+l": 2, "b+l": 1}), ("exclude", {"a+l": None, "b+l": 1})):
        schemes = compare_rankings(table, failed).schemes.query("empty == 'penalise' and scheme == 'mean_then_rank'")
        found = {m: None if pd.isna(r) else r for m, r in zip(schemes["method"], schemes["rank"], strict=True)}
        assert found == ranks


def test_policies_for_empty_masks_change_ranks():
    """a is ahead wherever the structure exists, but sees it in two cases where it does not."""
    table = score_table({"a+l": np.array([[0.8, 0.8, 0.0, 0.0]]), "b+l": np.array([[0.7, 0.7, 1.0, 1.0]])})
    empty = table["patient"].isin(["p002", "p003"])
    table.loc[empty, "status"] = np.where(table.loc[empty, "method"] == "a+l", "hallucinated", "both_empty")
    result = compare_rankings(table)
    schemes = result.schemes.query("scheme == 'mean_then_rank'").set_index(["empty", "method"])["rank"]
    assert schemes.to_dict() == {
        ("penalise", "a+l"): 2, ("penalise", "b+l"): 1, ("exclude", "a+l"): 1, ("exclude", "b+l"): 2,
    }  # fmt: skip
    agreement = result.agreement.set_index(["ranking_a", "ranking_b"])["kendall_tau"]
    assert agreement["mean_then_rank, dice, penalise", "mean_then_rank, dice, exclude"] == -1


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_signed_rank_tests_are_those_of_scipy(digits):
    differences = np.random.default_rng(digits).normal(0.05, 0.2, (50, 23)).round(digits)
    differences[0, :5] = 0
    p = signed_rank_p_values(differences)
    for tail, alternative in zip(p, ("greater", "less"), strict=True):
        expected = stats.wilcoxon(differences, axis=1, alternative=alternative, correction=True, method="asymptotic")
        assert tail == pytest.approx(expected.pvalue, rel=1e-10)
    assert np.isnan(signed_rank_p_values(np.zeros((2, 5)))).all()


def test_won_tests_count_significant_pairs_after_holm():
    rng = np.random.default_rng(0)
    levels = {"a+l": 0.90, "b+l": 0.895, "c+l": 0.7, "d+l": 0.6}
    patient = rng.normal(size=30) * 0.05
    values = {method: (level + patient + rng.normal(size=30) * 0.02)[None] for method, level in levels.items()}
    pairs = [(a, b) for a in values for b in values if a != b]
    p = [
        stats.wilcoxon(values[a][0], values[b][0], alternative="greater", correction=True, method="asymptotic").pvalue
        for a, b in pairs
    ]
    significant = multipletests(p, method="holm")[0]
    won = {m[0]: sum(s for (a, _), s in zip(pairs, significant, strict=True) if a == m) for m in values}
    assert {m: value for m, (value, _) in ranked(score_table(values))["test_then_rank"].items()} == won
    assert 0 < sum(won.values()) < 6


def test_kendall_tau_is_that_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 7, (20, 9)), rng.integers(1, 7, (20, 9))
    assert kendall_tau(a, b) == pytest.approx([stats.kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)])
    assert np.isnan(kendall_tau(np.ones((1, 4)), np.array([[1, 2, 3, 4]])))


def random_scores(methods=4, seeds=3, patients=20, folds=2, rng=0) -> pd.DataFrame:
    rng = np.random.default_rng(rng)
    patient = rng.normal(size=patients) * 0.05
    values = {f"m{k}+l": dice(rng, 0.8 + 0.01 * k, seeds, patients, 0.03, 0.02) + patient for k in range(methods)}
    return score_table(values, folds)


def test_means_are_bootstrapped_as_in_the_ranking():
    scores = random_scores()
    ranking = rank(situations(scores))[0].query("structure == 'mean'").set_index("method")
    schemes = (
        compare_rankings(scores).schemes.query("empty == 'penalise' and scheme == 'mean_then_rank'").set_index("method")
    )
    for column in ("rank", "rank_low", "rank_high", "p_best"):
        assert (ranking[column] == schemes[column]).all(), column
    assert ranking["mean"].to_dict() == pytest.approx(schemes["value"].to_dict())


def test_shares_add_up_and_p_best_is_the_share_of_rank_1_without_ties():
    result = compare_rankings(random_scores(), resamples=400)
    keys = ["metric", "empty", "scheme", "method"]
    assert result.distribution.groupby(keys)["share"].sum().to_numpy() == pytest.approx(1)
    first = result.distribution.query("rank == 1").set_index(keys)["share"]
    schemes = result.schemes.set_index(keys)
    for key in first.index[first.index.get_level_values("scheme") == "mean_then_rank"]:
        assert schemes.loc[key, "p_best"] == pytest.approx(first[key])
    inside = result.distribution.merge(schemes.reset_index(), on=keys, suffixes=("", "_measured"))
    inside = inside[(inside["rank"] >= inside["rank_low"]) & (inside["rank"] <= inside["rank_high"])]
    assert (inside.groupby(keys)["share"].sum() >= 0.95).all()


def test_identical_methods_share_p_best():
    values = dice(np.random.default_rng(0), 0.8, 3, 12, 0.05, 0.02)
    result = compare_rankings(score_table({"a+l": values, "b+l": values, "c+l": values - 0.3}), resamples=200)
    best = result.schemes.query("empty == 'penalise' and scheme != 'test_then_rank'")
    assert best.set_index("method")["p_best"].groupby("method").unique().map(list).to_dict() == {
        "a+l": [0.5], "b+l": [0.5], "c+l": [0.0],
    }  # fmt: skip


def test_drawing_everybody_once_gives_the_measured_scores():
    part = situations(random_scores(folds=3))[0]
    values = part.scores[0, 0]
    patients, trainings = np.ones((2, values.shape[2]), int), np.zeros((2, *values.shape[:2], 3))
    tables = np.concatenate([*resampled_scores(values, part.folds, patients, trainings, np.full((2, 4), 3.0))])
    assert tables == pytest.approx(np.repeat(values.mean(1)[None], 2, 0))


def test_resampled_trainings_move_scores_as_they_move_means():
    """With every patient drawn once, the mean of the redrawn table is the redrawn mean of ranking.csv."""
    part = situations(random_scores(folds=3))[0]
    values = part.scores[0, 0]
    each, methods = estimate_means(values, part.folds), np.arange(len(values))
    patients, trainings, factor = resample(each, methods, 50, 0)
    once = np.ones_like(patients)
    tables = np.concatenate([*resampled_scores(values, part.folds, once, trainings, factor)])
    assert tables.mean(2) == pytest.approx(resampled_means(each, methods, once, trainings, factor))
    assert tables.mean(2).std(0).min() > 0.003
    unmoved = np.concatenate([*resampled_scores(values, part.folds, patients, np.zeros_like(trainings), factor)])
    assert np.isin(unmoved.round(9), values.mean(1).round(9)).all()


def test_trainings_count_in_the_bootstrap_of_every_scheme():
    """Two methods alike but for the luck of trainings: patients alone would rank them in one order always."""
    rng = np.random.default_rng(1)
    patient = rng.normal(size=(1, 40)) * 0.02
    luck = np.array([[-0.05], [0.0], [0.06]])
    values = {"a+l": 0.8 + patient + luck, "b+l": 0.8 + patient - luck + rng.normal(size=(1, 40)) * 1e-6}
    schemes = compare_rankings(score_table(values), resamples=400).schemes.query("empty == 'penalise'")
    for scheme, p_best in schemes.groupby("scheme")["p_best"]:
        assert p_best.between(0.1, 0.9).all(), scheme


@pytest.mark.slow
def test_one_method_under_two_names_is_seldom_called_best():
    """P(best) > 97.5 % in at most 5 % of simulations; drawn by patients alone, it is wrong in a third of them."""
    rng = np.random.default_rng(0)
    wrong = {"trainings": 0, "patients only": 0}
    for _ in range(300):
        shape = (2, 3, 1), (2, 1, 30), (2, 3, 30)
        values = 0.8 + sum(rng.normal(size=size) * sd for size, sd in zip(shape, (0.02, 0.02, 0.03), strict=True))
        for kind, table in (("trainings", values), ("patients only", values.mean(1, keepdims=True))):
            part = situations(score_table({"a+l": table[0], "b+l": table[1]}))[0]
            ranking = rank_by_schemes(part, "dice", ("rank_then_mean",), 400)
            for scheme in ("mean_then_rank", "rank_then_mean"):
                wrong[kind] += rank_intervals(ranking[scheme].draws, 0.95)[2].max() > 0.975
    assert wrong["trainings"] <= 0.05 * 600 + 3 * np.sqrt(0.05 * 0.95 * 600)
    assert wrong["patients only"] > 0.3 * 600


def test_agreement_of_rankings():
    agreement = compare_rankings(random_scores(), resamples=200).agreement.set_index(["ranking_a", "ranking_b"])
    schemes = [f"{scheme}, dice, penalise" for scheme in SCHEMES]
    assert len(agreement) == 15 + 5  # pairs of schemes, each with itself too; each scheme under both policies
    assert (agreement["low"] <= agreement["high"]).all()
    redrawn = agreement.loc[(schemes[0], schemes[0])]
    assert redrawn["low"] <= redrawn["kendall_tau"] < 1
    assert agreement.loc[
        ("mean_then_rank, dice, penalise", "mean_then_rank, dice, exclude"), ["kendall_tau", "low"]
    ].tolist() == [1, 1]


# --- critical differences


def test_critical_differences_are_those_of_demsar():
    """Demšar (2006, JMLR 7:1), table 5: q at 5 % for 2 to 10 classifiers; his example has 4 on 14 data sets."""
    table5 = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for k, q in enumerate(table5[1:], 3):
        part = situations(score_table({f"m{i}+l": np.random.default_rng(i).random((1, 14)) for i in range(k)}))[0]
        difference = critical_difference(part, "dice")["critical_difference"].iloc[0]
        assert difference == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=1e-3)


def test_friedman_and_nemenyi_are_those_of_scipy_and_scikit_posthocs():
    rng = np.random.default_rng(3)
    scores = (
        rng.normal(size=(1, 15)) + rng.normal(size=(6, 15)) + np.array([0, 0.3, 0.6, 1.5, 2.2, 2.3])[:, None]
    ) / 50 + 0.5
    part = situations(score_table({f"m{i}+l": row[None] for i, row in enumerate(scores)}))[0]
    table = critical_difference(part, "dice").set_index("method")
    assert table["p_friedman"].iloc[0] == pytest.approx(stats.friedmanchisquare(*scores).pvalue)
    expected = stats.rankdata(-scores, axis=0).mean(1)
    assert table["mean_rank"].reindex([f"m{i}+l" for i in range(6)]).tolist() == pytest.approx(expected.tolist())
    p = posthoc_nemenyi_friedman(scores.T).to_numpy()
    bars = [set(table.loc[f"m{k}+l", "groups"].split()) for k in range(6)]
    found = [[a == b or bool(bars[a] & bars[b]) for b in range(6)] for a in range(6)]
    assert found == (p > 0.05).tolist()
    assert 0 < (p > 0.05).sum() < 36


def test_bars_are_maximal_and_absent_where_a_method_stands_alone():
    rng = np.random.default_rng(0)
    levels = [0.9, 0.6, 0.598, 0.3]
    scores = {f"m{i}+l": (level + rng.normal(size=60) * 0.01)[None] for i, level in enumerate(levels)}
    table = critical_difference(situations(score_table(scores))[0], "dice").set_index("method")["groups"]
    assert table.to_dict() == {"m0+l": "", "m1+l": "1", "m2+l": "1", "m3+l": ""}


def test_one_bar_over_all_where_friedman_sees_nothing():
    rng = np.random.default_rng(0)
    part = situations(score_table({f"m{i}+l": rng.random((1, 10)) for i in range(5)}))[0]
    table = critical_difference(part, "dice")
    assert table["p_friedman"].iloc[0] > 0.05
    assert (table["groups"] == "1").all()


# --- consensus


def on_dataset(name: str, scores: pd.DataFrame) -> pd.DataFrame:
    return scores.assign(dataset=name)


def test_consensus_is_the_mean_rank_of_methods_that_are_everywhere():
    means = {
        "x": {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.95},
        "y": {"a": 0.5, "b": 0.6, "c": 0.4},
        "z": {"a": 0.8, "b": 0.8, "c": 0.1},
    }
    wiggle = np.array([[-0.001, 0.0, 0.001]] * 3)
    tables = [
        on_dataset(name, score_table({f"{m}+l": level + wiggle for m, level in methods.items()}))
        for name, methods in means.items()
    ]
    table = consensus(situations(pd.concat(tables)), resamples=50).set_index("method")
    assert table["n_datasets"].to_dict() == {"a+l": 3, "b+l": 3, "c+l": 3, "d+l": 1}
    assert table["mean_rank"].dropna().to_dict() == {"a+l": 1.5, "b+l": 1.5, "c+l": 3.0}  # 1 2 1.5, 2 1 1.5, 3 3 3
    assert table["rank"].dropna().to_dict() == {"a+l": 1, "b+l": 1, "c+l": 3}
    assert table["p_best"].dropna().to_dict() == {"a+l": 0.5, "b+l": 0.5, "c+l": 0.0}
    assert table.loc["d+l", ["mean_rank", "rank", "p_best"]].isna().all()


def test_one_training_gives_a_consensus_no_certainty():
    values = {"a+l": np.array([[0.9, 0.91, 0.92]]), "b+l": np.array([[0.5, 0.51, 0.52]])}
    table = consensus(situations(pd.concat([on_dataset(name, score_table(values)) for name in "xy"])), resamples=20)
    assert table["mean_rank"].tolist() == [1, 2]
    assert table[["low", "high", "p_best"]].isna().all(axis=None)


def test_datasets_are_redrawn_independently():
    """Two datasets with the same scores: redrawn alike, they would agree, and mean ranks would be whole numbers."""
    scores = random_scores(3, rng=5)
    table = consensus(situations(pd.concat([on_dataset(name, scores) for name in "xy"])), resamples=400)
    assert table["mean_rank"].tolist() == [1, 2, 3]
    assert (table[["low", "high"]] % 1 == 0.5).any(axis=None)


def test_one_dataset_has_no_consensus():
    table = consensus(situations(random_scores()))
    assert table.empty
    assert list(table.columns) == CONSENSUS


# --- challengeR


def r_uniform(seed: int, n: int) -> np.ndarray:
    """What R draws with set.seed(seed); runif(n): the Mersenne twister, seeded by a linear congruential generator."""
    key = []
    for k in range(675):
        seed = (69069 * seed + 1) % 2**32
        if k > 50:
            key.append(seed)
    generator = np.random.MT19937()
    generator.state = {"bit_generator": "MT19937", "state": {"key": np.array(key, np.uint32), "pos": 624}}
    return generator.random_raw(n) * 2.3283064365386963e-10


def r_normal(seed: int, n: int) -> np.ndarray:
    high, low = r_uniform(seed, 2 * n).reshape(n, 2).T
    return special.ndtri((np.floor(2**27 * high) + low) / 2**27)


def challenger_example(task: str) -> pd.DataFrame:
    """The simulated example of challengeR's README, five methods; equal to its data_matrix.csv."""
    if task == "ideal":
        low, width = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0.1, 0.09, 0.09, 0.09, 0.09])
        values = low[:, None] + width[:, None] * r_uniform(4, 300)[50:].reshape(5, 50)
    elif task == "random":
        values = special.expit(1.5 + r_normal(1, 250)).reshape(5, 50)
    else:  # every order of five values once
        values = np.array([*permutations(np.linspace(0.8, 1, 5))]).T
    return on_dataset(task, score_table({f"A{k}+l": row[None] for k, row in enumerate(values, 1)}))


# Printed by challengeR 1.0.5 (R 4.2.2) for its example data: value and rank of A1 to A5; tests in tests won, of four.
CHALLENGER = {
    ("ideal", "mean_then_rank"): ([0.951676134134643, 0.844966620565113, 0.741688779133372, 0.644750174641376, 0.542361039015884], [1, 2, 3, 4, 5]),
    ("ideal", "median_then_rank"): ([0.952711139386520, 0.841009395398433, 0.737586273909546, 0.643178569284500, 0.540169203577098], [1, 2, 3, 4, 5]),
    ("ideal", "rank_then_mean"): ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ("ideal", "rank_then_median"): ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ("ideal", "test_then_rank"): ([4, 3, 2, 1, 0], [1, 2, 3, 4, 5]),
    ("random", "mean_then_rank"): ([0.804679957507077, 0.797521295971629, 0.761480755452862, 0.788406684773371, 0.769741373096057], [1, 2, 5, 3, 4]),
    ("random", "median_then_rank"): ([0.835909887046115, 0.833865940840787, 0.777795311102875, 0.809061174175108, 0.813189421057304], [1, 2, 5, 4, 3]),
    ("random", "rank_then_mean"): ([2.72, 2.96, 3.32, 2.88, 3.12], [1, 3, 5, 2, 4]),
    ("random", "rank_then_median"): ([2, 3, 3, 3, 3], [1, 2, 2, 2, 2]),
    ("random", "test_then_rank"): ([0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
    ("worst case", "mean_then_rank"): ([0.9] * 5, [1] * 5),
    ("worst case", "median_then_rank"): ([0.9] * 5, [1] * 5),
    ("worst case", "rank_then_mean"): ([3] * 5, [1] * 5),
    ("worst case", "rank_then_median"): ([3] * 5, [1] * 5),
    ("worst case", "test_then_rank"): ([0] * 5, [1] * 5),
}  # fmt: skip


@pytest.mark.parametrize("task", ["ideal", "random", "worst case"])
def test_rankings_are_those_of_challenger(task):
    found = ranked(challenger_example(task))
    for scheme in SCHEMES:
        values, ranks = CHALLENGER[task, scheme]
        assert [value for value, _ in found[scheme].values()] == pytest.approx(values, rel=1e-12), scheme
        assert [rank for _, rank in found[scheme].values()] == ranks, scheme


# Shares of the ranks 1 to 5 of A1 to A5 in challengeR's bootstrap of the random task (4000 and 1000 samples). For
# rank-then-mean it ranks a repeated case together with its copies, so that case counts by the square: not comparable.
CHALLENGER_SHARES = {
    "mean_then_rank": [[0.486, 0.258, 0.172, 0.062, 0.022], [0.281, 0.356, 0.212, 0.115, 0.037], [0.006, 0.034, 0.114, 0.323, 0.522],
                       [0.180, 0.239, 0.314, 0.197, 0.071], [0.048, 0.114, 0.188, 0.302, 0.348]],
    "median_then_rank": [[0.472, 0.230, 0.194, 0.102, 0.002], [0.308, 0.393, 0.198, 0.067, 0.034], [0.002, 0.008, 0.028, 0.164, 0.798],
                         [0.124, 0.164, 0.217, 0.397, 0.098], [0.094, 0.205, 0.363, 0.270, 0.068]],
}  # fmt: skip


def test_bootstrap_of_one_seed_is_that_of_challenger():
    rankings = rank_by_schemes(situations(challenger_example("random"))[0], "dice", ("median_then_rank",), 8000)
    for scheme, expected in CHALLENGER_SHARES.items():
        draws = rankings[scheme].draws
        shares = [[(ranks == rank).mean() for rank in range(1, 6)] for ranks in draws.T]
        assert np.abs(np.array(shares) - expected).max() < 0.05, scheme
        assert np.abs(np.array(shares) - expected).mean() < 0.015, scheme


def test_consensus_is_that_of_challenger():
    """consensus(ranking, method = "euclidean") of the mean-then-rank rankings: A1 1.667, A2 2.333, A4 3.333, …"""
    parts = situations(pd.concat([challenger_example(task) for task in ("ideal", "random", "worst case")]))
    table = consensus(parts, resamples=20).set_index("method")
    assert table["mean_rank"].to_dict() == pytest.approx(
        {"A1+l": 5 / 3, "A2+l": 7 / 3, "A4+l": 10 / 3, "A3+l": 11 / 3, "A5+l": 4}
    )


def test_export_holds_one_row_per_patient_and_method_with_blanks():
    values = {"a+l": np.array([[0.5, 0.7], [0.7, 0.7]]), "b+l": np.array([[0.4, np.nan], [0.6, np.nan]])}
    table = challenger_table(situations(score_table(values)))
    assert list(table.columns) == ["task", "case", "algorithm", "value"]
    assert table.set_index(["task", "case", "algorithm"])["value"].to_dict() == pytest.approx(
        {
            ("d clean cpu", "p000", "a+l"): 0.6, ("d clean cpu", "p001", "a+l"): 0.7,
            ("d clean cpu", "p000", "b+l"): 0.5, ("d clean cpu", "p001", "b+l"): np.nan,
        },
        nan_ok=True,
    )  # fmt: skip
    assert table.to_csv(index=False).splitlines()[-1] == "d clean cpu,p001,b+l,"


# --- bad input and borders


@pytest.mark.parametrize("methods, patients", [(1, 4), (2, 1), (1, 1)])
def test_few_methods_and_patients(methods, patients):
    scores = score_table({f"m{k}+l": np.full((1, patients), 0.5 + k / 10) for k in range(methods)})
    result = compare_rankings(scores, resamples=20)
    assert result.schemes.query("scheme == 'mean_then_rank' and empty == 'exclude'")["rank"].tolist() == [
        *range(1, methods + 1)
    ]
    assert result.critical_difference.empty
    assert result.distribution.empty == (patients == 1)
    assert result.schemes["p_best"].isna().all() == (patients == 1)


def test_no_scores_give_headers():
    result = compare_rankings(random_scores().iloc[:0])
    assert all(table.empty and len(table.columns) for table in vars(result).values())
