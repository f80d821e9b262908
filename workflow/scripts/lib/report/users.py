"""The section on interactive methods, and the page of it alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.figures import style
from lib.interactive import GROUPS
from lib.report import tables
from lib.report.figures import figures_of
from lib.report.templates import environment, file_text

USERS_BYTES = 4_000_000  # of the page, for the section's figures
MEAN, PRIMARY, NEEDED = "mean", "dice_auc", "interactions_to_0.90"


def users_section(
    tables_by_name: dict[str, pd.DataFrame], figures: list[Path], config: dict, folder: Path, room: int
) -> dict:
    """What section_users.html needs.

    tables_by_name: those of results/<experiment>/interactive by their stems. figures: PNG files. config: what the
    experiment's `interactive` block comes to: settings, and per dataset its objects. room: bytes for the figures.
    """
    settings = config["settings"]
    interactions, ledger = tables_by_name["interactions"], tables_by_name["ledger"]
    instances = tables_by_name["instances"]
    first = interactions[interactions["robot"] == settings["robots"][0]]
    objects = instances[["dataset", "condition", "case", "structure", "instance"]].drop_duplicates()
    drawn, _ = figures_of(figures, folder, room)
    network = settings.get("network")
    return {
        "budget": settings["interactions"],
        "marks": settings["marks"],
        "robots": settings["robots"],
        "repeats": len(settings["repeats"]),
        "seeds": int(interactions["n_seeds"].max()) if len(interactions) else 0,
        "instances": len(objects),
        "network": network and f"{network['architecture']}, protocol {network['protocol']}",
        "one_training": len((network or {}).get("seeds", [])) == 1 < len(settings["repeats"]),
        "states": {"all": len(ledger)} | {s: int((ledger["state"] == s).sum()) for s in ("ok", "failed", "missing")},
        "troubles": tables.records(ledger[ledger["state"] != "ok"]),
        "searches": tables.records(ledger[ledger["kind"] == "search"]),
        "claims": tables.records(tables_by_name["claims"]),
        "places": [_place(place, first, tables_by_name, config) for place in style.situations(first)],
        "rows": tables.records(interactions),
        "pairs": tables.records(tables_by_name["comparisons"]),
        "figures": drawn,
    }


def build_users_page(
    experiment: str, tables_by_name: dict[str, pd.DataFrame], figures: list[Path], config: dict, folder: Path
) -> str:
    """The section alone, as a self-contained page; the same inputs give the same page."""
    return (
        environment()
        .get_template("users.html")
        .render(
            experiment=experiment,
            css=file_text("report.css"),
            script=file_text("tables.js"),
            users=users_section(tables_by_name, figures, config, folder, USERS_BYTES),
            metric_names=style.METRIC_NAMES,
            failed_policy=config["failed_cells"],
            table_names=[f"{name}.csv" for name in tables_by_name],
        )
    )


def _place(place: tuple[str, str, str], first: pd.DataFrame, tables_by_name: dict, config: dict) -> dict:
    """One dataset × condition under the first user: a row per method, the best rank first."""
    dataset, robot = place[0], config["settings"]["robots"][0]
    found = {(r["method"], r["structure"], r["metric"]): r for r in tables.records(style.at(first, place))}
    curves, seconds = (style.at(tables_by_name[name], place) for name in ("curves", "seconds"))
    curves = curves[curves["robot"] == robot]
    points = {(r["method"], r["structure"], r["interactions"]): r for r in tables.records(curves)}
    machine = seconds[seconds["robot"] == robot].set_index("method")
    budget = config["settings"]["interactions"]
    rows = []
    for (method, structure, metric), row in found.items():
        if (structure, metric) != (MEAN, PRIMARY):
            continue
        groups = [
            {
                "auc": found.get((method, group, PRIMARY)),
                "box": points.get((method, group, 0)),
                "end": points.get((method, group, budget)),
                "needed": found.get((method, group, NEEDED)),
            }
            for group in GROUPS
        ]
        took = {"seconds": machine["median"].get(method), "box_seconds": machine["first"].get(method)}
        rows.append(row | {"auc": row, "groups": groups} | took)
    rows.sort(key=lambda row: (row["rank"] is None, row["rank"], row["method"]))
    return {"title": style.situation_title(place), "rows": rows} | config["objects"][dataset]
