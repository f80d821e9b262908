"""Which differences are real: means with intervals, ranks, top group, verdicts on claims (docs/statistics.md)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lib.statistics.claims import judge
from lib.statistics.ranking import rank
from lib.statistics.table import read_scores, situations

__all__ = ["Comparison", "compare", "read_scores"]


@dataclass(frozen=True)
class Comparison:
    """`ranking`: method x structure x metric; `pairs`: all pairs of methods; `claims`: one row per claim tested."""

    ranking: pd.DataFrame
    pairs: pd.DataFrame
    claims: pd.DataFrame


def compare(
    scores: pd.DataFrame,
    claims: dict[str, dict] | None = None,
    primary: str = "dice",
    failed: str = "worst",
    empty: str = "penalise",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare the methods of a tidy score table and judge claims about them.

    `scores`: one row per cell x case x structure x metric (columns: `lib.statistics.table.COLUMNS`). `claims`: name ->
    {treatment, control, kind, metric, structure, published, margin}. `primary`: the metric of the pairs. `failed`:
    scores of failed cells count as "worst" or are left out ("exclude"). `empty`: cases whose reference lacks a
    structure count ("penalise") or are left out for every method ("exclude"). `resamples`, `seed`: of the bootstrap
    of ranks. `level`: of the intervals; `separated` means an adjusted p-value of at most 1 - level.

    Raises BadInput for a table that lacks columns, repeats rows or holds values that are not finite, for unknown
    policies and for claims that contradict themselves.
    """
    parts = situations(scores, failed, empty)
    ranking, pairs = rank(parts, primary, resamples, level, seed)
    return Comparison(ranking, pairs, judge(parts, claims or {}, primary, level))
