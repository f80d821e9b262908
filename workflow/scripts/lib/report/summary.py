"""What one screen says: what was compared on what, who stands at the top, what is missing, what to beware of."""

from __future__ import annotations

import pandas as pd

from lib.budget import BUDGETS
from lib.cells import OUTSIDE_GRID, TRAINED
from lib.figures import style
from lib.report.tables import records

VERDICTS = ("reproduced", "smaller", "not reproduced", "inconclusive", "one training", "missing")
FEW_PATIENTS = 20
EXTERNAL = "external"  # the loss of a method that was trained elsewhere


def states(ledger: pd.DataFrame) -> dict[str, int]:
    """How many cells there are in each state."""
    counts = {state: int((ledger["state"] == state).sum()) for state in ("ok", "failed", "missing")}
    return counts | {"all": len(ledger)}


def compared(ledger: pd.DataFrame, checks: list[dict]) -> dict:
    """What the experiment set out to compare, counted in the ledger and in the data."""
    grid = of_grid(ledger)
    return {
        "methods": ledger["method"].nunique(),
        "architectures": grid["architecture"].nunique(),
        "losses": grid["loss"].nunique(),
        "external": external_methods(ledger),
        "classical": of_kind(ledger, "classical"),
        "few_shot": of_kind(ledger, "few_shot"),
        "data": [
            {
                "name": check["dataset"],
                "cases": len(check["cases"]),
                "patients": len({case["patient"] for case in check["cases"]}),
            }
            for check in checks
        ],
        "conditions": list(ledger["condition"].unique()),
        "protocols": list(ledger.loc[~ledger["loss"].isin(set(OUTSIDE_GRID) - set(TRAINED)), "protocol"].unique()),
        "folds": ledger["fold"].nunique(),
        "seeds": ledger["seed"].nunique(),
    }


def of_grid(ledger: pd.DataFrame) -> pd.DataFrame:
    """The cells whose method is an architecture with a loss."""
    return ledger[~ledger["loss"].isin(OUTSIDE_GRID)]


def of_kind(ledger: pd.DataFrame, kind: str) -> list[str]:
    """The methods of a kind outside the grid."""
    return list(ledger.loc[ledger["loss"] == kind, "method"].unique())


def external_methods(ledger: pd.DataFrame) -> list[str]:
    return of_kind(ledger, EXTERNAL)


def unverified_methods(ledger: pd.DataFrame) -> list[str]:
    """Methods from elsewhere of which no splits file says that they have not seen the test patients."""
    finished = ledger[(ledger["loss"] == EXTERNAL) & (ledger["state"] == "ok")]
    verified = finished["training_data"].astype(str).str.startswith("verified")
    return list(finished.loc[~verified, "method"].unique())


def answer(place: tuple[str, str, str], ledger: pd.DataFrame, ranking: pd.DataFrame) -> dict:
    """The ranking of one dataset × condition × protocol by its primary metric, and what qualifies it."""
    cells, table = style.at(ledger, place), style.at(ranking, place)
    primary = table[(table["structure"] == "mean") & (table["metric"] == style.PRIMARY)]
    primary = primary.sort_values(["rank", "method"], kind="stable")  # methods without all patients have no rank
    enough = bool(primary["seeds_enough"].astype(bool).any())
    rows = [row | {"top_group": enough and bool(row["top_group"])} for row in records(primary)]
    ranked = [row for row in rows if row["rank"] is not None]
    without = [method for method in cells["method"].unique() if method not in set(primary["method"])]
    return {
        "rows": rows,
        "axis": _axis(primary),
        "ranked": len(ranked),
        "not_ranked": [row for row in rows if row["rank"] is None],
        "few_seeds": [row["method"] for row in ranked if enough and not row["seeds_enough"]],
        "top": [row["method"] for row in rows if row["top_group"]],
        "enough": enough,
        "patients": int(primary["n_patients"].max()) if len(primary) else 0,
        "seeds": int(primary["n_seeds"].min()) if len(primary) else 0,
        "uneven": len(primary[["n_patients", "n_seeds"]].drop_duplicates()) > 1,
        "without": [{"method": m, "states": states(cells[cells["method"] == m])} for m in without],
    }


def verdicts(claims: pd.DataFrame) -> list[tuple[str, int]]:
    return [(verdict, n) for verdict in VERDICTS if (n := int((claims["verdict"] == verdict).sum()))]


def caveats(
    ledger: pd.DataFrame, answers: list[dict], claims: pd.DataFrame, certificates: list[dict], config: dict
) -> list[dict]:
    """What a reader must know before believing the answer, the gravest first: {"title", "text", "names"}."""
    found: list[dict] = []

    def add(title: str, text: str, names: list[str] | None = None) -> None:
        found.append({"title": title, "text": text, "names": names or []})

    simulated = [name for name in ledger["dataset"].unique() if is_simulated(config, name)]
    if simulated:
        text = "one anatomy, deformed; no evidence about patients. Patients and intervals describe the simulation only."
        add("Simulated data", text, simulated)
    if any(a["rows"] and not a["enough"] for a in answers):
        add("Too few seeds", "Fewer than 3 per method: differences may be luck in training; nothing is separated.")
    apart = [c for c in certificates if c.get("proofs", {}).get("near_duplicates", {}).get("accepted_apart")]
    if apart:
        text = "near-duplicates of test images are in the training parts, as configured; scores may be too high."
        add("Near-duplicates across parts", text, [c["dataset"] for c in apart])
    counts = states(ledger)
    if counts["failed"] + counts["missing"]:
        text = (
            f"{counts['failed']} of {counts['all']} cells failed, {counts['missing']} are missing; methods with fewer "
        )
        add("Incomplete", text + "trainings have wider intervals, or no rank.")
    if external := external_methods(ledger):
        add("External methods", "trained elsewhere, at a budget of their own.", external)
    if few_shot := of_kind(ledger, "few_shot"):
        text = "each structure by a model that has seen no training label of it; not comparable with methods that have."
        add("Few-shot methods", text, few_shot)
    if unverified := unverified_methods(ledger):
        add("Unverified training data", "whether these methods have seen test patients is not known.", unverified)
    if len(claims) and config.get("experiment", {}).get("stand_ins"):
        add("Stand-ins", "Claims are tested with smaller networks in place of the papers'.")
    few = min((a["patients"] for a in answers if a["rows"]), default=FEW_PATIENTS)
    if few < FEW_PATIENTS:
        add("Few patients", f"With {few} patients, methods that are not separated here may differ in truth.")
    if any(len(a["rows"]) > 1 for a in answers):
        protocols = config.get("protocols", {})
        budgets = [f"{name}: {p[key]} {key}" for name, p in protocols.items() for key in BUDGETS if p.get(key)]
        add(
            "One budget",
            f"Ranks hold for it ({'; '.join(budgets) or 'see Methods'}); longer training may reorder them.",
        )
    return found


def is_simulated(config: dict, dataset: str) -> bool:
    return "simulate" in config.get("datasets", {}).get(dataset, {}).get("source", {})


def _axis(primary: pd.DataFrame) -> dict:
    """Range of the small interval plot: tenths around all intervals, within the range of the metric."""
    if primary.empty:
        return {"low": 0.0, "high": 1.0}
    low, high = primary[["low", "mean"]].min().min(), primary[["high", "mean"]].max().max()
    low, high = int(low * 20) / 20, min(1.0, int(high * 20 + 1) / 20)
    return {"low": low, "high": high if high > low else low + 0.05}
