"""From a mean to its cases: every value of every case as compact data, and the pictures that fit into the page."""

from __future__ import annotations

import json
from itertools import zip_longest

import numpy as np
import pandas as pd
from markupsafe import Markup

from lib.figures import style
from lib.report.tables import shown_metrics

STATUS = {"scored": "s", "missed": "m", "hallucinated": "h", "both_empty": "b", "failed": "f"}
ABSENT = "-"  # no such training, or it did not score this case
DIGITS = 4  # of ratios; lengths have two


def place_values(scores: pd.DataFrame, methods: list[str], units: dict, empty: str, failed: str) -> dict:
    """The scores of one situation: names, and per metric all values in the order structure, method, case, training.

    A value is a whole number, its score times 10^digits, or None where there is none, or where the policies `empty`
    and `failed` of the configuration leave it out of the means. `status` has one letter for each of these places.
    Trainings are seeds, or fold and seed where folds share test cases.
    """
    cases = scores[["case", "patient"]].drop_duplicates().sort_values("case")
    structures = list(scores["structure"].unique())
    runs = scores[["case", "fold", "seed"]].drop_duplicates()
    by_seed = not runs.duplicated(["case", "seed"]).any()
    key = ["seed"] if by_seed else ["fold", "seed"]
    trainings = scores[key].drop_duplicates().sort_values(key).itertuples(index=False, name=None)
    trainings = {training: i for i, training in enumerate(trainings)}
    shape = (len(structures), len(methods), len(cases), len(trainings))
    at = np.ravel_multi_index(
        (
            pd.Index(structures).get_indexer(scores["structure"]),
            pd.Index(methods).get_indexer(scores["method"]),
            pd.Index(cases["case"]).get_indexer(scores["case"]),
            [trainings[t] for t in scores[key].itertuples(index=False, name=None)],
        ),
        shape,
    ) if len(scores) else np.zeros(0, int)  # fmt: skip
    status = np.full(np.prod(shape), ABSENT)
    status[at] = scores["status"].map(STATUS).to_numpy(str)
    left_out = np.zeros(np.prod(shape), bool)
    if failed == "exclude":
        left_out |= status == STATUS["failed"]
    if empty == "exclude":  # absent from the reference, so for every method
        absent = (
            np.isin(status, [STATUS["both_empty"], STATUS["hallucinated"]]).reshape(shape).any((1, 3), keepdims=True)
        )
        left_out |= np.broadcast_to(absent, shape).ravel()
    metrics = []
    for metric in shown_metrics(scores):
        rows = (scores["metric"] == metric).to_numpy()
        digits = 2 if units.get(metric) else DIGITS
        values = np.full(np.prod(shape), np.nan)
        values[at[rows]] = scores["value"].to_numpy(float)[rows]
        values[left_out] = np.nan
        scaled = np.round(values * 10**digits)
        metrics.append(
            {
                "key": metric,
                "name": style.METRIC_NAMES[metric],
                "unit": units.get(metric, ""),
                "digits": digits,
                "lower": metric in style.LOWER,
                "values": [None if np.isnan(v) else int(v) for v in scaled],
            }
        )
    return {
        "methods": methods,
        "cases": cases.to_numpy().tolist(),
        "structures": structures,
        "trainings": [f"seed {t[0]}" if by_seed else f"fold {t[0]}, seed {t[1]}" for t in trainings],
        "metrics": metrics,
        "status": "".join(status),
    }


def fit_values(places: list[dict], room: int) -> list[str]:
    """Take the values of whole metrics out of the places, the last first, until they fit; the names of those taken."""
    taken: list[str] = []
    while len(as_json(places)) > room and any(place["metrics"] for place in places):
        last = max(places, key=lambda place: len(place["metrics"]))["metrics"][-1]["name"]
        for place in places:
            place["metrics"] = [metric for metric in place["metrics"] if metric["name"] != last]
        taken.append(last)
    return taken[::-1]


def fit_pictures(galleries: list[dict], room: int) -> int:
    """Take pictures out of the galleries until they fit, those without a role first; the number of those taken."""
    queues = [sorted(gallery["pictures"], key=lambda shown: not shown["roles"]) for gallery in galleries]
    total, kept, count = 0, [], 0
    for turn in zip_longest(*queues):  # one of each gallery in turn
        for gallery, shown in enumerate(turn):
            if shown is None:
                continue
            total += len(as_json(shown))
            if total > room:
                count += 1
            else:
                kept.append((gallery, id(shown)))
    for number, gallery in enumerate(galleries):
        gallery["pictures"] = [shown for shown in gallery["pictures"] if (number, id(shown)) in set(kept)]
    return count


def as_json(value: object) -> Markup:
    """JSON that can stand in a script element: no text in it can end the element."""
    return Markup(json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"))
