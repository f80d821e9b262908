"""Scores of one predicted label map against its reference, defined once for every method (docs/metrics.md)."""

from lib.metrics.case import DIRECTION, DISTANCES, METRICS, score_case, worst_scores

__all__ = ["DIRECTION", "DISTANCES", "METRICS", "score_case", "worst_scores"]
