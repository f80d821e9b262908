"""Means with intervals, paired differences of all methods, ranks with their bootstrap distribution, the top group."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from lib.errors import BadInput
from lib.metrics import DIRECTION, DISTANCES
from lib.registry import did_you_mean
from lib.statistics.means import Means, estimate_means, holm
from lib.statistics.table import MEAN, SITUATION, Situation

RANKING = [
    *SITUATION, "method", "architecture", "loss", "structure", "metric", "n_patients", "n_cases", "n_seeds",
    "n_values", "n_missed", "n_hallucinated", "n_both_empty", "n_failed", "mean", "low", "high", "rank", "rank_low",
    "rank_high", "p_best", "top_group", "seeds_enough",
]  # fmt: skip
PAIRS = [
    *SITUATION, "metric", "structure", "method_a", "method_b", "difference", "low", "high", "p", "p_holm",
    "separated", "n_patients", "n_seeds",
]  # fmt: skip


def rank(
    parts: list[Situation], primary: str = "dice", resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `ranking` (method x structure x metric) and `pairs` (all pairs of methods by the primary metric).

    `resamples`, `seed`: of the bootstrap of ranks. `level`: of the intervals; `separated` means an adjusted p-value of
    at most 1 - level. Raises BadInput for a primary metric that does not rank.
    """
    if DIRECTION.get(primary, 0) == 0:
        ranking_metrics = [metric for metric, direction in DIRECTION.items() if direction]
        raise BadInput(f"The primary metric is '{primary}'.{did_you_mean(str(primary), ranking_metrics)}")
    rankings, pairs = [], []
    for part in parts:
        for i, structure in enumerate(part.structures):
            for j, metric in enumerate(part.metrics):
                rankings.append(_rank(part, i, j, resamples, level, seed))
                if metric == primary and structure == MEAN:
                    pairs.append(_pairs(part, rankings[-1], i, j, level))
    return concat(rankings, RANKING), concat(pairs, PAIRS)


def concat(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """The tables under each other; without any, the header."""
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def differences(values: np.ndarray, a: np.ndarray, b: np.ndarray, folds: np.ndarray) -> Means:
    """Paired differences a - b on common trainings and patients; `values` (methods, seeds, patients)."""
    difference = values[a] - values[b]
    scale = np.nanmax(np.abs(values), initial=0.0)
    return estimate_means(np.where(np.abs(difference) < 1e-12 * scale, 0.0, difference), folds)


def _rank(part: Situation, i: int, j: int, resamples: int, level: float, seed: int) -> pd.DataFrame:
    """Rows of one structure and metric, best method first."""
    metric, values = part.metrics[j], part.scores[j, i]  # (methods, seeds, patients)
    table = part.methods.assign(**part.name, structure=part.structures[i], metric=metric)
    each = estimate_means(values, part.folds)
    half = each.half_widths(level)
    bounds = (-np.inf, np.inf) if metric == "rvd" else (0, np.inf if metric in DISTANCES else 1)
    table = table.assign(
        n_patients=each.n_patients,
        n_seeds=each.n_seeds,
        mean=each.mean,
        low=np.clip(each.mean - half, *bounds),
        high=np.clip(each.mean + half, *bounds),
        seeds_enough=each.seeds_enough,
        **{name: count[j, i] for name, count in part.counts.items()},
        rank=pd.array([pd.NA] * len(table), dtype="Int64"),
        rank_low=pd.array([pd.NA] * len(table), dtype="Int64"),
        rank_high=pd.array([pd.NA] * len(table), dtype="Int64"),
        p_best=np.nan,
        top_group=False,
    )
    ranked = complete_methods(each, values)
    if DIRECTION[metric] == 0 or len(ranked) == 0:
        return table.sort_values("method", kind="stable")
    score = np.round(DIRECTION[metric] * each.mean[ranked], 12)
    order = ranks_of(score[None])[0]
    table.loc[ranked, "rank"] = order
    table.loc[ranked, "top_group"] = _top_group(values[ranked], order, part.folds, level)
    if each.n_patients[ranked[0]] >= 2:
        draws = resampled_means(each, ranked, *resample(each, ranked, resamples, seed))
        low, high, p_best = rank_intervals(ranks_of(np.round(DIRECTION[metric] * draws, 12)), level)
        table.loc[ranked, "rank_low"] = low
        table.loc[ranked, "rank_high"] = high
        table.loc[ranked, "p_best"] = p_best
    return table.sort_values(["rank", "method"], kind="stable")


def complete_methods(each: Means, values: np.ndarray) -> np.ndarray:
    """Positions of the methods that are ranked: one without all the patients could win by missing the hard ones."""
    n_patients = np.count_nonzero(~np.isnan(values).all((0, 1)))
    return np.flatnonzero((each.n_patients == n_patients) & (each.n_patients > 0))


def ranks_of(score: np.ndarray) -> np.ndarray:
    """Ranks of methods, along axis 1 of `score` (draws, methods, …): the highest is 1, ties share the better rank."""
    ranks = np.ones(score.shape, np.int32)
    for k in range(score.shape[1]):
        ranks += score[:, k, None] > score
    return ranks


def rank_intervals(ranks: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest rank at `level`, and P(best), from ranks (draws, methods); a shared first place is split."""
    tail = (1 - level) / 2
    low, high = np.quantile(ranks, [tail, 1 - tail], axis=0, method="inverted_cdf").astype(int)
    first = ranks == 1
    return low, high, (first / first.sum(1, keepdims=True)).mean(0)


def _top_group(values: np.ndarray, order: np.ndarray, folds: np.ndarray, level: float) -> np.ndarray:
    """Methods that are not separated from the best one, after Holm over all pairs."""
    n = len(values)
    a, b = np.array([*combinations(range(n), 2)], dtype=int).reshape(-1, 2).T
    pairs = differences(values, a, b, folds)
    separated = _separated(pairs, holm(pairs.p_values()), level)
    top = np.ones(n, bool)
    best = int(np.argmin(order))
    top[b[(a == best) & separated]] = False
    top[a[(b == best) & separated]] = False
    return top


def _separated(pairs: Means, p_holm: np.ndarray, level: float) -> np.ndarray:
    return (p_holm <= 1 - level) & pairs.seeds_enough


def _pairs(part: Situation, ranking: pd.DataFrame, i: int, j: int, level: float) -> pd.DataFrame:
    """All pairs of methods, the better ranked one first."""
    a, b = np.array([*combinations(ranking.index, 2)], dtype=int).reshape(-1, 2).T
    pairs = differences(part.scores[j, i], a, b, part.folds)
    p, half = pairs.p_values(), pairs.half_widths(level)
    p_holm = holm(p)
    return pd.DataFrame(
        part.name
        | {
            "metric": part.metrics[j],
            "structure": part.structures[i],
            "method_a": part.methods["method"].to_numpy()[a],
            "method_b": part.methods["method"].to_numpy()[b],
            "difference": pairs.mean,
            "low": pairs.mean - half,
            "high": pairs.mean + half,
            "p": p,
            "p_holm": p_holm,
            "separated": _separated(pairs, p_holm, level),
            "n_patients": pairs.n_patients,
            "n_seeds": pairs.n_seeds,
        }
    )


def resample(each: Means, ranked: np.ndarray, resamples: int, seed: int | list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Other patients and other trainings that might have been drawn, for the methods `ranked`.

    Returns how often each patient is drawn, (resamples, patients), and how much more or less than once each training
    counts, (resamples, methods, seeds, folds). Patients are drawn within strata, the same for every method; trainings
    within folds, independently of patients, the same for methods with the same trainings. Few trainings make a plain
    bootstrap too narrow: they count by sqrt(df/chi2) more, as in the interval.
    """
    rng = np.random.default_rng(seed)
    strata = each.strata[ranked[0]]
    patients = np.zeros((resamples, len(strata)), int)
    for stratum in np.unique(strata[strata >= 0]):
        members = np.flatnonzero(strata == stratum)
        patients[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    trainings = np.zeros((resamples, *each.trainings_seen[ranked].shape))
    enough = ranked[each.seeds_enough[ranked]]
    for seen in np.unique(each.trainings_seen[enough], axis=0):
        same = enough[(each.trainings_seen[enough] == seen).all((1, 2))]
        n_seeds = seen.sum(0)  # (folds,)
        times = rng.multinomial(n_seeds, (seen / np.maximum(n_seeds, 1)).T, size=(resamples, len(n_seeds))) - seen.T
        df = each.training_df[same].mean()
        more = times.swapaxes(1, 2) * np.sqrt(df / rng.chisquare(df, (resamples, 1, 1)))
        trainings[:, np.isin(ranked, same)] = more[:, None]
    return patients, trainings


def resampled_means(each: Means, ranked: np.ndarray, patients: np.ndarray, trainings: np.ndarray) -> np.ndarray:
    """Means of the ranked methods (resamples, methods); effects are scaled to their unbiased variance."""
    draws = patients @ each.patient_effects[ranked].T / np.count_nonzero(each.strata[ranked[0]] >= 0)
    draws += np.einsum("bmsf,msf->bm", trainings, each.training_effects[ranked])
    return each.mean[ranked] + draws
