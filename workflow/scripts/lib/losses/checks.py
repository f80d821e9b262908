"""Checks of the parameters of losses."""

from __future__ import annotations

import math

from lib.errors import BadInput
from lib.registry import did_you_mean


def check_number(name: str, key: str, value: object, low: float, high: float = math.inf) -> None:
    """Raise BadInput unless `value` is a finite number in [low, high]."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        between = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise BadInput(f"The loss '{name}' needs {key} to be a number {between}, not {value!r}.")


def check_choice(name: str, key: str, value: object, known: tuple[str, ...]) -> None:
    """Raise BadInput unless `value` is one of the known words."""
    if value not in known:
        raise BadInput(f"The loss '{name}' has no {key} '{value}'.{did_you_mean(str(value), known)}")
