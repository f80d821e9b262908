"""One ranking across datasets: mean ranks of the methods that were ranked on all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.statistics.means import estimate_means
from lib.statistics.ranking import complete_methods, concat, rank_intervals, ranks_of, resample, resampled_means
from lib.statistics.schemes import METRICS, signed_scores
from lib.statistics.table import Situation

CONSENSUS = [
    "condition", "protocol", "metric", "method", "n_datasets", "mean_rank", "low", "high", "rank", "p_best",
]  # fmt: skip


def consensus(parts: list[Situation], resamples: int = 2000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean rank over datasets of every method, under each condition and protocol with several datasets.

    In every dataset the methods rank by their mean over structures and patients; ties share their mean rank. Minimises
    the sum of squared distances to the datasets' ranks: `relation_consensus(method = "euclidean")` in R, as challengeR
    uses. Only methods that are ranked on all datasets are ranked, among themselves. Intervals and P(best) come from
    patients and trainings drawn again, independently in each dataset; datasets themselves are fixed. There are none
    where a method has fewer than two patients or three seeds: luck in training would pass for certainty.
    """
    tables = []
    for situation in sorted({(part.name["condition"], part.name["protocol"]) for part in parts}):
        here = [part for part in parts if (part.name["condition"], part.name["protocol"]) == situation]
        for metric in METRICS:
            known = [part for part in here if metric in part.metrics]
            if len(known) >= 2:
                table = _consensus(known, metric, resamples, level, seed)
                tables.append(table.assign(condition=situation[0], protocol=situation[1], metric=metric))
    return concat(tables, CONSENSUS)


def _consensus(parts: list[Situation], metric: str, resamples: int, level: float, seed: int) -> pd.DataFrame:
    from scipy.stats import rankdata  # takes a second to import

    each, ranked = [], []
    for part in parts:
        values, methods = signed_scores(part, metric), part.methods["method"].to_numpy()
        means = estimate_means(values, part.folds)
        each.append((means, methods))
        ranked.append(methods[complete_methods(means, values)])
    counts = pd.Series(np.concatenate(ranked)).value_counts()
    names = sorted({name for _, methods in each for name in methods})
    table = pd.DataFrame({"method": names, "n_datasets": counts.reindex(names, fill_value=0).to_numpy()})
    for column in ("mean_rank", "low", "high", "p_best"):
        table[column] = np.nan
    table["rank"] = pd.array([pd.NA] * len(table), dtype="Int64")
    common = np.flatnonzero(table["n_datasets"] == len(parts))
    if len(common) == 0:
        return table
    measured, drawn = [], []
    for i, (means, methods) in enumerate(each):
        at = np.array([np.flatnonzero(methods == names[k])[0] for k in common])
        measured.append(rankdata(-np.round(means.mean[at], 12)))
        if means.n_patients[at[0]] >= 2 and means.seeds_enough[at].all():
            draws = resampled_means(means, at, *resample(means, at, resamples, [seed, i]))
            drawn.append(rankdata(-np.round(draws, 12), axis=1))
    mean_rank = np.mean(measured, 0)
    table.loc[common, "mean_rank"] = mean_rank
    table.loc[common, "rank"] = ranks_of(-mean_rank[None].round(12))[0]
    if len(drawn) == len(parts):
        draws = np.mean(drawn, 0)
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        table.loc[common, "low"] = low
        table.loc[common, "high"] = high
        table.loc[common, "p_best"] = rank_intervals(ranks_of(-draws.round(12)), level)[2]
    return table.sort_values(["rank", "method"], kind="stable")
