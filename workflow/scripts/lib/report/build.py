"""From tables to the page: what the template needs, as plain lists and dicts, and the page itself.

The wording obeys one rule: nothing here says that a method surpasses another. Methods are *separated* or *not
separated*; the claims' own sentences come from lib.statistics.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pandas as pd
import yaml
from markupsafe import Markup, escape

from lib.figures import style
from lib.report.templates import environment, file_text

LOG_LINES = 20
RANKING_METRICS = ("dice", "nsd", "hd95", "assd", "iou")
DESCRIBING_METRICS = ("precision", "recall", "rvd")
SHOWN_METRICS = ("dice", "nsd", "hd95")  # the others wait behind a tick box
VERDICTS = ("reproduced", "smaller", "not reproduced", "inconclusive", "one training", "missing")

CAPTIONS = {  # stem of the file, up to "_" where a data set follows: title, how to read it
    "heatmap": (
        "Mean Dice of every architecture × loss",
        "Each cell gives the mean over patients and seeds, its 95 % interval, and the number of patients × seeds. "
        "Darker is higher. A frame with a dot marks the top group, the methods that these data do not separate from "
        "the highest mean; it appears only from three seeds on. Hatching marks failed cells, dots missing ones; blank "
        "combinations were not asked for. Neighbouring means with overlapping intervals are not a ranking.",
    ),
    "distributions": (
        "All cases, per structure",
        "A point is one test case under one seed. The box spans the middle half of the points, its bar is the median, "
        "the whiskers reach the 5th and 95th percentile, and the diamond is the mean. A cross at 0 is a case in which "
        "the structure was missed, and it counts in the mean. Cases of failed cells are counted but not drawn.",
    ),
    "claims": (
        "Published against measured",
        "A dot with its 95 % interval is the difference measured here, treatment minus control; a diamond is the one "
        "the paper published. A hollow dot is undecided: the interval allows both directions, or there were too few "
        "seeds. A diamond outside the interval means that the published size was not met under this budget.",
    ),
    "curves": (
        "Learning curves",
        "Thin lines are single trainings, thick lines their mean. Training losses of different loss functions have "
        "different scales, so each has its own panel; validation Dice shares one axis, with the methods of the other "
        "panels in grey. A validation curve that still rises at its end says that the budget was short.",
    ),
    "montage": (
        "Best, median and worst case",
        "Cases are chosen by their mean Dice over all methods, not by the eye. All panels of a case show the same "
        "slice and grey-value window; the slice is chosen from the reference alone. Contours run just inside the "
        "border of each structure. Axial and coronal slices show the patient's right on the left. Dice is that of the "
        "whole case, as the mean over structures.",
    ),
}


def build_report(
    *,
    experiment: str,
    ledger: pd.DataFrame,
    scores: pd.DataFrame,
    ranking: pd.DataFrame,
    comparisons: pd.DataFrame,
    claims: pd.DataFrame,
    checks: list[dict],
    certificates: list[dict],
    noise: dict[str, list[dict]],
    figures: list[Path],
    config: dict,
    provenance: dict,
    folder: Path,
) -> str:
    """The report of one experiment as a self-contained HTML page.

    The tables are those of results/<experiment>/; any may be empty. checks: contents of the datasets' check.json;
    certificates: of their certificate.json. noise: per dataset, what its conditions changed, as `noise_of` says.
    figures: PNG files, in order; a PDF beside one is linked. config: the configuration that was run. provenance: any
    nested dict of what made the results. folder: where the page will lie, for links to the PDFs. Log files named in
    the ledger are read relative to the working directory. The same inputs give the same page.
    """
    places = style.situations(ledger)
    units = scores.dropna(subset="unit").drop_duplicates("metric").set_index("metric")["unit"].to_dict()
    pages = environment()
    pages.filters |= {"number": _number, "signed": _signed, "p": _p, "count": _count, "seconds": _seconds}
    pages.filters["breakable"] = _breakable
    return pages.get_template("report.html").render(
        experiment=experiment,
        css=file_text("report.css"),
        script=file_text("report.js"),
        states=_states(ledger),
        metric_names=style.METRIC_NAMES,
        places=[_place(place, ledger, ranking, comparisons, units, len(places) > 1) for place in places],
        simulated=[name for name in _datasets(ledger) if _is_simulated(config, name)],
        stand_ins=config.get("experiment", {}).get("stand_ins", {}),
        claims=_records(claims),
        verdicts=[(verdict, n) for verdict in VERDICTS if (n := int((claims["verdict"] == verdict).sum()))],
        figures=[_figure(Path(path), folder) for path in figures],
        troubles=[_cell(row) for state in ("failed", "missing") for row in _records(ledger[ledger["state"] == state])],
        finished=_records(ledger[ledger["state"] == "ok"]),
        costs=_costs(ledger),
        pretrained={
            entry: ", ".join(files)
            for entry, recipe in config.get("architectures", {}).items()
            if (files := _weights_of(recipe))
        },
        data=[
            _dataset(check, config) | {"certificate": certificate["sentence"], "noise": noise[check["dataset"]]}
            for check, certificate in zip(checks, certificates, strict=True)
        ],
        protocols={p: config.get("protocols", {}).get(p, {}) for p in ledger["protocol"].unique()},
        tolerances={name: config.get("datasets", {}).get(name, {}).get("tolerance_mm") for name in _datasets(ledger)},
        failed_policy=config.get("failed_cells", "worst"),
        empty_policy=config.get("empty_masks", "penalise"),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
        provenance=provenance,
        sources=list(dict.fromkeys(claims["source"].dropna())),
    )


def _records(table: pd.DataFrame) -> list[dict]:
    """Rows as dicts with None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _datasets(ledger: pd.DataFrame) -> list[str]:
    return list(ledger["dataset"].unique())


def _is_simulated(config: dict, dataset: str) -> bool:
    return "simulate" in config.get("datasets", {}).get(dataset, {}).get("source", {})


def _states(ledger: pd.DataFrame) -> dict[str, int]:
    return {state: int((ledger["state"] == state).sum()) for state in ("ok", "failed", "missing")} | {
        "all": len(ledger)
    }


def _place(
    place: tuple[str, str, str],
    ledger: pd.DataFrame,
    ranking: pd.DataFrame,
    comparisons: pd.DataFrame,
    units: dict,
    several: bool,
) -> dict:
    """One dataset × condition × protocol: its answer, its score table and its pairs."""
    cells, table = style.at(ledger, place), style.at(ranking, place)
    primary = table[(table["structure"] == "mean") & (table["metric"] == style.PRIMARY)]
    primary = primary.sort_values(["rank", "method"], kind="stable")  # methods without all patients have no rank
    unranked = [m for m in cells["method"].unique() if m not in set(primary["method"])]
    pairs = style.at(comparisons, place)
    enough = bool(primary["seeds_enough"].astype(bool).any())
    answer = _records(primary)
    for row in answer:
        row["top_group"] = enough and bool(row["top_group"])
    columns = _columns(table, units)
    ranked = [row for row in answer if row["rank"] is not None]
    return {
        "title": style.situation_title(place),
        "several": several,
        "id": "-".join(place),
        "dataset": place[0],
        "protocol": place[2],
        "answer": answer,
        "axis": _axis(primary),
        "ranked": len(ranked),
        "not_ranked": [row for row in answer if row["rank"] is None],
        "few_seeds": [row["method"] for row in ranked if enough and not row["seeds_enough"]],
        "top": [row["method"] for row in answer if row["top_group"]],
        "enough": enough,
        "patients": int(primary["n_patients"].max()) if len(primary) else 0,
        "seeds": int(primary["n_seeds"].min()) if len(primary) else 0,
        "uneven": len(primary[["n_patients", "n_seeds"]].drop_duplicates()) > 1,
        "unranked": [{"method": m, "states": _states(cells[cells["method"] == m])} for m in unranked],
        "columns": columns,
        "rows": _rows(answer, columns, table, cells),
        "pairs": _records(pairs),
        "separated": int(pairs["separated"].astype(bool).sum()) if len(pairs) else 0,
    }


def _axis(primary: pd.DataFrame) -> dict:
    """Range of the small interval plot: tenths around all intervals, within the range of the metric."""
    if primary.empty:
        return {"low": 0.0, "high": 1.0}
    low, high = primary[["low", "mean"]].min().min(), primary[["high", "mean"]].max().max()
    low, high = int(low * 20) / 20, min(1.0, int(high * 20 + 1) / 20)
    return {"low": low, "high": high if high > low else low + 0.05}


def _columns(table: pd.DataFrame, units: dict) -> list[dict]:
    """Score columns: the mean over structures first, then each structure, every metric in a fixed order."""
    structures = ["mean", *(s for s in table["structure"].unique() if s != "mean")]
    metrics = [m for m in (*RANKING_METRICS, *DESCRIBING_METRICS) if m in set(table["metric"])]
    return [
        {
            "structure": structure,
            "metric": metric,
            "name": style.METRIC_NAMES[metric],
            "unit": units.get(metric, ""),
            "shown": structure == "mean" and metric in SHOWN_METRICS,
            "structure_shown": structure == "mean",
            "metric_shown": metric in SHOWN_METRICS,
            "first": "ascending" if metric in style.LOWER else "descending",
        }
        for structure in structures
        for metric in metrics
    ]


def _rows(answer: list[dict], columns: list[dict], table: pd.DataFrame, cells: pd.DataFrame) -> list[dict]:
    """Rows of the score table: a method's primary row, its value in each column (None without), its cells by state."""
    found = {(row["method"], row["structure"], row["metric"]): row for row in _records(table)}
    return [
        row
        | {
            "values": [found.get((row["method"], column["structure"], column["metric"])) for column in columns],
            "cells": _states(cells[cells["method"] == row["method"]]),
        }
        for row in answer
    ]


def _cell(row: dict) -> dict:
    return row | {"excerpt": _tail(row["log"])}


def _tail(log: str | None) -> str | None:
    """The last lines of a log file; None without one."""
    if not log or not Path(log).is_file():
        return None
    with Path(log).open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 64_000))
        lines = file.read().decode(errors="replace").splitlines()
    # A progress bar rewrites its line with carriage returns; splitlines has made lines of them, the last one counts.
    return "\n".join(lines[-LOG_LINES:])


def _costs(ledger: pd.DataFrame) -> list[dict]:
    """Cost per dataset × condition × protocol × method, over the cells that finished."""
    done = ledger[ledger["state"] == "ok"]
    rows = []
    for (dataset, condition, _, method), cells in done.groupby(
        ["dataset", "condition", "protocol", "method"], sort=False
    ):
        rows.append(
            {
                "dataset": dataset,
                "condition": condition,
                "method": method,
                "cells": len(cells),
                "parameters": cells["parameters"].max(),
                "flops": cells["flops"].max(),
                "wall_seconds": cells["wall_seconds"].median(),
                "total_hours": cells["wall_seconds"].sum(min_count=1) / 3600,
                "gpu_hours": cells["gpu_hours"].sum(min_count=1),
                "peak_memory_mb": cells["peak_memory_mb"].max(),
                "energy_kwh": cells["energy_kwh"].sum(min_count=1),
                "samples_per_second": cells["samples_per_second"].median(),
                "device": _listed(cells["device"]),
                "threads": _listed(cells["threads"].astype("Int64")),
                "precision": _listed(cells["precision"]),
                "resumed": int(cells["resumed"].fillna(0).sum()),
                "elsewhere": int(cells["resumed_elsewhere"].fillna(False).astype(bool).sum()),
            }
        )
    return rows


def _weights_of(recipe: dict) -> list[str]:
    """Files that an architecture, or one inside it, starts from."""
    inner = [file for part in recipe.values() if isinstance(part, dict) for file in _weights_of(part)]
    return ([recipe["weights"]] if recipe.get("weights") else []) + inner


def _listed(values: pd.Series) -> str:
    return ", ".join(str(v) for v in values.dropna().unique() if v != "")


def _dataset(check: dict, config: dict) -> dict:
    """What the report says about the images of one dataset."""
    cases = check["cases"]
    entry = config.get("datasets", {}).get(check["dataset"], {})
    shapes = sorted({" × ".join(str(n) for n in case["shape"]) for case in cases})
    spacings = sorted({" × ".join(f"{s:g}" for s in case["spacing"]) for case in cases})
    voxels = {}
    for name, labels in entry.get("structures", {}).items():
        values = [str(v) for v in (labels if isinstance(labels, list) else [labels])]
        voxels[name] = sum(case["labels"].get(v, 0) for case in cases for v in values)
    foreground = sum(voxels.values())
    return {
        "name": check["dataset"],
        "simulated": _is_simulated(config, check["dataset"]),
        "cases": len(cases),
        "patients": len({case["patient"] for case in cases}),
        "shapes": shapes,
        "spacings": spacings,
        "shares": {name: n / foreground for name, n in voxels.items()} if foreground else {},
        "warnings": check["warnings"],
        "dropped": check["dropped"],
        "groups": len(set(check["groups"].values())),
        "hash": check["data_hash"],
        "licence": entry.get("licence", ""),
        "cite": entry.get("cite", ""),
    }


def noise_of(stores: list[dict]) -> list[dict]:
    """Per condition that changes a dataset: the settings, and the means over cases of what was measured.

    stores: contents of the store.json of each condition, one per condition.
    """
    result = []
    for store in stores:
        measured: dict[str, list[float]] = {}
        for entry in store["cases"].values():
            for part, record in entry.get("noise", {}).items():
                for name, value in record.items():
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        measured.setdefault(f"{part}: {name}", []).append(value)
        if store["condition_settings"]:
            means = {name: sum(values) / len(values) for name, values in measured.items()}
            result.append({"name": store["condition"], "settings": store["condition_settings"], "measured": means})
    return result


def _figure(path: Path, folder: Path) -> dict:
    kind, _, rest = path.stem.partition("_")
    title, caption = CAPTIONS.get(kind, (path.stem.replace("_", " "), ""))
    pdf = path.with_suffix(".pdf")
    return {
        "id": path.stem,
        "title": f"{title}: {rest}" if rest else title,
        "caption": caption,
        "data": base64.b64encode(path.read_bytes()).decode(),
        "pdf": Path(os.path.relpath(pdf, folder)).as_posix() if pdf.exists() else None,
    }


def _breakable(name: str) -> Markup:
    """A name that may break after its underscores and before its plus."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("+", "<wbr>+"))


def _missing(value: object) -> bool:
    return value is None or bool(pd.isna(value))


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if _missing(value) else f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float | None, digits: int = 3) -> str:
    return "–" if _missing(value) else style.signed(value, digits)


def _p(value: float | None) -> str:
    return "–" if _missing(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float | None) -> str:
    """A whole number with thin spaces, or with M, G, T from a million on."""
    if _missing(value):
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{int(value):,}".replace(",", "\u2009")


def _seconds(value: float | None) -> str:
    if _missing(value):
        return "–"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
