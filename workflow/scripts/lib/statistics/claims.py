"""Claims of papers against what was measured: difference, interval, verdict, and the sentence that may be written.

Every kind of claim but `cheaper` is a statement on the mean of one table of seeds x patients, that of the paired
differences treatment - control, or of a contrast between such differences; so all share the model of means.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from lib.errors import BadInput
from lib.metrics import DIRECTION, DISTANCES
from lib.registry import did_you_mean
from lib.statistics.degradation import aligned, series
from lib.statistics.means import Means, estimate_means, holm
from lib.statistics.ranking import differences
from lib.statistics.sentences import COSTS, budget_text, digits_of, falls_short, gain_of, sentence
from lib.statistics.table import MEAN, SITUATION, Situation

CLAIMS = [
    "claim", *SITUATION, "source", "says", "kind", "metric", "treatment", "control", "published_difference",
    "published_treatment", "mean_treatment", "mean_control", "difference", "low", "high", "p", "p_holm",
    "n_patients", "n_seeds", "margin", "verdict", "sentence", "structure", "levels", "interval", "separated",
    "provenance", "budget",
]  # fmt: skip
KINDS = ("superior", "noninferior", "equivalent", "interaction", "cheaper")
PROVENANCE = ("stated", "implied", "recalled")
_NOTES = {"worst": " Failed cells count with the worst scores.", "exclude": " Failed cells are left out."}
_UNMEASURED = dict.fromkeys(("mean_treatment", "mean_control", "difference", "low", "high", "p"), np.nan) | {
    "n_patients": 0,
    "n_seeds": 0,
    "seeds_enough": False,
    "levels": "",
    "unit": "",
    "note": "",
}


def judge(
    parts: list[Situation],
    claims: dict[str, dict],
    primary: str = "dice",
    level: float = 0.95,
    conditions: dict[str, dict] | None = None,
    protocols: dict[str, dict] | None = None,
    ledger: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per claim and situation; Holm's adjustment is over all that have a p-value (docs/claims.md).

    `claims`: name -> {treatment, control, kind, metric, structure, published, margin, across, provenance}; `primary`:
    the metric of claims that name none; `level`: of the intervals. `conditions`: the settings of the experiment's
    conditions, for claims across strengths. `protocols`: name -> settings, of which the budget is told. `ledger`: for
    claims about costs. Raises BadInput for claims that contradict themselves.
    """
    rows = []
    for name, claim in claims.items():
        claim = _checked(name, claim, parts, primary)
        measured = _measure(claim, parts, conditions or {}, ledger, level) or [dict.fromkeys(SITUATION, "")]
        for row in measured:
            budget = budget_text((protocols or {}).get(row["protocol"], {}))
            rows.append(_UNMEASURED | claim | {"claim": name, "budget": budget} | row)
    adjusted = holm(np.array([row["p"] for row in rows]))
    for row, p_holm in zip(rows, adjusted, strict=True):
        row["p_holm"] = p_holm
        row["established"] = bool(row["seeds_enough"] and p_holm <= 1 - level)
        row["separated"] = row["established"] and row["kind"] in ("superior", "interaction")
        row["verdict"] = _verdict(row)
        row["sentence"] = sentence(row)
    return pd.DataFrame(rows, columns=CLAIMS)


def method_name(side: dict) -> str:
    """The method that a side of a claim names: {architecture, loss} or {method}."""
    return side["method"] if "method" in side else f"{side['architecture']}+{side['loss']}"


def _checked(name: str, claim: dict, parts: list[Situation], primary: str) -> dict:
    """The claim with its defaults; raises BadInput for what cannot be tested."""
    where = f"claims: {name}"
    for side in ("treatment", "control"):
        given = claim.get(side) or {}
        if "method" not in given and not {"architecture", "loss"} <= set(given):
            raise BadInput(
                f"{where}: {side} is {claim.get(side)!r}; write {side}: {{architecture: …, loss: …}}, or {{method: …}}."
            )
    kind, provenance = claim.get("kind", "superior"), claim.get("provenance", "stated")
    for key, value, known in (("kind", kind, KINDS), ("provenance", provenance, PROVENANCE)):
        if value not in known:
            raise BadInput(f"{where}: {key} is '{value}'.{did_you_mean(str(value), known)}")
    metric = claim.get("metric", "parameters" if kind == "cheaper" else primary)
    directed = [*COSTS] if kind == "cheaper" else [m for m, direction in DIRECTION.items() if direction]
    if metric not in directed:
        raise BadInput(f"{where}: metric is '{metric}'.{did_you_mean(str(metric), directed)}")
    structure, known = claim.get("structure", MEAN), {s for part in parts for s in part.structures}
    if known and structure not in known:
        raise BadInput(f"{where}: structure is '{structure}'.{did_you_mean(str(structure), known)}")
    margin = float(claim.get("margin", kind == "cheaper"))
    if not margin >= 0:
        raise BadInput(f"{where}: margin is {margin}; give a number >= 0 (docs/claims.md says of what).")
    if margin == 0 and kind in ("equivalent", "noninferior", "cheaper"):
        raise BadInput(
            f"{where}: kind {kind} needs a margin above 0, "
            + ("the largest ratio of costs." if kind == "cheaper" else "the largest difference that does not matter.")
        )
    published = claim.get("published") or {}
    if published and provenance == "recalled":
        raise BadInput(
            f"{where}: published numbers that are only recalled are not printed; remove them, or read the paper."
        )
    difference = published.get("difference", np.nan)
    if "difference" not in published and {"treatment", "control"} <= set(published):
        difference = published["treatment"] - published["control"]
    if kind in ("superior", "interaction") and DIRECTION[metric] * difference < 0:
        raise BadInput(
            f"{where}: the published difference (treatment - control) of {metric} is {difference}, which says that the "
            f"treatment is worse ({metric} is {'higher' if DIRECTION[metric] > 0 else 'lower'} for a better method); "
            "change its sign, or swap treatment and control."
        )
    return {
        "source": claim.get("source", ""),
        "says": claim.get("says", ""),
        "provenance": provenance,
        "kind": kind,
        "metric": metric,
        "structure": structure,
        "across": _across(where, kind, claim.get("across")),
        "treatment": method_name(claim["treatment"]),
        "control": method_name(claim["control"]),
        "margin": margin,
        "published_difference": difference,
        "published_treatment": published.get("treatment", np.nan),
    }


def _across(where: str, kind: str, across: dict | None) -> dict:
    if kind != "interaction":
        if across:
            raise BadInput(f"{where}: across belongs to kind: interaction; this claim is of kind {kind}.")
        return {}
    parts = ("image", "train_labels", "train_patients")
    strength, sets = (across or {}).get("strength_of"), (across or {}).get("structures")
    if (strength is None) == (sets is None):
        raise BadInput(
            f"{where}: kind interaction needs across: {{strength_of: image}}, or "
            "across: {structures: {seen: […], unseen: […]}}, the larger gain last."
        )
    if strength is not None and strength not in parts:
        raise BadInput(f"{where}: across: strength_of is '{strength}'.{did_you_mean(str(strength), parts)}")
    if sets is not None and (len(sets) != 2 or not all(sets.values()) or set.intersection(*map(set, sets.values()))):
        raise BadInput(f"{where}: across: structures: {sets}; give two named lists that share no structure.")
    return across


def _measure(
    claim: dict, parts: list[Situation], conditions: dict[str, dict], ledger: pd.DataFrame | None, level: float
) -> list[dict]:
    """One dict per situation: its names and what was measured in it, nothing where nothing was."""
    if claim["kind"] == "cheaper":
        return _costs(claim, parts, ledger)
    if "strength_of" not in claim["across"]:
        return [part.name | _effect(claim, [part], *_levels(claim, part), part.folds, level) for part in parts]
    rows = []
    for place, members, family in series(parts, conditions):
        if family.part == claim["across"]["strength_of"]:
            methods = [claim["treatment"], claim["control"]]
            values, folds = aligned(members, claim["metric"], claim["structure"], methods)
            effect = _effect(claim, members, [*family.conditions], values, _slope(family.strengths), folds, level)
            rows.append(place | {"condition": " → ".join(family.conditions)} | effect)
    return rows


def _levels(claim: dict, part: Situation) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the levels that are compared, scores (levels, 2 methods, seeds, patients), weights of the levels.

    One level, weight 1, is the plain difference; two sets of structures have the weights -1, 1.
    """
    sets = claim["across"].get("structures", {"": [claim["structure"]]})
    names, tables = [], []
    for name, structures in sets.items():
        found = [structure for structure in structures if structure in part.structures]
        values = [aligned([part], claim["metric"], s, [claim["treatment"], claim["control"]])[0][0] for s in found]
        values = np.array(values) if found else np.full((1, 2, len(part.seeds), len(part.patients)), np.nan)
        known = ~np.isnan(values).any(1, keepdims=True)  # a structure counts where both methods have it
        with np.errstate(invalid="ignore"):
            tables.append(np.where(known, values, 0).sum(0) / known.sum(0))
        names.append(f"{name} ({', '.join(found)})")
    return names, np.stack(tables), np.array([-1.0, 1.0] if len(sets) == 2 else [1.0])


def _slope(strengths: tuple[float, ...]) -> np.ndarray:
    """Weights that make, of values at these strengths, the rise of their least-squares line from first to last."""
    x = np.array(strengths) - np.mean(strengths)
    return x / (x**2).sum() * (x[-1] - x[0])


def _effect(
    claim: dict,
    parts: list[Situation],
    names: list[str],
    values: np.ndarray,
    weights: np.ndarray,
    folds: np.ndarray,
    level: float,
) -> dict:
    """The weighted sum of levels, treatment against control; `values` (levels, 2 methods, seeds, patients)."""
    common = ~np.isnan(values).any((0, 1))  # the same patients and trainings on both sides, at every level
    if not common.any():
        return {}
    values = np.where(common, values, np.nan)
    contrast = np.tensordot(weights, values, 1)
    pair = differences(contrast, np.array([0]), np.array([1]), folds)
    means = estimate_means(contrast, folds).mean
    interval = 2 * level - 1 if claim["kind"] == "equivalent" else level
    half = pair.half_widths(interval)
    unit = f" {parts[0].unit}" if claim["metric"] in DISTANCES else ""
    each = estimate_means(values[:, 0] - values[:, 1], folds).mean
    digits = digits_of(claim["metric"])
    return {
        "mean_treatment": means[0],
        "mean_control": means[1],
        "difference": pair.mean[0],
        "low": (pair.mean - half)[0],
        "high": (pair.mean + half)[0],
        "p": _p_value(claim, pair),
        "interval": interval,
        "n_patients": int(pair.n_patients[0]),
        "n_seeds": int(pair.n_seeds[0]),
        "seeds_enough": bool(pair.seeds_enough[0]),
        "levels": "; ".join(f"{n} {d:+.{digits}f}{unit}" for n, d in zip(names, each, strict=True))
        if len(each) > 1
        else "",
        "unit": unit,
        "note": _NOTES[parts[0].failed] if any(_failures(claim, part) for part in parts) else "",
    }


def _p_value(claim: dict, pair: Means) -> float:
    """Two-sided; for a margin the larger of two one-sided ones (equivalent), or twice the one below (noninferior)."""
    if claim["kind"] == "equivalent":
        return max(_one_sided(pair, -claim["margin"], 1), _one_sided(pair, claim["margin"], -1))
    if claim["kind"] == "noninferior":
        sign = DIRECTION[claim["metric"]]
        return min(1.0, 2 * _one_sided(pair, -sign * claim["margin"], sign))
    return float(pair.p_values()[0])


def _one_sided(pair: Means, limit: float, sign: int) -> float:
    """p-value of the hypothesis that the mean is not beyond `limit`, upwards (sign 1) or downwards (-1)."""
    shifted = replace(pair, mean=pair.mean - limit)
    p = float(shifted.p_values()[0])
    return p / 2 if sign * shifted.mean[0] > 0 else 1 - p / 2


def _failures(claim: dict, part: Situation) -> bool:
    methods = [i for m in ("treatment", "control") if (i := part.index(claim[m])) is not None]
    structures = [s for names in claim["across"].get("structures", {"": [claim["structure"]]}).values() for s in names]
    rows = [part.structures.index(s) for s in structures if s in part.structures]
    return bool(part.counts["n_failed"][part.metrics.index(claim["metric"])][np.ix_(rows, methods)].any())


def _costs(claim: dict, parts: list[Situation], ledger: pd.DataFrame | None) -> list[dict]:
    """Costs of finished cells: the medians, and the range of the differences between any two cells."""
    rows = []
    for part in parts:
        row = dict(part.name)
        if ledger is not None and claim["metric"] in ledger:
            here = ledger[(ledger[SITUATION] == [part.name[key] for key in SITUATION]).all(axis=1)]
            t, c = (
                here.loc[here["method"] == claim[side], claim["metric"]].dropna() for side in ("treatment", "control")
            )
            if len(t) and len(c):
                row |= {
                    "mean_treatment": t.median(),
                    "mean_control": c.median(),
                    "difference": t.median() - c.median(),
                    "low": t.min() - c.max(),
                    "high": t.max() - c.min(),
                    "ratio": (t.min() / c.max(), t.median() / c.median(), t.max() / c.min()),
                }
        rows.append(row)
    return rows


def _verdict(row: dict) -> str:
    if np.isnan(row["difference"]):
        return "missing"
    if row["kind"] == "cheaper":
        least, _, most = row["ratio"]
        return "reproduced" if most <= row["margin"] else "not reproduced" if least > row["margin"] else "inconclusive"
    if not row["seeds_enough"]:
        return "one training"
    gain, upper = gain_of(row)
    if row["kind"] == "equivalent":
        outside = row["low"] > row["margin"] or row["high"] < -row["margin"]
        return "reproduced" if row["established"] else "not reproduced" if outside else "inconclusive"
    if row["kind"] == "noninferior":
        return "reproduced" if row["established"] else "not reproduced" if upper < -row["margin"] else "inconclusive"
    if row["separated"] and gain > 0:
        return "smaller" if falls_short(row) else "reproduced"
    return "not reproduced" if upper < row["margin"] else "inconclusive"
