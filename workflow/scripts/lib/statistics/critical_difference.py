"""Friedman's test over patients and Nemenyi's critical difference of mean ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.statistics.means import estimate_means
from lib.statistics.ranking import complete_methods
from lib.statistics.schemes import scores_of_patients, signed_scores
from lib.statistics.table import SITUATION, Situation

ALPHA = 0.05
CRITICAL_DIFFERENCE = [
    *SITUATION, "metric", "method", "mean_rank", "groups", "p_friedman", "critical_difference", "n_patients",
]  # fmt: skip


def critical_difference(part: Situation, metric: str) -> pd.DataFrame:
    """Friedman's test over patients and Nemenyi's critical difference of mean ranks (Demšar 2006, JMLR 7:1).

    Descriptive: scores are averaged over seeds first, so the test knows nothing of the luck of trainings. `groups`:
    numbers of the bars, maximal runs of methods whose mean ranks differ by less than the critical difference; one bar
    over all where Friedman's test is not significant. No rows for fewer than three methods or two patients.
    """
    from scipy import stats  # takes a second to import

    values = signed_scores(part, metric)
    methods = complete_methods(estimate_means(values, part.folds), values)
    scores = scores_of_patients(values[methods])
    k, n = scores.shape
    if k < 3 or n < 2:
        return pd.DataFrame(columns=CRITICAL_DIFFERENCE)
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
