"""Two results side by side: which cells changed, whether by more than another seed would change them, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.errors import BadInput
from lib.ledger import CELL
from lib.statistics import read_scores, situations
from lib.statistics.means import estimate_means, holm
from lib.statistics.ranking import differences
from lib.statistics.table import MEAN, SITUATION, kept

PRIMARY = "dice"
LEVEL = 0.95
ROUNDING = 1e-9
# What the ledger knows of a cell's making, and the word for it when it differs.
CAUSES = {
    "data": "data",
    "recipe": "configuration",
    "code": "code of the training",
    "prediction": "prediction",
    "scoring": "scoring",
    "software": "versions",
    "hardware": "hardware",
    "device": "device",
    "threads": "threads",
    "precision": "precision",
}
CELLS = [
    *CELL, "state_old", "state_new", "score_old", "score_new", "difference", "seed_sd", "beyond_seeds", "why",
]  # fmt: skip
METHODS = [
    *SITUATION, "method", "score_old", "score_new", "difference", "low", "high", "p", "p_holm", "separated",
    "n_patients", "n_seeds", "cells", "cells_changed",
]  # fmt: skip


@dataclass(frozen=True)
class Results:
    """What a folder results/<experiment> says of its cells."""

    ledger: pd.DataFrame
    scores: pd.DataFrame


def read_results(folder: str | Path) -> Results:
    """Read ledger.csv and scores.csv of a results folder; raises BadInput where one of them is missing."""
    folder = Path(folder)
    for name in ("ledger.csv", "scores.csv"):
        if not (folder / name).is_file():
            raise BadInput(f"{folder / name} is missing; name the folder of an experiment, as in results/demo.")
    ledger = pd.read_csv(folder / "ledger.csv", dtype=dict.fromkeys(CAUSES, str), keep_default_na=False, na_values=[])
    return Results(ledger, read_scores(folder / "scores.csv"))


def compare_results(
    old: Results, new: Results, failed: str = "worst", empty: str = "penalise"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells of both results that differ, and the paired difference new - old of every method that both have.

    A cell differs when its state or any of its scores does, or when only one result has it. Its `difference` of the
    Dice (mean over structures and patients) is `beyond_seeds` when two seeds of that method would differ so much in
    less than 5 % of pairs, by the standard deviation between the seeds of one fold in both results; undefined with one
    seed. Methods are `separated` by the test that the ranking uses, Holm over all methods. `failed`, `empty`: the
    policies of lib.statistics.situations.
    """
    changed = _changed_scores(old.scores, new.scores)
    table = _states(old).join(_states(new), how="outer", suffixes=("_old", "_new"))
    table = table.join(_cell_means(old, failed, empty).rename("score_old"))
    table = table.join(_cell_means(new, failed, empty).rename("score_new"))
    for side in ("old", "new"):
        table[f"state_{side}"] = table[f"state_{side}"].fillna("not asked for")
    table["difference"] = table["score_new"] - table["score_old"]
    table["changed"] = (table["state_old"] != table["state_new"]) | table.index.isin(changed)
    table = table.join(_seed_spread(table), on=[*SITUATION, "method"])
    known = table["difference"].notna() & table["threshold"].notna()
    table["beyond_seeds"] = (table["difference"].abs() > table["threshold"]).astype("boolean").where(known)
    table["why"] = [_why(row) if row["changed"] else "" for _, row in table.iterrows()]
    methods = _methods(old, new, failed, empty)
    counts = table.groupby([*SITUATION, "method"])["changed"].agg(["size", "sum"])
    counts = counts.set_axis(["cells", "cells_changed"], axis=1).reset_index()
    cells = table[table["changed"]].reset_index()
    return cells[CELLS], methods.merge(counts, on=[*SITUATION, "method"], how="left")[METHODS]


def describe(cells: pd.DataFrame, methods: pd.DataFrame) -> str:
    """What changed, in a few lines for a terminal."""
    if cells.empty:
        return f"No difference: {methods['cells'].sum()} cells with the same states and scores."
    lines = [f"{len(cells)} cells differ, {cells['beyond_seeds'].sum()} by more than another seed would change them."]
    lines += [f"  {count} x {why}" for why, count in cells["why"].value_counts().items()]
    for row in methods.itertuples():
        if row.cells_changed:
            interval = f" [{row.low:+.3f}, {row.high:+.3f}]" if np.isfinite(row.low) else ""
            verdict = "separated" if row.separated else "not separated"
            lines.append(
                f"{row.dataset} {row.condition} {row.method}: {row.score_old:.3f} -> {row.score_new:.3f}, "
                f"{row.difference:+.3f}{interval}, {verdict}; {row.cells_changed} of {row.cells} cells changed"
            )
    return "\n".join(lines)


def _states(results: Results) -> pd.DataFrame:
    """State and causes per cell; a column that an older ledger lacks is empty."""
    table = results.ledger.reindex(columns=[*CELL, "state", *CAUSES], fill_value="")
    return table.set_index(list(CELL)).sort_index()


def _changed_scores(old: pd.DataFrame, new: pd.DataFrame) -> pd.MultiIndex:
    """Cells of which any status, or any score by more than rounding, is not the same on both sides."""
    key = [*CELL, "patient", "case", "structure", "metric"]
    both = old.set_index(key)[["value", "status"]].join(
        new.set_index(key)[["value", "status"]], how="outer", suffixes=("_old", "_new")
    )
    close = np.isclose(both["value_old"], both["value_new"], rtol=ROUNDING, atol=ROUNDING)
    same = close & (both["status_old"] == both["status_new"])
    return both[~same].index.droplevel(["patient", "case", "structure", "metric"]).unique()


def _cell_means(results: Results, failed: str, empty: str) -> pd.Series:
    """Mean Dice per cell: over structures, then cases, then patients, under the policies."""
    rows = results.scores[results.scores["metric"] == PRIMARY]
    rows = rows[kept(rows, failed, empty)]
    cases = rows.groupby([*CELL, "patient", "case"])["value"].mean()
    return cases.groupby([*CELL, "patient"]).mean().groupby(list(CELL)).mean()


def _seed_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Per method: SD between the seeds of a fold, pooled over folds and results, and the change that it allows."""
    from scipy.stats import t

    scores = pd.concat({side: table[f"score_{side}"].dropna() for side in ("old", "new")}, names=["side"])
    group = scores.groupby(["side", *[c for c in CELL if c != "seed"]])
    parts = pd.DataFrame({"squares": group.var(ddof=0) * group.size(), "df": group.size() - 1})
    pooled = parts.groupby([*SITUATION, "method"]).sum()
    df = pooled["df"].where(pooled["df"] > 0)
    sd = np.sqrt(pooled["squares"] / df)
    return pd.DataFrame({"seed_sd": sd, "threshold": t.ppf((1 + LEVEL) / 2, df) * np.sqrt(2) * sd})


def _why(row: pd.Series) -> str:
    if "not asked for" in (row["state_old"], row["state_new"]):
        return "only in the " + ("new" if row["state_old"] == "not asked for" else "old")
    if "missing" in (row["state_old"], row["state_new"]):
        return "missing in the " + ("old" if row["state_old"] == "missing" else "new")
    # An older ledger may not record everything.
    pairs = {key: (row[f"{key}_old"], row[f"{key}_new"]) for key in CAUSES}
    causes = [_cause(key, *pair) for key, pair in pairs.items() if all(pair) and pair[0] != pair[1]]
    return "; ".join(filter(None, causes)) or "nothing that both ledgers record"


def _cause(key: str, old: str, new: str) -> str:
    if key != "software":
        return CAUSES[key] if len(old) == 64 else f"{CAUSES[key]}: {old} -> {new}"
    was, now = (dict(entry.split(" ", 1) for entry in side.split(", ") if " " in entry) for side in (old, new))
    changed = [f"{name} {was[name]} -> {now[name]}" for name in was.keys() & now.keys() if was[name] != now[name]]
    return f"versions: {', '.join(sorted(changed))}" if changed else ""


def _methods(old: Results, new: Results, failed: str, empty: str) -> pd.DataFrame:
    """Both results as if they were two methods, tested on their common patients and seeds."""
    sides = [
        results.scores.assign(method=side + results.scores["method"])
        for side, results in zip(("old ", "new "), (old, new), strict=True)
    ]
    rows = []
    for part in situations(pd.concat(sides, ignore_index=True), failed, empty):
        if PRIMARY not in part.metrics:
            continue
        names = part.methods["method"]
        both = [name[4:] for name in names if name.startswith("old ") and "new " + name[4:] in set(names)]
        values = part.scores[part.metrics.index(PRIMARY), part.structures.index(MEAN)]
        for method in both:
            pair = values[[part.index(f"new {method}"), part.index(f"old {method}")]]
            pair = np.where(np.isnan(pair).any(0), np.nan, pair)
            change = differences(pair, np.array([0]), np.array([1]), part.folds)
            half = change.half_widths(LEVEL)[0]
            new_mean, old_mean = estimate_means(pair, part.folds).mean
            rows.append(
                part.name
                | {
                    "method": method,
                    "score_old": old_mean,
                    "score_new": new_mean,
                    "difference": change.mean[0],
                    "low": change.mean[0] - half,
                    "high": change.mean[0] + half,
                    "p": change.p_values()[0],
                    "seeds_enough": bool(change.seeds_enough[0]),
                    "n_patients": int(change.n_patients[0]),
                    "n_seeds": int(change.n_seeds[0]),
                }
            )
    if not rows:
        return pd.DataFrame(columns=[c for c in METHODS if c not in ("cells", "cells_changed")])
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["separated"] = (table["p_holm"] <= 1 - LEVEL) & table["seeds_enough"]
    return table
