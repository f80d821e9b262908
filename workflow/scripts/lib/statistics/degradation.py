"""Scores over the strength of a noise: mean per strength, and the area under that curve, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from lib.data.strengths import Family, families
from lib.metrics import BOUNDS
from lib.statistics.means import Means, estimate_means
from lib.statistics.table import MEAN, Situation

DEGRADATION = [
    "dataset", "protocol", "method", "family", "strength", "condition", "mean", "low", "high", "n_patients", "n_seeds",
    "metric", "architecture", "loss",
]  # fmt: skip
AREA = "area"


def degradation(
    parts: list[Situation], conditions: dict[str, dict], primary: str = "dice", level: float = 0.95
) -> pd.DataFrame:
    """Per dataset, protocol, family of conditions and method: a row per strength, and the area under the curve.

    The area is the trapezoid rule over the strengths divided by their range: the mean score over strengths drawn
    evenly from weakest to strongest. It uses the patients and trainings that every strength has; each patient's and
    training's own area makes its table of seeds x patients, so its interval is that of any mean (docs/statistics.md).
    """
    rows = []
    for place, members, family in series(parts, conditions):
        methods = pd.concat([part.methods for part in members]).drop_duplicates("method").sort_values("method")
        values, folds = aligned(members, primary, MEAN, list(methods["method"]))
        names = [place | {"family": family.name, "metric": primary} | m for m in methods.to_dict("records")]
        for k, (part, strength) in enumerate(zip(members, family.strengths, strict=True)):
            level_of = {"strength": strength, "condition": part.name["condition"]}
            rows += _rows([name | level_of for name in names], estimate_means(values[k], folds), primary, level)
        area = np.tensordot(area_weights(family.strengths), values, 1)
        level_of = {"strength": AREA, "condition": ""}
        rows += _rows([name | level_of for name in names], estimate_means(area, folds), primary, level)
    return pd.DataFrame(rows, columns=DEGRADATION)


def series(parts: list[Situation], conditions: dict[str, dict]) -> list[tuple[dict, list[Situation], Family]]:
    """(dataset and protocol, its situations weakest first, their family), for each family that was scored there."""
    places: dict[tuple[str, str], dict[str, Situation]] = {}
    for part in parts:
        places.setdefault((part.name["dataset"], part.name["protocol"]), {})[part.name["condition"]] = part
    return [
        ({"dataset": dataset, "protocol": protocol}, [found[name] for name in family.conditions], family)
        for (dataset, protocol), found in places.items()
        for family in families(
            {name: conditions[name] for name in conditions if name in found},
            next((part.unit for part in found.values() if part.unit), "mm"),
        )
    ]


def aligned(parts: list[Situation], metric: str, structure: str, methods: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of situations of one dataset (situations, methods, seeds, patients), NaN where there is none; and folds.

    Seeds and patients are matched by name. Patients share a fold where they do in one of the situations.
    """
    seeds = sorted({seed for part in parts for seed in part.seeds})
    patients = sorted({patient for part in parts for patient in part.patients})
    values = np.full((len(parts), len(methods), len(seeds), len(patients)), np.nan)
    together = np.eye(len(patients), dtype=bool)
    for k, part in enumerate(parts):
        columns = [patients.index(patient) for patient in part.patients]
        together[np.ix_(columns, columns)] |= part.folds[:, None] == part.folds
        if metric not in part.metrics or structure not in part.structures:
            continue
        scores = part.scores[part.metrics.index(metric), part.structures.index(structure)]
        for m, method in enumerate(methods):
            if (i := part.index(method)) is not None:
                values[np.ix_([k], [m], [seeds.index(seed) for seed in part.seeds], columns)] = scores[i]
    return values, connected_components(together, directed=False)[1]


def area_weights(strengths: tuple[float, ...]) -> np.ndarray:
    """Weights of the trapezoid rule over strengths in order, up or down; they add up to 1."""
    width = np.abs(np.diff(strengths))
    return (np.append(width, 0) + np.append(0, width)) / (2 * width.sum())


def _rows(names: list[dict], each: Means, metric: str, level: float) -> list[dict]:
    half = each.half_widths(level)
    return [
        name
        | {"mean": each.mean[i], "n_patients": int(each.n_patients[i]), "n_seeds": int(each.n_seeds[i])}
        | {
            "low": np.clip(each.mean[i] - half[i], *BOUNDS[metric]),
            "high": np.clip(each.mean[i] + half[i], *BOUNDS[metric]),
        }
        for i, name in enumerate(names)
    ]
