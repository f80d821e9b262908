"""The report: one self-contained HTML page that says which differences are real."""

from lib.report.build import build_report

__all__ = ["build_report"]
