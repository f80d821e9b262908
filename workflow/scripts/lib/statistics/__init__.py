"""Which differences are real: means with intervals, ranks, top group, verdicts on claims (docs/statistics.md)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lib.statistics.claims import judge
from lib.statistics.components import components
from lib.statistics.ranking import rank
from lib.statistics.table import read_scores, situations

__all__ = ["Comparison", "compare", "components", "judge", "rank", "read_scores", "situations"]


@dataclass(frozen=True)
class Comparison:
    """The tables ranking.csv, comparisons.csv and claims.csv."""

    ranking: pd.DataFrame
    pairs: pd.DataFrame
    claims: pd.DataFrame


def compare(
    scores: pd.DataFrame,
    claims: dict[str, dict] | None = None,
    *,
    primary: str = "dice",
    failed: str = "worst",
    empty: str = "penalise",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Everything that the statistics say about a tidy table of scores; see `situations`, `rank` and `judge`."""
    parts = situations(scores, failed, empty)
    ranking, pairs = rank(parts, primary, resamples, level, seed)
    return Comparison(ranking, pairs, judge(parts, claims or {}, primary, level))
