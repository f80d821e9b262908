"""Means with intervals, differences of all pairs of methods, ranks with their bootstrap distribution, the top group."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from lib.errors import BadInput
from lib.metrics import BOUNDS, DIRECTION
from lib.registry import did_you_mean
from lib.statistics import pairs as described
from lib.statistics.means import Means, estimate_means, holm
from lib.statistics.moderation import moderate, wary_of_folds
from lib.statistics.table import MEAN, SITUATION, Situation

RANKING = [
    *SITUATION, "method", "architecture", "loss", "structure", "metric", "n_patients", "n_cases", "n_seeds",
    "n_values", "n_missed", "n_hallucinated", "n_both_empty", "n_failed", "mean", "low", "high", "rank", "rank_low",
    "rank_high", "p_best", "top_group", "seeds_enough",
]  # fmt: skip
PAIRS = [
    *SITUATION, "metric", "structure", "method_a", "method_b", "difference", "low", "high", "p", "p_holm",
    "separated", "n_patients", "n_seeds", "effect_size", "wins", "p_wilcoxon", "p_wilcoxon_holm", "p_permutation",
    "p_permutation_holm", "seeds_needed", "patients_needed",
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
                table, compared = _rank(part, i, j, resamples, level, seed)
                rankings.append(table)
                if metric == primary and structure == MEAN:
                    pairs.append(_describe(part, compared, i, j, level))
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


@dataclass(frozen=True)
class Pairs:
    """All pairs of some methods; arrays of shape (pairs,)."""

    a: np.ndarray  # positions of the methods in the scores
    b: np.ndarray
    own: Means  # the differences a - b by themselves, as claims are judged
    deciding: Means  # wary of restless folds
    p: np.ndarray
    p_holm: np.ndarray
    separated: np.ndarray
    p_moderated: np.ndarray  # with what all pairs together tell about trainings, for the top group


def compare_pairs(values: np.ndarray, methods: np.ndarray, folds: np.ndarray, level: float) -> Pairs:
    """Every pair of `methods`, in this order; `values` (methods, seeds, patients). One family, by Holm."""
    a, b = np.array([*combinations(methods, 2)], dtype=int).reshape(-1, 2).T
    own = differences(values, a, b, folds)
    deciding = wary_of_folds(own, a, b)
    p = deciding.p_values()
    p_holm = holm(p)
    separated = (p_holm <= 1 - level) & own.seeds_enough
    first = values[:, :1]
    fixed = ((values == first) | np.isnan(values) & np.isnan(first)).all((1, 2))
    return Pairs(a, b, own, deciding, p, p_holm, separated, moderate(deciding, a, b, fixed).p_values())


def top_group(pairs: Pairs, ranks: np.ndarray, direction: int, level: float) -> np.ndarray:
    """Which methods may be the best: a set that holds the best one with probability `level` or more.

    `ranks` (methods,), NaN for methods that are not ranked; `pairs` has the better ranked method first. A method is out
    if another one beats it, in the family of all pairs or, by moderated variances, in its M - 1 comparisons with the
    others. That family is the method's own, whatever the data say about who is best (docs/statistics.md, Top group).
    """
    n = np.count_nonzero(~np.isnan(ranks))
    alone = pairs.own.seeds_enough & (pairs.p_moderated * (n - 1) <= 1 - level)
    beaten = (pairs.separated | alone) & (direction * pairs.own.mean > 0) & (ranks[pairs.a] < ranks[pairs.b])
    top = ~np.isnan(ranks)
    top[pairs.b[beaten]] = False
    return top


def _rank(
    part: Situation, i: int, j: int, resamples: int, level: float, seed: int
) -> tuple[pd.DataFrame, Pairs | None]:
    """Rows of one structure and metric, best method first, and its pairs; None for a metric without a direction."""
    metric, values = part.metrics[j], part.scores[j, i]  # (methods, seeds, patients)
    table = part.methods.assign(**part.name, structure=part.structures[i], metric=metric)
    each = estimate_means(values, part.folds)
    half = each.half_widths(level)
    table = table.assign(
        n_patients=each.n_patients,
        n_seeds=each.n_seeds,
        mean=each.mean,
        low=np.clip(each.mean - half, *BOUNDS[metric]),
        high=np.clip(each.mean + half, *BOUNDS[metric]),
        seeds_enough=each.seeds_enough,
        **{name: count[j, i] for name, count in part.counts.items()},
        rank=pd.array([pd.NA] * len(table), dtype="Int64"),
        rank_low=pd.array([pd.NA] * len(table), dtype="Int64"),
        rank_high=pd.array([pd.NA] * len(table), dtype="Int64"),
        p_best=np.nan,
        top_group=False,
    )
    if DIRECTION[metric] == 0:
        return table.sort_values("method", kind="stable"), None
    ranked = complete_methods(each, values)
    score = np.round(DIRECTION[metric] * each.mean[ranked], 12)
    table.loc[ranked, "rank"] = ranks_of(score[None])[0]
    if len(ranked) and each.n_patients[ranked[0]] >= 2:
        draws = resampled_means(each, ranked, *resample(each, ranked, resamples, seed))
        low, high, p_best = rank_intervals(ranks_of(np.round(DIRECTION[metric] * draws, 12)), level)
        table.loc[ranked, "rank_low"] = low
        table.loc[ranked, "rank_high"] = high
        table.loc[ranked, "p_best"] = p_best
    ranks = table["rank"].to_numpy(float, na_value=np.nan)
    table = table.sort_values(["rank", "method"], kind="stable")
    pairs = compare_pairs(values, table.index.to_numpy(), part.folds, level)
    table["top_group"] = top_group(pairs, ranks, DIRECTION[metric], level)[table.index]
    return table, pairs


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


def _describe(part: Situation, pairs: Pairs | None, i: int, j: int, level: float) -> pd.DataFrame:
    """Rows of `pairs`."""
    if pairs is None:
        return pd.DataFrame(columns=PAIRS)
    half = pairs.deciding.half_widths(level)
    values = part.scores[j, i]
    per_patient = described.over_seeds(values[pairs.a] - values[pairs.b])
    p_wilcoxon, p_permutation = described.wilcoxon(per_patient), described.sign_flips(per_patient)
    seeds_needed, patients_needed = described.studies_needed(pairs.own, level)
    return pd.DataFrame(
        part.name
        | {
            "metric": part.metrics[j],
            "structure": part.structures[i],
            "method_a": part.methods["method"].to_numpy()[pairs.a],
            "method_b": part.methods["method"].to_numpy()[pairs.b],
            "difference": pairs.own.mean,
            "low": pairs.own.mean - half,
            "high": pairs.own.mean + half,
            "p": pairs.p,
            "p_holm": pairs.p_holm,
            "separated": pairs.separated,
            "n_patients": pairs.own.n_patients,
            "n_seeds": pairs.own.n_seeds,
            "effect_size": described.effect_size(per_patient),
            "wins": described.wins(per_patient, DIRECTION[part.metrics[j]]),
            "p_wilcoxon": p_wilcoxon,
            "p_wilcoxon_holm": holm(p_wilcoxon),
            "p_permutation": p_permutation,
            "p_permutation_holm": holm(p_permutation),
            "seeds_needed": seeds_needed,
            "patients_needed": patients_needed,
        }
    )


def resample(
    each: Means, ranked: np.ndarray, resamples: int, seed: int | list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Other patients and other trainings that might have been drawn, for the methods `ranked`.

    Returns how often each patient is drawn (resamples, patients), how much more often than once each training is drawn
    (resamples, methods, seeds, folds), and a factor for the latter (resamples, methods). Patients are drawn within
    strata, the same for every method; trainings within folds, independently of patients, the same for methods with the
    same trainings. Few trainings make a plain bootstrap too narrow: the factor is sqrt(df/chi2), as in the interval.
    """
    rng = np.random.default_rng(seed)
    strata = each.strata[ranked[0]]
    patients = np.zeros((resamples, len(strata)), int)
    for stratum in np.unique(strata[strata >= 0]):
        members = np.flatnonzero(strata == stratum)
        patients[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    trainings = np.zeros((resamples, *each.trainings_seen[ranked].shape))
    factor = np.ones((resamples, len(ranked)))
    enough = ranked[each.seeds_enough[ranked]]
    for seen in np.unique(each.trainings_seen[enough], axis=0):
        same = enough[(each.trainings_seen[enough] == seen).all((1, 2))]
        n_seeds = seen.sum(0)  # (folds,)
        times = rng.multinomial(n_seeds, (seen / np.maximum(n_seeds, 1)).T, size=(resamples, len(n_seeds))) - seen.T
        df = each.training_df[same].mean()
        methods = np.isin(ranked, same)
        trainings[:, methods] = times.swapaxes(1, 2)[:, None]
        factor[:, methods] = np.sqrt(df / rng.chisquare(df, (resamples, 1)))
    return patients, trainings, factor


def resampled_means(
    each: Means, ranked: np.ndarray, patients: np.ndarray, trainings: np.ndarray, factor: np.ndarray
) -> np.ndarray:
    """Means of the ranked methods (resamples, methods); effects are scaled to their unbiased variance."""
    draws = patients @ each.patient_effects[ranked].T / np.count_nonzero(each.strata[ranked[0]] >= 0)
    draws += factor * np.einsum("bmsf,msf->bm", trainings, each.training_effects[ranked])
    return each.mean[ranked] + draws
