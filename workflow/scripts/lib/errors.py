"""The failures that segcross tells apart from accidents of the machine."""

from __future__ import annotations


class BadInput(ValueError):
    """Data or configuration is at fault; the message names the file or key, the value and the fix."""


class Diverged(RuntimeError):
    """Training produced a loss or weights that are not finite: a result about the method, not an accident."""
