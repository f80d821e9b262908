"""The tables of the interactive track: rounds of all sessions, what they needed, curves, ranking, claims, ledger.

The statistics are those of the grid (lib.statistics): a repeat, with boxes, users and network of its own, is a seed,
and instances are averaged within structures of cases, cases within patients. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from lib.cells import Cell
from lib.figures.style import read_table
from lib.interactive import GROUPS
from lib.interactive.measures import THRESHOLDS, curves, measure
from lib.interactive.play_cell import ROUNDS
from lib.statistics import rank, situations
from lib.statistics.means import estimate_means
from lib.statistics.ranking import PAIRS
from lib.statistics.table import COLUMNS, MEAN, Situation
from lib.status import SCIENTIFIC, cell_state

PRIMARY = "dice_auc"
LEDGER = [
    "dataset", "condition", "protocol", "method", "architecture", "fold", "seed", "kind", "state", "stage", "reason",
    "message", "log", "attempts", "wall_seconds", "settings",
]  # fmt: skip
CASE = ["dataset", "condition", "protocol", "fold", "seed", "robot", "case", "patient", "structure"]
PLACE = [*CASE, "seen", "instance"]
# Columns of an instance and the metrics of scores.csv that they become.
METRICS = {
    "auc": PRIMARY,
    **{f"noi_{100 * t:g}": f"interactions_to_{t:.2f}" for t in THRESHOLDS},
    "last_dice": "dice",
    "last_nsd": "nsd",
}
CURVES = [
    "dataset", "condition", "protocol", "robot", "method", "structure", "interactions", "mean", "low", "high",
    "n_patients", "n_seeds",
]  # fmt: skip
INTERACTIONS = [
    "dataset", "condition", "protocol", "robot", "method", "structure", "metric", "mean", "low", "high", "rank",
    "rank_low", "rank_high", "top_group", "failure_rate", "n_instances", "n_failed", "n_patients", "n_seeds",
    "seeds_enough",
]  # fmt: skip
SECONDS = ["dataset", "condition", "protocol", "robot", "method", "median", "low", "high", "first", "n_rounds"]


# Those of `measured` and the rounds, with their columns where no session has ended.
TABLES = {
    "rounds": ROUNDS,
    "instances": [*PLACE, "slice", "method", "status"],
    "scores": [*COLUMNS, "robot"],
    "interactions": INTERACTIONS,
    "comparisons": PAIRS,
    "curves": CURVES,
    "seconds": SECONDS,
}


def measured(
    rounds: pd.DataFrame, ledger: pd.DataFrame, budget: int, robots: list[str], objects: dict[str, dict], failed: str
) -> dict[str, pd.DataFrame]:
    """TABLES without the rounds, from these. objects: per dataset its structures, {"seen": […], "unseen": […]};
    failed: the policy for failed sessions, `worst` or `exclude`.
    """
    instances = instance_table(rounds, ledger, budget)
    scores = scores_of(instances)
    interactions, comparisons = interaction_table(scores, instances, budget, robots, objects, failed)
    return {
        "instances": instances,
        "scores": scores,
        "interactions": interactions,
        "comparisons": comparisons,
        "curves": curve_table(rounds, instances, budget, robots, objects, failed),
        "seconds": seconds_table(rounds),
    }


def build_ledger(sessions: Iterable[Cell], others: Iterable[Cell], protocol: str) -> pd.DataFrame:
    """One row per session, then per training and search, whatever became of it; `kind` says which it is."""
    rows = []
    for cells, kind in ((sessions, "session"), (others, "")):
        for cell in cells:
            state = cell_state(cell.folder, cell.stages)
            used = state.get("result", {}).get("settings")
            rows.append(
                cell.columns()
                | {key: state.get(key) for key in LEDGER if key in state}
                | {
                    "protocol": protocol,
                    "method": cell.architecture,
                    "kind": kind or ("search" if cell.loss.endswith("search") else "network"),
                    "settings": used and ", ".join(f"{k} {v}" for k, v in used.items() if k != "name"),
                }
            )
    return pd.DataFrame(rows, columns=LEDGER)


def gather_rounds(sessions: Iterable[Cell]) -> pd.DataFrame:
    """rounds.csv of all sessions that have ended well, below each other."""
    ended = [cell.folder for cell in sessions if cell_state(cell.folder, cell.stages)["state"] == "ok"]
    tables = [read_table(folder / "session/rounds.csv") for folder in ended]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def instance_table(rounds: pd.DataFrame, ledger: pd.DataFrame, budget: int) -> pd.DataFrame:
    """One row per instance, robot, repeat and method: `measures.measure`, last_dice, last_nsd and status.

    A session that failed for a scientific reason counts as one that never reached anything, at the instances that
    any method played in any repeat of its fold, as these depend on the reference alone; sessions that met an accident
    have no rows. status: scored or failed.
    """
    table = measure(rounds, budget)
    for metric in ("dice", "nsd"):
        last = curves(rounds, budget, metric)[budget].rename(f"last_{metric}")
        table = table.merge(last.reset_index(), how="left")
    table = table.assign(status="scored")
    failed = ledger[(ledger["kind"] == "session") & (ledger["state"] == "failed") & ledger["reason"].isin(SCIENTIFIC)]
    worst = {column: budget if column.startswith("noi_") else 0.0 for column in METRICS}
    worst |= {c: 0.0 for c in table if c.startswith("dice_")} | {c: True for c in table if c.startswith("failed_")}
    known = table[[*PLACE, "slice"]].drop(columns="seed").drop_duplicates()
    tables = [table]
    for row in failed.itertuples():
        here = (known[["dataset", "condition", "fold"]] == [row.dataset, row.condition, row.fold]).all(axis=1)
        about = {"seed": row.seed, "method": row.method, "status": "failed", "interactions": budget}
        tables.append(known[here].assign(**about, **worst))
    return pd.concat([t for t in tables if len(t)], ignore_index=True)


def scores_of(instances: pd.DataFrame) -> pd.DataFrame:
    """A table like scores.csv of the grid, with the column robot: means over the instances of a case and structure."""
    keys = [*CASE, "method", "status"]
    means = instances.groupby(keys, dropna=False, sort=True)[list(METRICS)].mean().rename(columns=METRICS)
    long = means.reset_index().melt(keys, var_name="metric", value_name="value")
    return long.assign(architecture=long["method"], loss="interactive", unit="")[[*COLUMNS, "robot"]]


def with_groups(part: Situation, objects: dict[str, dict]) -> Situation:
    """The situation with `seen` and `unseen` as further structures: the means over those of its dataset."""
    scores, counts, names = [part.scores], {key: [value] for key, value in part.counts.items()}, []
    for group in GROUPS:
        rows = [part.structures.index(s) for s in objects[part.name["dataset"]][group] if s in part.structures]
        if not rows:
            continue
        members = part.scores[:, rows]
        known = ~np.isnan(members)
        with np.errstate(invalid="ignore"):
            scores.append((np.nan_to_num(members).sum(1) / known.sum(1))[:, None])
        for key, value in part.counts.items():
            over = value[:, rows].max(1) if key == "n_cases" else value[:, rows].sum(1)
            counts[key].append(over[:, None])
        names.append(group)
    return replace(
        part,
        structures=[*part.structures, *names],
        scores=np.concatenate(scores, axis=1),
        counts={key: np.concatenate(values, axis=1) for key, values in counts.items()},
    )


def parts_of(scores: pd.DataFrame, robot: str, objects: dict[str, dict], failed: str) -> list[Situation]:
    """The situations in which one robot played, with the groups of structures."""
    here = scores[scores["robot"] == robot].drop(columns="robot")
    return [with_groups(part, objects) for part in situations(here, failed)]


def interaction_table(
    scores: pd.DataFrame,
    instances: pd.DataFrame,
    budget: int,
    robots: list[str],
    objects: dict[str, dict],
    failed: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What every method needed, per robot, structure (`mean` over all, `seen`, `unseen`) and metric, with 95 %
    intervals and ranks; failure_rate is the share of instances that never reach the Dice of the metric. Second, all
    pairs of methods under the first robot by `dice_auc` (`comparisons`).
    """
    tables, pairs = [], pd.DataFrame()
    for number, robot in enumerate(robots):
        ranking, compared = rank(parts_of(scores, robot, objects, failed), PRIMARY)
        tables.append(ranking.assign(robot=robot))
        pairs = pairs if number else compared
    table = pd.concat(tables, ignore_index=True)
    counts = table["metric"].str.startswith("interactions_to")
    table.loc[counts, "high"] = table.loc[counts, "high"].clip(upper=budget)
    kept = instances[instances["status"] != "failed"] if failed == "exclude" else instances
    rates = _failure_rates(kept, objects)
    table = table.drop(columns="n_failed").merge(rates, how="left")
    return table[INTERACTIONS], pairs


def _failure_rates(instances: pd.DataFrame, objects: dict[str, dict]) -> pd.DataFrame:
    """failure_rate, n_failed and n_instances per situation, robot, method, structure and metric interactions_to_…"""
    parts = [instances, instances.assign(structure=MEAN)]
    parts.append(instances.assign(structure=np.where(instances["seen"].astype(bool), *GROUPS)))
    keys = ["dataset", "condition", "protocol", "robot", "method", "structure"]
    tables = []
    for threshold in THRESHOLDS:
        grouped = pd.concat(parts).groupby(keys)[f"failed_{100 * threshold:g}"]
        counts = grouped.agg(n_failed="sum", n_instances="count").astype(int).reset_index()
        tables.append(counts.assign(metric=f"interactions_to_{threshold:.2f}"))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(failure_rate=table["n_failed"] / table["n_instances"])


def curve_table(
    rounds: pd.DataFrame,
    instances: pd.DataFrame,
    budget: int,
    robots: list[str],
    objects: dict[str, dict],
    failed: str,
) -> pd.DataFrame:
    """Mean Dice with its 95 % interval after 0, 1, …, `budget` interactions; the last value of a session holds on."""
    dice = curves(rounds, budget).reset_index().assign(status="scored")
    lost = instances[instances["status"] == "failed"].reindex(columns=dice.columns, fill_value=0.0)
    dice = pd.concat([t for t in (dice, lost) if len(t)], ignore_index=True)
    keys = [*CASE, "method", "status"]
    means = dice.groupby(keys, dropna=False)[list(range(budget + 1))].mean().reset_index()
    rows = []
    for made in range(budget + 1):
        scores = means[keys].assign(
            metric="dice", value=means[made], architecture=means["method"], loss="interactive", unit=""
        )
        for robot in robots:
            for part in parts_of(scores[[*COLUMNS, "robot"]], robot, objects, failed):
                rows += _means(part, {"robot": robot, "interactions": made})
    return pd.DataFrame(rows, columns=CURVES)


def _means(part: Situation, about: dict) -> list[dict]:
    rows = []
    for i, structure in enumerate(part.structures):
        each = estimate_means(part.scores[0, i], part.folds)
        half = each.half_widths(0.95)
        for m, method in enumerate(part.methods["method"]):
            limits = np.clip([each.mean[m] - half[m], each.mean[m] + half[m]], 0, 1)
            rows.append(
                part.name
                | about
                | {
                    "method": method,
                    "structure": structure,
                    "mean": each.mean[m],
                    "low": limits[0],
                    "high": limits[1],
                    "n_patients": int(each.n_patients[m]),
                    "n_seeds": int(each.n_seeds[m]),
                }
            )
    return rows


def seconds_table(rounds: pd.DataFrame) -> pd.DataFrame:
    """Machine seconds per answer to a mark: median, 5th and 95th percentile; `first`: median until the box is answered.

    Medians, because other work on the machine makes some answers slow.
    """
    keys = ["dataset", "condition", "protocol", "robot", "method"]
    answers = rounds[rounds["interactions"] > 0].groupby(keys, sort=False)["seconds"]
    boxes = rounds[rounds["interactions"] == 0].groupby(keys, sort=False)["seconds"]
    columns = {"median": 0.5, "low": 0.05, "high": 0.95}
    table = pd.DataFrame({name: answers.quantile(q) for name, q in columns.items()})
    return table.assign(first=boxes.median(), n_rounds=answers.size()).reset_index()[SECONDS]
