"""Parameters of losses: their checks, and ramps over the training."""

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


def check_ramped(name: str, key: str, value: object, low: float, high: float = math.inf) -> None:
    """Raise BadInput unless `value` is a number in [low, high] or a ramp {from, to, start: 0, end: 1} between such."""
    if not isinstance(value, dict):
        check_number(name, key, value, low, high)
        return
    if not {"from", "to"} <= set(value) <= {"from", "to", "start", "end"}:
        raise BadInput(
            f"The loss '{name}' needs {key} to be a number or a ramp like {{from: 0, to: 1, start: 0, end: 0.5}}, "
            f"not {value}."
        )
    for end in ("from", "to"):
        check_number(name, f"{key}: {end}", value[end], low, high)
    start, end = value.get("start", 0), value.get("end", 1)
    check_number(name, f"{key}: start", start, 0, 1)
    check_number(name, f"{key}: end", end, 0, 1)
    if start > end:
        raise BadInput(f"The loss '{name}' has a ramp of {key} that starts at {start} and ends before, at {end}.")


def at_share(value: float | dict, share: float) -> float:
    """A number or ramp after this share of the training's iterations."""
    if not isinstance(value, dict):
        return value
    start, end = value.get("start", 0), value.get("end", 1)
    if share >= end:
        return value["to"]
    if share <= start:
        return value["from"]
    return value["from"] + (share - start) / (end - start) * (value["to"] - value["from"])
