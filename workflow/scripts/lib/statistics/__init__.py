"""Which differences are real: means with intervals, ranks, top group, verdicts on claims (docs/statistics.md)."""

from __future__ import annotations

from lib.statistics.claims import judge
from lib.statistics.ranking import rank
from lib.statistics.table import read_scores, situations

__all__ = ["judge", "rank", "read_scores", "situations"]
