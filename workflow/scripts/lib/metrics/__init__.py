"""Scores of one predicted label map against its reference, defined once for every method (docs/metrics.md)."""

from lib.metrics.case import score_case, worst_scores
from lib.metrics.names import BOUNDS, DIRECTION, DISTANCES, METRICS

__all__ = ["BOUNDS", "DIRECTION", "DISTANCES", "METRICS", "score_case", "worst_scores"]
