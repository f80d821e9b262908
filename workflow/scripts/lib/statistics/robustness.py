"""Does the ranking depend on how one ranks? Every scheme, metric and empty-mask policy, and how far they agree."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
import pandas as pd

from lib.statistics.critical_difference import CRITICAL_DIFFERENCE, critical_difference
from lib.statistics.ranking import concat, rank_intervals
from lib.statistics.schemes import METRICS, SCHEMES, Ranking, rank_by_schemes, scores_of_patients, signed_scores
from lib.statistics.table import MEAN, SITUATION, Situation, situations

EMPTY = ("penalise", "exclude")

SCHEMES_TABLE = [
    *SITUATION, "structure", "metric", "empty", "scheme", "method", "architecture", "loss", "value", "rank",
    "rank_low", "rank_high", "p_best",
]  # fmt: skip
DISTRIBUTION = [*SITUATION, "metric", "empty", "scheme", "method", "rank", "share"]
AGREEMENT = [*SITUATION, "metric", "ranking_a", "ranking_b", "kendall_tau", "low", "high"]
CHALLENGER = ["task", "case", "algorithm", "value"]


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
    policies = (situations(scores, failed, policy) for policy in EMPTY)
    for penalised, excluded in zip(*policies, strict=True):
        chosen = penalised if empty == "penalise" else excluded
        metrics = sorted((m for m in METRICS if m in chosen.metrics), key=lambda m: m != primary)
        rankings = {}
        for metric in metrics:
            bootstrap = tuple(s for s in SCHEMES if s != "test_then_rank" or metric == primary)
            first = rank_by_schemes(penalised, metric, bootstrap, resamples, seed)
            alike = np.array_equal(signed_scores(penalised, metric), signed_scores(excluded, metric), equal_nan=True)
            rankings[metric, "penalise"] = first
            rankings[metric, "exclude"] = (
                first if alike else rank_by_schemes(excluded, metric, bootstrap, resamples, seed)
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


def kendall_tau(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between rows of ranks (draws, methods); NaN where one of the two ties everything."""
    i, j = np.array([*combinations(range(a.shape[1]), 2)], dtype=int).reshape(-1, 2).T
    one, two = (np.sign(ranks[:, i] - ranks[:, j]).astype(np.float32) for ranks in (a, b))
    pairs = np.abs(one).sum(1, dtype=float) * np.abs(two).sum(1, dtype=float)
    return (one * two).sum(1, dtype=float) / np.sqrt(np.where(pairs > 0, pairs, np.nan))


def challenger_table(parts: list[Situation], metric: str = "dice") -> pd.DataFrame:
    """What these rankings are made of, as challengeR reads it: task, case, algorithm, value (docs/ranking_schemes.md).

    A task is a situation, a case is a patient: scores are averaged over structures, over the patient's cases, and over
    seeds. A method without a score for a patient has a row without a value, which R reads as NA.
    """
    tables = []
    for part in (part for part in parts if metric in part.metrics):
        values = part.scores[part.metrics.index(metric), part.structures.index(MEAN)]
        seen = ~np.isnan(values).all((0, 1))
        names = pd.MultiIndex.from_product(
            [[" ".join(part.name.values())], part.methods["method"], np.array(part.patients)[seen]],
            names=["task", "algorithm", "case"],
        )
        tables.append(pd.DataFrame({"value": scores_of_patients(values).ravel()}, names).reset_index())
    return concat(tables, CHALLENGER)
