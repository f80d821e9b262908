"""Does the ranking depend on how one ranks? Schemes, metrics and empty-mask policies, their bootstrap and agreement.

Five schemes turn a table of methods x patients (scores averaged over structures, cases and seeds) into ranks
(docs/ranking_schemes.md). Their ranks are descriptive: that two methods are separated is decided in ranking.py alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
import pandas as pd
from scipy import special

from lib.metrics import DIRECTION
from lib.statistics.means import estimate_means, holm
from lib.statistics.ranking import complete_methods, concat, rank_intervals, ranks_of, resample, resampled_means
from lib.statistics.table import MEAN, SITUATION, Situation, situations

METRICS = ("dice", "iou", "nsd", "hd95", "assd")
EMPTY = ("penalise", "exclude")
ALPHA = 0.05  # of test-then-rank and of the critical difference

SCHEMES_TABLE = [
    *SITUATION, "structure", "metric", "empty", "scheme", "method", "architecture", "loss", "value", "rank",
    "rank_low", "rank_high", "p_best",
]  # fmt: skip
DISTRIBUTION = [*SITUATION, "metric", "empty", "scheme", "method", "rank", "share"]
CHALLENGER = ["task", "case", "algorithm", "value"]
AGREEMENT = [*SITUATION, "metric", "ranking_a", "ranking_b", "kendall_tau", "low", "high"]
CRITICAL_DIFFERENCE = [
    *SITUATION, "metric", "method", "mean_rank", "groups", "p_friedman", "critical_difference", "n_patients",
]  # fmt: skip


@dataclass(frozen=True)
class Ranking:
    """The ranks that one scheme gives to the methods of a situation, for one metric."""

    methods: np.ndarray  # (M,) positions of the methods that are ranked
    value: np.ndarray  # (M,) what is ranked: an aggregated score, an aggregated rank, or a number of won tests
    rank: np.ndarray  # (M,) 1 is best, ties share the better rank
    draws: np.ndarray  # (resamples, M) the ranks had other patients and trainings been drawn; no rows if one patient


def mean_of_scores(scores: np.ndarray) -> np.ndarray:
    return scores.mean(2)


def median_of_scores(scores: np.ndarray) -> np.ndarray:
    return np.median(scores, 2)


def mean_of_ranks(scores: np.ndarray) -> np.ndarray:
    return -ranks_of(scores).mean(2)


def median_of_ranks(scores: np.ndarray) -> np.ndarray:
    return -np.median(ranks_of(scores), 2)


def tests_won(scores: np.ndarray) -> np.ndarray:
    """How many others each method is significantly ahead of: one-sided Wilcoxon tests, Holm over all ordered pairs."""
    n = scores.shape[1]
    a, b = np.array([*combinations(range(n), 2)], dtype=int).reshape(-1, 2).T
    wins = np.zeros(scores.shape[:2])
    for won, table in zip(wins, scores, strict=True):
        p = signed_rank_p_values(table[a] - table[b])
        significant = holm(p.ravel()).reshape(p.shape) <= ALPHA
        won += np.bincount(a, significant[0], n) + np.bincount(b, significant[1], n)
    return wins


# scores (draws, methods, patients), higher is better -> what is ranked (draws, methods), higher is better
SCHEMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean_then_rank": mean_of_scores,
    "median_then_rank": median_of_scores,
    "rank_then_mean": mean_of_ranks,
    "rank_then_median": median_of_ranks,
    "test_then_rank": tests_won,
}


def signed_rank_p_values(differences: np.ndarray) -> np.ndarray:
    """One-sided p-values (2, K) of Wilcoxon's signed-rank test for K rows (K, patients): first > 0, then < 0.

    Zeros are left out, ties share their mean rank, normal approximation with continuity correction: R's
    `wilcox.test(exact = FALSE)` and SciPy's `wilcoxon(correction=True, method="asymptotic")`, but all rows at once.
    NaN where all differences are zero.
    """
    # The bits of a positive double sort like the double. The lowest ones give way to the sign, and to rounding errors
    # that would part ties; so one sort of integers yields the order and the signs.
    key = np.abs(differences).view(np.uint64) & ~np.uint64(1023) | (differences > 0)
    key.sort(axis=1)
    size = key >> np.uint64(1)
    starts = np.ones(key.shape, bool)  # of runs of equal size
    starts[:, 1:] = size[:, 1:] != size[:, :-1]
    start = np.flatnonzero(starts)
    run = np.append(np.flatnonzero(start % key.shape[1] == 0), len(start))  # the first run of each row
    length = np.diff(start, append=key.size)
    n_zero = np.where(size[:, 0] == 0, length[run[:-1]], 0)
    n = key.shape[1] - n_zero
    positives = np.add.reduceat((key & np.uint64(1)).astype(np.uint8).ravel(), start, dtype=np.int64)
    mid_rank = start % key.shape[1] + (length + 1) / 2  # counting zeros
    positive = np.add.reduceat(positives * mid_rank, run[:-1]) - n_zero * np.add.reduceat(positives, run[:-1])
    ties = np.add.reduceat(length**3 - length, run[:-1]) - (n_zero**3 - n_zero)
    total = n * (n + 1) / 2
    sd = np.sqrt(n * (n + 1) * (2 * n + 1) / 24 - ties / 48)
    ahead = np.stack((positive, total - positive)) - total / 2
    return special.ndtr(-(ahead - 0.5) / np.where(sd > 0, sd, np.nan))


def rank_by_schemes(
    part: Situation, metric: str, bootstrap: tuple[str, ...] = tuple(SCHEMES), resamples: int = 2000, seed: int = 0
) -> dict[str, Ranking]:
    """The rankings of one situation by one metric, mean over structures; {} where no method can be ranked.

    `bootstrap`: the schemes that are bootstrapped. Means are resampled as in ranking.csv, with the same draws; the
    other schemes, which cost more, on the first half of them.
    """
    values = DIRECTION[metric] * part.scores[part.metrics.index(metric), part.structures.index(MEAN)]
    each = estimate_means(values, part.folds)
    methods = complete_methods(each, values)
    if len(methods) == 0:
        return {}
    values = values[methods]
    seen = ~np.isnan(values).all((0, 1))
    measured = np.round(np.nanmean(values[:, :, seen], 1), 12)[None]
    draws = {scheme: np.zeros((0, len(methods)), np.int32) for scheme in SCHEMES}
    if np.count_nonzero(seen) >= 2:
        patients, trainings = resample(each, methods, resamples, seed)
        draws["mean_then_rank"] = ranks_of(np.round(resampled_means(each, methods, patients, trainings), 12))
        half = resamples // 2
        tables = resampled_scores(values, part.folds, patients[:half], trainings[:half])
        others = [scheme for scheme in bootstrap if scheme != "mean_then_rank"]
        chunks = [[ranks_of(np.round(SCHEMES[scheme](scores), 12)) for scheme in others] for scores in tables]
        draws |= {scheme: np.concatenate([chunk[k] for chunk in chunks]) for k, scheme in enumerate(others)}
    sign = dict.fromkeys(SCHEMES, DIRECTION[metric]) | {
        "rank_then_mean": -1,
        "rank_then_median": -1,
        "test_then_rank": 1,
    }
    scores = {scheme: np.round(aggregate(measured)[0], 12) for scheme, aggregate in SCHEMES.items()}
    return {
        scheme: Ranking(methods, sign[scheme] * score, ranks_of(score[None])[0], draws[scheme])
        for scheme, score in scores.items()
    }


def resampled_scores(
    values: np.ndarray, folds: np.ndarray, patients: np.ndarray, trainings: np.ndarray
) -> Iterator[np.ndarray]:
    """Score tables (draws, methods, patients drawn), some draws at a time; `values` (methods, seeds, patients).

    `patients` and `trainings` are those of `resample`. Deviations of trainings are expanded by sqrt(n/(n-1)), as in
    `estimate_means`.
    """
    seen = ~np.isnan(values)
    n = seen.sum(1, keepdims=True)
    centre = np.where(seen, values, 0).sum(1, keepdims=True) / np.maximum(n, 1)
    deviation = np.where(seen & (n > 1), values - centre, 0) / np.sqrt(np.maximum(n * (n - 1), 1))
    fold = np.unique(folds, return_inverse=True)[1]
    at_once = max(1, 2_000_000 // values.size)
    for start in range(0, len(patients), at_once):
        times = patients[start : start + at_once]
        scores = centre[:, 0] + np.einsum(
            "bmsp,msp->bmp", trainings[start : start + at_once][..., fold], deviation, optimize=False
        )
        drawn = np.repeat(np.tile(np.arange(times.shape[1]), len(times)), times.ravel()).reshape(len(times), 1, -1)
        yield np.round(np.take_along_axis(scores, drawn, 2), 12)


def kendall_tau(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between rows of ranks (draws, methods); NaN where one of the two ties everything."""
    i, j = np.array([*combinations(range(a.shape[1]), 2)], dtype=int).reshape(-1, 2).T
    one, two = (np.sign(ranks[:, i] - ranks[:, j]).astype(np.float32) for ranks in (a, b))
    pairs = np.abs(one).sum(1, dtype=float) * np.abs(two).sum(1, dtype=float)
    return (one * two).sum(1, dtype=float) / np.sqrt(np.where(pairs > 0, pairs, np.nan))


@dataclass(frozen=True)
class Rankings:
    """The tables schemes.csv, rank_distribution.csv, agreement.csv and critical_difference.csv."""

    schemes: pd.DataFrame
    distribution: pd.DataFrame
    agreement: pd.DataFrame
    critical_difference: pd.DataFrame


def compare_rankings(
    scores: pd.DataFrame,
    failed: str = "worst",
    empty: str = "penalise",
    *,
    primary: str = "dice",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Rankings:
    """Rankings of every situation under every scheme, metric and empty-mask policy, and how far they agree.

    `scores`, `failed`, `empty`: see `situations`; `empty` is the policy under which schemes and metrics are compared
    with each other. Test-then-rank is bootstrapped for the `primary` metric alone: it takes most of the time.
    """
    tables = []
    for pair in zip(*(situations(scores, failed, policy) for policy in EMPTY), strict=True):
        parts = dict(zip(EMPTY, pair, strict=True))
        chosen = parts[empty]
        metrics = sorted((m for m in METRICS if m in chosen.metrics), key=lambda m: m != primary)
        rankings = {}
        for metric in metrics:
            bootstrap = tuple(s for s in SCHEMES if s != "test_then_rank" or metric == primary)
            i = chosen.metrics.index(metric), chosen.structures.index(MEAN)
            for policy, part in parts.items():
                same = np.array_equal(part.scores[i], pair[0].scores[i], equal_nan=True)
                rankings[metric, policy] = (
                    rankings[metric, EMPTY[0]]
                    if same and policy != EMPTY[0]
                    else rank_by_schemes(part, metric, bootstrap, resamples, seed)
                )
        of_part = (
            _schemes(rankings, chosen.methods, level),
            _distribution(rankings, chosen.methods),
            _agreement(rankings, metrics, empty, level),
            [critical_difference(chosen, metric) for metric in metrics],
        )
        tables.append([[table.assign(**chosen.name, structure=MEAN) for table in kind] for kind in of_part])
    columns = (SCHEMES_TABLE, DISTRIBUTION, AGREEMENT, CRITICAL_DIFFERENCE)
    return Rankings(
        *(concat([table for of_part in tables for table in of_part[k]], names) for k, names in enumerate(columns))
    )


def _schemes(rankings: dict[tuple, dict[str, Ranking]], methods: pd.DataFrame, level: float) -> list[pd.DataFrame]:
    """One row per metric, policy, scheme and method, best first; methods that are not ranked come last."""
    rows = []
    for (metric, empty), of_scheme in rankings.items():
        for scheme in SCHEMES:
            table = methods.assign(metric=metric, empty=empty, scheme=scheme, value=np.nan, p_best=np.nan)
            for column in ("rank", "rank_low", "rank_high"):
                table[column] = pd.array([pd.NA] * len(table), dtype="Int64")
            if scheme in of_scheme:
                ranking = of_scheme[scheme]
                table.loc[ranking.methods, "value"] = ranking.value
                table.loc[ranking.methods, "rank"] = ranking.rank
                if len(ranking.draws):
                    low, high, p_best = rank_intervals(ranking.draws, level)
                    table.loc[ranking.methods, "rank_low"] = low
                    table.loc[ranking.methods, "rank_high"] = high
                    table.loc[ranking.methods, "p_best"] = p_best
            rows.append(table.sort_values(["rank", "method"], kind="stable"))
    return rows


def _distribution(rankings: dict[tuple, dict[str, Ranking]], methods: pd.DataFrame) -> list[pd.DataFrame]:
    """How often each method took each rank; ranks that it never took have no row."""
    rows = []
    for (metric, empty), of_scheme in rankings.items():
        for scheme, ranking in of_scheme.items():
            if len(ranking.draws) == 0:
                continue
            n = len(ranking.methods)
            share = np.stack([np.bincount(ranks, minlength=n + 1)[1:] for ranks in ranking.draws.T]) / len(
                ranking.draws
            )
            method, rank = np.nonzero(share)
            names = methods["method"].to_numpy()[ranking.methods[method]]
            rows.append(
                pd.DataFrame({"method": names, "rank": rank + 1, "share": share[method, rank]}).assign(
                    metric=metric, empty=empty, scheme=scheme
                )
            )
    return rows


def _agreement(rankings: dict[tuple, dict[str, Ranking]], metrics: list[str], empty: str, level: float) -> pd.DataFrame:
    """Kendall's tau between schemes, between policies, between metrics; and of each ranking with itself redrawn."""
    schemes, other = [*SCHEMES], next(policy for policy in EMPTY if policy != empty)
    pairs = [
        ((metric, empty, a), (metric, empty, b))
        for metric in metrics
        for a, b in combinations_with_replacement(schemes, 2)
    ]
    pairs += [((metric, empty, scheme), (metric, other, scheme)) for metric in metrics for scheme in schemes]
    pairs += [((a, empty, scheme), (b, empty, scheme)) for a, b in combinations(metrics, 2) for scheme in schemes]
    rows: list[tuple] = []
    for keys in pairs:
        a, b = (rankings[metric, policy].get(scheme) for metric, policy, scheme in keys)
        if a is None or b is None:
            continue
        names = [f"{scheme}, {metric}, {policy}" for metric, policy, scheme in keys]
        rows.append((keys[0][0], *names, *_tau(a, b, level, redrawn=keys[0] == keys[1])))
    return [pd.DataFrame(rows, columns=["metric", "ranking_a", "ranking_b", "kendall_tau", "low", "high"])]


def _tau(a: Ranking, b: Ranking, level: float, redrawn: bool) -> tuple[float, float, float]:
    """Tau of two measured rankings and its percentile interval; `redrawn`: the mean over b's draws against a."""
    _, in_a, in_b = np.intersect1d(a.methods, b.methods, return_indices=True)
    one, two = a.rank[None, in_a], b.rank[None, in_b]
    n = min(len(a.draws), len(b.draws))
    draws_two = b.draws[:n, in_b]
    draws_one = np.broadcast_to(one, draws_two.shape) if redrawn else a.draws[:n, in_a]
    measured, drawn = kendall_tau(one, two)[0], kendall_tau(draws_one, draws_two)
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(measured) or len(drawn) == 0:
        return measured, np.nan, np.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return drawn.mean() if redrawn else measured, low, high


def critical_difference(part: Situation, metric: str) -> pd.DataFrame:
    """Friedman's test over patients and Nemenyi's critical difference of mean ranks (Demšar 2006, JMLR 7:1).

    Descriptive: scores are averaged over seeds first, so the test knows nothing of the luck of trainings. `groups`:
    numbers of the bars, maximal runs of methods whose mean ranks differ by less than the critical difference; one bar
    over all where Friedman's test is not significant. No rows for fewer than three methods or two patients.
    """
    from scipy import stats  # takes a second to import

    values = DIRECTION[metric] * part.scores[part.metrics.index(metric), part.structures.index(MEAN)]
    methods = complete_methods(estimate_means(values, part.folds), values)
    seen = ~np.isnan(values[methods]).all((0, 1))
    k, n = len(methods), np.count_nonzero(seen)
    if k < 3 or n < 2:
        return pd.DataFrame(columns=CRITICAL_DIFFERENCE)
    scores = np.round(np.nanmean(values[methods][:, :, seen], 1), 12)
    p = stats.friedmanchisquare(*scores).pvalue
    difference = stats.studentized_range.ppf(1 - ALPHA, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    mean_rank = stats.rankdata(-scores, axis=0).mean(1)
    order = np.argsort(mean_rank, kind="stable")
    bars: list[tuple[int, int]] = []  # first and last position in `order`
    for first in range(k):
        within = mean_rank[order] - mean_rank[order[first]] < difference
        last = k - 1 if not p <= ALPHA else int(np.flatnonzero(within)[-1])
        if last > first and (not bars or last > bars[-1][1]):
            bars.append((first, last))
    return pd.DataFrame(
        {
            "metric": metric,
            "method": part.methods["method"].to_numpy()[methods[order]],
            "mean_rank": mean_rank[order],
            "groups": [
                " ".join(str(bar) for bar, (first, last) in enumerate(bars, 1) if first <= place <= last)
                for place in range(k)
            ],
            "p_friedman": p,
            "critical_difference": difference,
            "n_patients": n,
        }
    )


def challenger_table(parts: list[Situation], metric: str = "dice") -> pd.DataFrame:
    """What these rankings are made of, as challengeR reads it: task, case, algorithm, value (docs/ranking_schemes.md).

    A task is a situation, a case is a patient: scores are averaged over structures, over the patient's cases, and over
    seeds. A method without a score for a patient has a row without a value, which R reads as NA.
    """
    tables = []
    for part in (part for part in parts if metric in part.metrics):
        values = part.scores[part.metrics.index(metric), part.structures.index(MEAN)]
        seen = ~np.isnan(values).all((0, 1))
        n = (~np.isnan(values)).sum(1)
        value = np.nansum(values, 1) / np.where(n, n, np.nan)
        names = pd.MultiIndex.from_product(
            [[" ".join(part.name.values())], part.methods["method"], np.array(part.patients)[seen]],
            names=["task", "algorithm", "case"],
        )
        tables.append(pd.DataFrame({"value": value[:, seen].ravel()}, names).reset_index())
    return concat(tables, CHALLENGER)
