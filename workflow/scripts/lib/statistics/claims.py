"""Claims of papers against what was measured: difference, interval, verdict, and the sentence that may be written."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.errors import BadInput
from lib.metrics import DIRECTION, DISTANCES
from lib.registry import did_you_mean
from lib.statistics.means import MIN_SEEDS, estimate_means, holm
from lib.statistics.ranking import differences
from lib.statistics.table import MEAN, SITUATION, Situation

CLAIMS = [
    "claim", *SITUATION, "source", "says", "kind", "metric", "treatment", "control", "published_difference",
    "published_treatment", "mean_treatment", "mean_control", "difference", "low", "high", "p", "p_holm",
    "n_patients", "n_seeds", "margin", "verdict", "sentence",
]  # fmt: skip
_NAMES = {"dice": "Dice", "iou": "IoU", "nsd": "NSD", "hd95": "HD95", "assd": "ASSD"}
_NOTES = {"worst": " Failed cells count with the worst scores.", "exclude": " Failed cells are left out."}


def judge(parts: list[Situation], claims: dict[str, dict], primary: str = "dice", level: float = 0.95) -> pd.DataFrame:
    """One row per claim and situation; Holm's adjustment is over all of them (docs/statistics.md).

    `claims`: name -> {treatment, control, kind, metric, structure, published, margin}; `primary`: the metric of claims
    that name none; `level`: of the intervals. Raises BadInput for claims that contradict themselves.
    """
    claims = {name: _checked(name, claim, parts, primary) for name, claim in claims.items()}
    empty_situation = dict.fromkeys(SITUATION, "")
    rows = [
        _measure(claim, part, level) | {"claim": name} | (part.name if part else empty_situation)
        for name, claim in claims.items()
        for part in parts or [None]
    ]
    adjusted = holm(np.array([row["p"] for row in rows]))
    for row, p_holm in zip(rows, adjusted, strict=True):
        row["p_holm"] = p_holm
        row["separated"] = bool(row["seeds_enough"] and p_holm <= 1 - level)
        row["verdict"] = _verdict(row)
        row["sentence"] = _sentence(row, level)
    return pd.DataFrame(rows, columns=CLAIMS)


def _checked(name: str, claim: dict, parts: list[Situation], primary: str) -> dict:
    """The claim with its defaults; raises BadInput for what cannot be tested."""
    where = f"claims: {name}"
    for side in ("treatment", "control"):
        if not {"architecture", "loss"} <= set(claim.get(side) or {}):
            raise BadInput(f"{where}: {side} is {claim.get(side)!r}; write {side}: {{architecture: …, loss: …}}.")
    kind, metric = claim.get("kind", "superior"), claim.get("metric", primary)
    if kind != "superior":
        raise BadInput(f"{where}: kind is '{kind}'; only 'superior' can be tested so far.")
    directed = [m for m, direction in DIRECTION.items() if direction]
    if metric not in directed:
        raise BadInput(f"{where}: metric is '{metric}'.{did_you_mean(str(metric), directed)}")
    structure, known = claim.get("structure", MEAN), {s for part in parts for s in part.structures}
    if known and structure not in known:
        raise BadInput(f"{where}: structure is '{structure}'.{did_you_mean(str(structure), known)}")
    margin = float(claim.get("margin", 0))
    if not margin >= 0:
        raise BadInput(f"{where}: margin is {margin}; give the smallest gain that matters, a number >= 0.")
    published = claim.get("published") or {}
    difference = published.get("difference", np.nan)
    if "difference" not in published and {"treatment", "control"} <= set(published):
        difference = published["treatment"] - published["control"]
    if DIRECTION[metric] * difference < 0:
        raise BadInput(
            f"{where}: the published difference (treatment - control) of {metric} is {difference}, which says that the "
            f"treatment is worse ({metric} is {'higher' if DIRECTION[metric] > 0 else 'lower'} for a better method); "
            "change its sign, or swap treatment and control."
        )
    sides = {side: f"{claim[side]['architecture']}+{claim[side]['loss']}" for side in ("treatment", "control")}
    return sides | {
        "source": claim.get("source", ""),
        "says": claim.get("says", ""),
        "kind": kind,
        "metric": metric,
        "structure": structure,
        "margin": margin,
        "published_difference": difference,
        "published_treatment": published.get("treatment", np.nan),
    }


def _measure(claim: dict, part: Situation | None, level: float) -> dict:
    """The claim with what was measured in one situation; NaN where nothing was."""
    nothing = dict.fromkeys(("mean_treatment", "mean_control", "difference", "low", "high", "p"), np.nan)
    row = claim | nothing | {"n_patients": 0, "n_seeds": 0, "seeds_enough": False, "note": ""}
    metric, structure = claim["metric"], claim["structure"]
    if part is None or metric not in part.metrics or structure not in part.structures:
        return row
    i, j = part.metrics.index(metric), part.structures.index(structure)
    t, c = part.index(claim["treatment"]), part.index(claim["control"])
    if t is None or c is None:
        return row
    values = part.scores[i, j, [t, c]]
    common = ~np.isnan(values).any(0)  # the same patients and seeds on both sides
    if not common.any():
        return row
    values = np.where(common, values, np.nan)
    pair = differences(values, np.array([0]), np.array([1]), part.folds)
    means, half = estimate_means(values, part.folds).mean, pair.half_widths(level)
    return row | {
        "mean_treatment": means[0],
        "mean_control": means[1],
        "difference": pair.mean[0],
        "low": (pair.mean - half)[0],
        "high": (pair.mean + half)[0],
        "p": pair.p_values()[0],
        "n_patients": int(pair.n_patients[0]),
        "n_seeds": int(pair.n_seeds[0]),
        "seeds_enough": bool(pair.seeds_enough[0]),
        "unit": f" {part.unit}" if metric in DISTANCES else "",
        "note": _NOTES[part.failed] if part.counts["n_failed"][i, j, [t, c]].any() else "",
    }


def _gain(row: dict) -> tuple[float, float]:
    """The gain by the treatment and its upper end: positive is better, whatever the metric's direction."""
    sign = DIRECTION[row["metric"]]
    return sign * row["difference"], row["high"] if sign > 0 else -row["low"]


def _verdict(row: dict) -> str:
    if row["n_patients"] == 0:
        return "missing"
    if not row["seeds_enough"]:
        return "one training"
    gain, upper = _gain(row)
    published = DIRECTION[row["metric"]] * row["published_difference"]
    if row["separated"] and gain > 0:
        return "smaller" if upper < published else "reproduced"
    return "not reproduced" if upper < row["margin"] else "inconclusive"


def _sentence(row: dict, level: float) -> str:
    """What may be written. It calls a method better or worse only where the two are separated."""
    metric, treatment, control = row["metric"], row["treatment"], row["control"]
    digits = 2 if metric in DISTANCES else 3
    structure = "mean over structures" if row["structure"] == MEAN else row["structure"]
    score = f"{_NAMES[metric]} ({structure})"
    place = f"On {row['dataset']} ({row['condition']}, protocol {row['protocol']})" if row["dataset"] else "Here"
    if row["verdict"] == "missing":
        return f"{place} the claim was not tested: there are no common scores of {treatment} and {control}."
    unit = row["unit"]
    interval = (
        f"{level:.0%} interval {row['low']:+.{digits}f} to {row['high']:+.{digits}f}".replace("%", " %")
        if np.isfinite(row["low"])
        else "no interval, for it needs at least 2 patients"
    )
    n = f"{_count(row['n_patients'], 'patient')}, {_count(row['n_seeds'], 'seed')}"
    p = "" if np.isnan(row["p_holm"]) else f", p {_p(row['p_holm'])} after Holm"
    values = (
        f"{row['mean_treatment']:.{digits}f}{unit} against {row['mean_control']:.{digits}f}{unit}, "
        f"difference {row['difference']:+.{digits}f}{unit}"
    )
    if row["verdict"] == "one training":
        return (
            f"{place} only these trainings of {treatment} and {control} can be compared, by {score}: {values} "
            f"({interval} over patients only; {n}). With fewer than {MIN_SEEDS} seeds this says nothing about the "
            f"methods.{row['note']}"
        )
    numbers = f"{values} ({interval}{p}; {n})"
    if row["separated"]:
        better, worse = (treatment, control) if _gain(row)[0] > 0 else (control, treatment)
        text = f"{place} {better} has a better {score} than {worse}: {treatment} {numbers}."
    else:
        text = f"{place} {treatment} and {control} are not separated in {score}: {numbers}."
    published = row["published_difference"]
    if np.isfinite(published):
        short = _gain(row)[1] < DIRECTION[metric] * published
        reach = "the interval ends short of it" if short else "the interval reaches it"
        text += f" The published difference is {published:+.{digits}f}{unit}; {reach}."
    if row["verdict"] == "not reproduced" and row["margin"] > 0:
        text += f" A gain of {row['margin']:g}{unit} or more is ruled out."
    return text + row["note"]


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
