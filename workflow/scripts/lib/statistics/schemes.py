"""Five schemes that turn a table of methods x patients into ranks, measured and bootstrapped (docs/ranking_schemes.md).

The scores of a patient are means over structures, cases and seeds. All of this is descriptive: that two methods are
separated is decided in ranking.py alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from lib.metrics import DIRECTION
from lib.statistics.means import estimate_means, holm
from lib.statistics.ranking import complete_methods, ranks_of, resample, resampled_means
from lib.statistics.table import MEAN, Situation

METRICS = ("dice", "iou", "nsd", "hd95", "assd")
ALPHA = 0.05  # of the tests in test-then-rank


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


def won_tests(scores: np.ndarray) -> np.ndarray:
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
    "test_then_rank": won_tests,
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


def signed_scores(part: Situation, metric: str) -> np.ndarray:
    """Scores (methods, seeds, patients), mean over structures, negative for distances: higher is better."""
    return DIRECTION[metric] * part.scores[part.metrics.index(metric), part.structures.index(MEAN)]


def scores_of_patients(values: np.ndarray) -> np.ndarray:
    """Means over seeds (methods, patients) of the patients that have any score; `values` (methods, seeds, patients)."""
    seen = ~np.isnan(values).all((0, 1))
    values = values[:, :, seen]
    n = np.count_nonzero(~np.isnan(values), axis=1)
    return np.round(np.nansum(values, 1) / np.where(n, n, np.nan), 12)


def rank_by_schemes(
    part: Situation, metric: str, bootstrap: tuple[str, ...] = tuple(SCHEMES), resamples: int = 2000, seed: int = 0
) -> dict[str, Ranking]:
    """The rankings of one situation by one metric, mean over structures; {} where no method can be ranked.

    `bootstrap`: the schemes that are bootstrapped. Means are resampled as in ranking.csv, with the same draws; the
    other schemes, which cost more, on the first half of them.
    """
    values = signed_scores(part, metric)
    each = estimate_means(values, part.folds)
    methods = complete_methods(each, values)
    if len(methods) == 0:
        return {}
    values = values[methods]
    measured = scores_of_patients(values)[None]
    draws = {scheme: np.zeros((0, len(methods)), np.int32) for scheme in SCHEMES}
    if measured.shape[2] >= 2:
        drawn = resample(each, methods, resamples, seed)
        draws["mean_then_rank"] = ranks_of(np.round(resampled_means(each, methods, *drawn), 12))
        tables = resampled_scores(values, part.folds, *(part_of[: resamples // 2] for part_of in drawn))
        others = [scheme for scheme in bootstrap if scheme != "mean_then_rank"]
        chunks = [[ranks_of(np.round(SCHEMES[scheme](scores), 12)) for scheme in others] for scores in tables]
        draws |= {scheme: np.concatenate([chunk[k] for chunk in chunks]) for k, scheme in enumerate(others)}
    rankings = {}
    for scheme, aggregate in SCHEMES.items():
        score = np.round(aggregate(measured)[0], 12)
        sign = {"rank": -1, "test": 1}.get(scheme.split("_")[0], DIRECTION[metric])  # of what is printed
        rankings[scheme] = Ranking(methods, sign * score, ranks_of(score[None])[0], draws[scheme])
    return rankings


def resampled_scores(
    values: np.ndarray, folds: np.ndarray, patients: np.ndarray, trainings: np.ndarray, factor: np.ndarray
) -> Iterator[np.ndarray]:
    """Score tables (draws, methods, patients drawn), some draws at a time; `values` (methods, seeds, patients).

    `patients`, `trainings` and `factor` are those of `resample`. A patient gets the scores of the drawn trainings. That
    is too narrow for few trainings; what means lack of their spread in `resampled_means` is added to all patients of a
    fold, so that the mean over patients varies as it does there.
    """
    seen = ~np.isnan(values)
    n = seen.sum(1, keepdims=True)
    centre = np.where(seen, values, 0).sum(1, keepdims=True) / np.maximum(n, 1)
    deviation = np.where(seen, values - centre, 0) / np.maximum(n, 1)
    names, fold = np.unique(folds, return_inverse=True)
    in_fold = (fold[:, None] == np.arange(len(names))) * seen.any((0, 1))[:, None]  # (patients, folds)
    in_fold = in_fold / np.maximum(in_fold.sum(0), 1)
    plain = deviation @ in_fold  # (methods, seeds, folds), mean effects of trainings
    unbiased = (deviation * np.sqrt(n / np.maximum(n - 1, 1))) @ in_fold
    at_once = max(1, 2_000_000 // values.size)
    for start in range(0, len(patients), at_once):
        some = slice(start, start + at_once)
        times, more = patients[some], trainings[some]
        lacking = factor[some, :, None] * np.einsum("bmsf,msf->bmf", more, unbiased)
        lacking -= np.einsum("bmsf,msf->bmf", more, plain)
        scores = centre[:, 0] + np.einsum("bmsp,msp->bmp", more[..., fold], deviation) + lacking[..., fold]
        drawn = np.repeat(np.tile(np.arange(times.shape[1]), len(times)), times.ravel()).reshape(len(times), 1, -1)
        yield np.round(np.take_along_axis(scores, drawn, 2), 12)
