"""Conditions that differ in how much alone: one kind of noise at several strengths (docs/conditions.md)."""

from __future__ import annotations

from dataclasses import dataclass

LENGTHS = ("strength_mm", "strength_px")
AMOUNTS = ("strength", *LENGTHS, "rate", "train_patients")  # in this order of preference where clean is the only other


@dataclass(frozen=True)
class Family:
    """Conditions along one axis, weakest first."""

    part: str  # image, train_labels or train_patients: what the noise is on
    name: str  # what all but clean have in common, as "train_labels boundary_shift, rate 1 (mm)"
    conditions: tuple[str, ...]
    strengths: tuple[float, ...]


def families(conditions: dict[str, dict], unit: str = "mm") -> list[Family]:
    """The families among checked conditions: same settings but for one number; {} is strength 0 of each.

    `unit`: of the images, which decides between strength_mm and strength_px where a condition gives both. Fewer
    training patients are a family of shares or of numbers; {} is the share 1, and no member among numbers. A condition
    with two numbers (rate and strength) that differs from no other but {} counts along its strength.
    """
    settings = {name: _flat(condition, unit) for name, condition in conditions.items()}
    groups: dict[tuple, dict[str, float]] = {}
    for name, flat in settings.items():
        for axis in [key for key in flat if key[-1] in AMOUNTS]:
            rest = tuple(sorted((k, repr(v)) for k, v in flat.items() if k != axis))
            share = isinstance(flat[axis], float) if axis[-1] == "train_patients" else None
            groups.setdefault((axis, share, rest), {})[name] = float(flat[axis])
    clean = next((name for name, flat in settings.items() if not flat), None)
    several = {name for members in groups.values() if len({*members.values()}) > 1 for name in members}
    found = []
    for (axis, share, _), members in groups.items():
        flat = settings[next(iter(members))]
        if len({*members.values()}) == 1:
            first = min((key[-1] for key in flat if key[-1] in AMOUNTS), key=AMOUNTS.index)
            if several & members.keys() or axis[-1] != first:
                continue
        if clean and share is not False and all(key[0] == axis[0] for key in flat):
            members = {clean: 1.0 if share else 0.0} | members
        strengths = {value: name for name, value in reversed(members.items())}  # of equal conditions, the first
        if len(strengths) > 1:
            order = sorted(strengths, reverse=axis[-1] == "train_patients")
            names = tuple(strengths[value] for value in order)
            found.append(Family(axis[0], _name(flat, axis), names, tuple(order)))
    return found


def _flat(condition: dict, unit: str) -> dict[tuple[str, ...], object]:
    """Settings by path, as ("image", "strength"): 0.1; of two lengths the one in the unit of the images."""
    flat = {}
    for part, value in condition.items():
        for key, setting in value.items() if isinstance(value, dict) else [("", value)]:
            if key in LENGTHS and {*LENGTHS} <= value.keys() and key != f"strength_{unit or 'mm'}":
                continue
            if (key, setting) in (("seed", 0), ("sigma", None)) or (key == "parts" and len(setting) == 2):
                continue  # the defaults
            number = isinstance(setting, int) and part != "train_patients"
            flat[(part, key) if key else (part,)] = float(setting) if number else setting
    return flat


def _name(flat: dict[tuple[str, ...], object], axis: tuple[str, ...]) -> str:
    """The settings in words: kinds first, then what else is fixed; in brackets what the strength is, if not a share."""
    what = {"strength": "", "strength_mm": " (mm)", "strength_px": " (px)", "rate": " (rate)"}.get(axis[-1])
    if what is None:
        return f"train_patients ({'share' if isinstance(flat[axis], float) else 'number'})"
    kinds = [f"{key[0]} {value}" for key, value in flat.items() if key[-1] == "kind"]
    fixed = [
        f"{key[-1]} {' '.join(value) if isinstance(value, list) else value if isinstance(value, str) else f'{value:g}'}"
        for key, value in flat.items()
        if key[-1] != "kind" and key != axis
    ]
    return ", ".join(kinds + fixed) + what
