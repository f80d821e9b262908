"""A study: what of an experiment is published, as files and in memory, and how a later run adds to it.

A folder of a study holds its sources, `scores.csv.gz`, `ledger.csv`, `settings.yaml` and what it has of the tables of
MORE; all else in it is derived from these (lib.publishing.derive).
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lib.claims import DIRECTION, OF_SESSIONS
from lib.errors import BadInput
from lib.figures.style import read_table
from lib.files import HOST, atomic, write_table
from lib.interactive.tables import parts_of
from lib.ledger import CELL
from lib.metrics import DISTANCES
from lib.search.found import search_name
from lib.statistics import situations
from lib.statistics.table import COLUMNS, Situation
from lib.status import SCIENTIFIC

SOURCES = ("scores.csv.gz", "ledger.csv", "settings.yaml")
MORE = ("curves", "learning_rates")  # of the learning curves, the validations
# Of the ledger: what happened on the way, and identities that the hashes of code, recipe and data imply.
PRIVATE = (
    "stage", "message", "log", "attempts", "resumed", "resumed_elsewhere", "side_by_side", "identity", "prediction",
    "scoring",
)  # fmt: skip
# Where data and predictions lie is the machine's; names of files may be the hospital's.
OF_A_MACHINE = {
    "datasets": ("source", "files", "layout", "check"),
    "external": ("path", "file", "splits", "labels", "datasets"),
}
RECIPES = (
    "datasets", "conditions", "protocols", "architectures", "losses", "searches", "classical", "few_shot", "external",
)  # fmt: skip
COLUMN = {"datasets": "dataset", "conditions": "condition", "protocols": "protocol", "losses": "loss"}
DIGITS = 5  # significant ones of a score, of which none is measured so well
_KEY = ["dataset", "condition", "protocol", "method", "fold", "seed"]  # of a cell
_CASE = [*CELL, "patient", "case", "structure", "status", "unit"]
_PATH = re.compile(r"(?:^|(?<=[\s\"'=:(,\[`]))(?:/[\w.@+-]+){2,}|\b[A-Za-z]:\\|~/[\w.]|file:/")


@dataclass(frozen=True)
class Study:
    """settings: the experiment's part of the configuration; ledger: a row per cell; scores: as `read_scores` gives;
    more: other tables of cells, by name.
    """

    settings: dict
    ledger: pd.DataFrame
    scores: pd.DataFrame
    more: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def users(self) -> dict:
        """The settings of methods with simulated users; empty where none play."""
        return self.settings.get("interactive") or {}

    @property
    def primary(self) -> str:
        return "dice_auc" if self.users else "dice"

    def parts(self) -> list[Situation]:
        """What the statistics are made of."""
        failed, empty = self.settings["failed_cells"], self.settings["empty_masks"]
        if not self.users:
            return situations(self.scores, failed, empty)
        return parts_of(self.scores, self.users["settings"]["robots"][0], self.users["objects"], failed)


def publishable(
    settings: dict,
    ledger: pd.DataFrame,
    scores: pd.DataFrame,
    commit: str,
    more: dict[str, pd.DataFrame] | None = None,
) -> Study:
    """The study of a run: cells that have ended, without what belongs to the machine, scores to DIGITS digits.

    settings: as the report gets them (rules/common.smk, report_config). commit: what was checked out, for the ledger.
    more: of MORE, those that there are. A cell that an accident ended is none that has ended.
    """
    ended = (ledger["state"] == "ok") | ledger["reason"].isin(SCIENTIFIC)
    ledger = ledger[ended].drop(columns=[*PRIVATE], errors="ignore").assign(commit=commit)
    settings = {
        key: {name: _portable(key, recipe) for name, recipe in value.items()} if key in RECIPES else value
        for key, value in json.loads(json.dumps(settings)).items()
    }
    scores = scores[_among(scores, ledger)]
    more = {name: table[_among(table, ledger)] for name, table in (more or {}).items()}
    if "curves" in more:
        validated = more["curves"].dropna(subset="validation_dice")
        more["curves"] = validated[[*_KEY, "iteration", "validation_dice"]].round({"validation_dice": DIGITS})
    scores = scores[scores["metric"].isin({*DIRECTION} if "robot" not in scores else {*DIRECTION, *OF_SESSIONS})]
    value = pd.to_numeric(scores["value"]).map(lambda number: float(f"{number:.{DIGITS}g}"))
    more = {name: table.reset_index(drop=True) for name, table in more.items() if len(table)}
    return Study(settings, ledger.reset_index(drop=True), scores.assign(value=value).reset_index(drop=True), more)


def _among(table: pd.DataFrame, cells: pd.DataFrame) -> np.ndarray:
    """Which rows of a table are of the cells."""
    return pd.MultiIndex.from_frame(table[_KEY]).isin(pd.MultiIndex.from_frame(cells[_KEY]))


def _portable(kind: str, recipe: dict) -> dict:
    hidden = {*OF_A_MACHINE.get(kind, ()), "checkpoint_minutes"}
    if kind == "datasets" and "simulate" in recipe.get("source", {}):
        hidden.remove("source")  # it is all that the images are made of
    return {key: value for key, value in recipe.items() if key not in hidden}


def read_study(folder: str | Path) -> Study | None:
    """The study of a folder; None where none is published. Raises BadInput where one of its files lacks."""
    folder = Path(folder)
    absent = [name for name in SOURCES if not (folder / name).exists()]
    if len(absent) == len(SOURCES):
        return None
    if absent:
        raise BadInput(f"{folder} lacks {absent[0]}, which its results are made of: restore it, or delete the folder")
    settings = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    more = {name: read_table(folder / f"{name}.csv") for name in MORE if (folder / f"{name}.csv").exists()}
    return Study(settings, read_table(folder / "ledger.csv"), _unpacked(folder / "scores.csv.gz"), more)


def write_study(folder: str | Path, study: Study) -> None:
    """Write the sources of a study; the same study gives the same bytes."""
    folder = Path(folder)
    for name, table in {"ledger": study.ledger, **study.more}.items():
        write_table(folder / f"{name}.csv", table)
    for name in set(MORE) - set(study.more):
        (folder / f"{name}.csv").unlink(missing_ok=True)
    with atomic(folder / "settings.yaml") as temporary:
        text = yaml.safe_dump(study.settings, sort_keys=False, allow_unicode=True, width=120)
        temporary.write_text(text, encoding="utf-8")
    with atomic(folder / "scores.csv.gz") as temporary:
        packed = _packed(study.scores).to_csv(index=False).encode()
        temporary.write_bytes(gzip.compress(packed, compresslevel=9, mtime=0))


def _packed(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, case and structure, one column per metric; `unit` is that of distances."""
    names = [*_CASE, *(["robot"] if "robot" in scores else [])]
    unit = scores["unit"].where(scores["metric"].isin(DISTANCES))
    index = [name for name in names if name not in ("unit", "status")]
    about = scores.assign(unit=unit).groupby(index, sort=False, dropna=False)
    if about[["unit", "status"]].nunique().gt(1).any(axis=None):
        raise AssertionError("a structure of a case has several units or fates, which this table cannot hold")
    wide = scores.set_index([*index, "metric"])["value"].unstack("metric")  # noqa: PD010  (no aggregation)
    return about[["unit", "status"]].first().join(wide[list(dict.fromkeys(scores["metric"]))]).reset_index()


def _unpacked(path: Path) -> pd.DataFrame:
    text = {name: str for name in (*COLUMNS, "robot") if name not in ("fold", "seed", "value")}
    buffer = io.BytesIO(gzip.decompress(path.read_bytes()))
    wide = pd.read_csv(buffer, dtype=text, keep_default_na=False, na_values={metric: [""] for metric in DIRECTION})
    names = [name for name in (*_CASE, "robot") if name in wide]
    long = wide.melt(names, var_name="metric", value_name="value").dropna(subset="value")
    long["unit"] = long["unit"].where(long["metric"].isin(DISTANCES), "")
    return long[[*COLUMNS, *(["robot"] if "robot" in wide else [])]].reset_index(drop=True)


def merge(published: Study | None, run: Study) -> Study:
    """What is published with what a run adds: its cells replace those of the same name, all others stay.

    Claims, datasets, recipes are those of both; of the same name, those of the run. Raises BadInput, naming every
    difference, where cells that would stay were made by another recipe of the same name, or from other data.
    """
    if published is None:
        return run
    stay = published.ledger[~_among(published.ledger, run.ledger)]
    if stay.empty:
        return run
    kept = published.scores[~_among(published.scores, run.ledger)]
    differences = [*_recipes_differ(published, run, stay), *_data_differ(stay, run.ledger), *_cases_differ(kept, run)]
    differences += _precisions_differ(stay, run.ledger)
    if differences:
        listed = "\n".join(f"  {line}" for line in dict.fromkeys(differences))
        raise BadInput(
            f"{len(stay)} published cells are not of this run, and would stand beside cells that were made otherwise:\n"
            f"{listed}\nNothing was changed. Run these cells too ({_span(stay)}), or give what changed another name, "
            "or delete the published folder to start over."
        )
    settings = published.settings | run.settings
    for kind in (*RECIPES, "claims"):
        settings[kind] = published.settings.get(kind, {}) | run.settings.get(kind, {})
    more = {}
    for name in dict.fromkeys((*published.more, *run.more)):
        was = published.more.get(name, pd.DataFrame(columns=_KEY))
        more[name] = _stacked(was[~_among(was, run.ledger)], run.more.get(name, pd.DataFrame()), _KEY)
    scores = _stacked(kept, run.scores, [*_KEY, "case", "structure", "metric"])
    return Study(settings, _stacked(stay, run.ledger, _KEY), scores, more)


def _stacked(stay: pd.DataFrame, new: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Both below each other, methods and datasets in order of appearance, then by fold and seed."""
    table = pd.concat([part for part in (stay, new) if len(part)] or [new], ignore_index=True)
    if table.empty:
        return table
    ranks = {name: {value: n for n, value in enumerate(table[name].drop_duplicates())} for name in order}
    by = pd.DataFrame({n: table[n] if n in ("fold", "seed") else table[n].map(ranks[n]) for n in order})
    return table.loc[by.sort_values(order, kind="stable").index].reset_index(drop=True)


def _recipes_differ(published: Study, run: Study, stay: pd.DataFrame) -> Iterator[str]:
    recipes = published.settings.get("architectures", {})
    searched = {search_name(recipes.get(name, {})) for name in stay.get("architecture", ())}
    for kind in RECIPES:
        column = COLUMN.get(kind, "architecture")
        used = searched if kind == "searches" else set(stay.get(column, ()))
        there, here = published.settings.get(kind, {}), run.settings.get(kind, {})
        for name in (name for name in there if name in used and name in here):
            yield from _different(f"{kind}: {name}", there[name], here[name])
    if published.users and run.users:
        for key in ("settings", "methods", "networks", "protocol", "objects"):
            yield from _different(f"interactive: {key}", published.users[key], run.users[key])


def _different(where: str, there: object, here: object) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys((*there, *here)):
            yield from _different(f"{where}: {key}", there.get(key), here.get(key))
    elif there != here:
        yield f"{where} is {there!r} in what is published, {here!r} here"


def _data_differ(stay: pd.DataFrame, new: pd.DataFrame) -> Iterator[str]:
    """The hash of a fold's training data is one for all methods of a kind."""
    if "data" not in stay or "data" not in new:
        return
    both = pd.concat([stay, new]).dropna(subset="data")
    kind = both["loss"].where(both["loss"].isin(("classical", "few_shot", "external")), "")
    for (dataset, condition, fold, _), rows in both.groupby(["dataset", "condition", "fold", kind], sort=False):
        if len(rows["data"].unique()) > 1:
            yield f"the images or labels of {dataset} ({condition}, fold {fold}) are others (hash of the data)"


def _precisions_differ(stay: pd.DataFrame, new: pd.DataFrame) -> Iterator[str]:
    """What `precision: auto` came to may be another on another machine."""
    if "precision" not in stay or "precision" not in new:
        return
    both = pd.concat([stay, new]).dropna(subset="precision")
    for (protocol, method), rows in both.groupby(["protocol", "method"], sort=False):
        if len(found := rows["precision"].unique()) > 1:
            yield f"protocols: {protocol}: {method} was trained in {found[0]} and in {found[1]}; name one, not auto"


def _cases_differ(kept: pd.DataFrame, run: Study) -> Iterator[str]:
    """A fold tests the same cases and structures for everybody."""
    for what in ("case", "structure"):
        sets = [
            table.groupby(["dataset", "fold"])[what].agg(lambda names: frozenset(names)) for table in (kept, run.scores)
        ]
        for place in sets[0].index.intersection(sets[1].index):
            if sets[0][place] != sets[1][place]:
                others = sorted(sets[0][place] ^ sets[1][place])
                yield f"{place[0]}, fold {place[1]}: other test {what}s, such as {others[0]}"


def _span(cells: pd.DataFrame) -> str:
    folds, seeds, methods = (", ".join(map(str, sorted(cells[key].unique()))) for key in ("fold", "seed", "method"))
    return f"folds {folds}; seeds {seeds}; methods {methods}"


def leaks(text: str) -> list[str]:
    """What in a text belongs to the machine that wrote it: absolute paths, its name."""
    names = [HOST] if len(HOST) > 3 and HOST != "localhost" and re.search(rf"\b{re.escape(HOST)}\b", text) else []
    return [*dict.fromkeys(match.group() for match in _PATH.finditer(text)), *names]
