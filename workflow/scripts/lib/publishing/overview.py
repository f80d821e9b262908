"""The overview of all published studies: every claim of the catalogue, published against measured, and a picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from lib.claims import method_name
from lib.figures import overview as picture
from lib.figures.style import METRIC_NAMES, read_table
from lib.files import atomic
from lib.publishing.derive import refuse_leaks, save_small
from lib.publishing.study import Study, read_study
from lib.typeset import DASH, claim_tables


def catalogue(folder: str | Path) -> dict[str, dict]:
    """The claims of config/claims by name, paper by paper."""
    claims: dict[str, dict] = {}
    for file in sorted(Path(folder).glob("*.yaml")):
        claims |= yaml.safe_load(file.read_text(encoding="utf-8"))["claims"]
    return claims


def studies_in(folder: Path) -> dict[str, Study]:
    """The published studies by name."""
    found = {path.name: read_study(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    return {name: study for name, study in found.items() if study}


def measured(folder: Path, names: list[str]) -> pd.DataFrame:
    """claims.csv of the studies below each other, with the study's name in `study`."""
    files = {name: folder / name / "claims.csv" for name in names}
    tables = [read_table(file).assign(study=name) for name, file in files.items() if file.exists()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["claim", "source", "study"])


def write_overview(folder: Path, claims: dict[str, dict]) -> None:
    """Write README.md and overview.png of docs/results. claims: the catalogue."""
    studies = studies_in(folder)
    found = measured(folder, list(studies))
    save_small(picture.draw(verdicts(found, claims)), folder / "overview.png")
    with atomic(folder / "README.md") as temporary:
        temporary.write_text(overview_page(studies, found, claims), encoding="utf-8")
    refuse_leaks(folder)


def verdicts(found: pd.DataFrame, claims: dict[str, dict]) -> pd.DataFrame:
    """source and verdict per claim and situation; a claim that nothing tested has one row that says so."""
    tested = set(found["claim"])
    rows = [
        {"source": claim["source"], "verdict": picture.UNTESTED} for name, claim in claims.items() if name not in tested
    ]
    table = pd.concat([found.reindex(columns=["source", "verdict"]), pd.DataFrame(rows)], ignore_index=True)
    papers = list(dict.fromkeys([*(claim["source"] for claim in claims.values()), *found["source"]]))
    return table.sort_values("source", key=lambda column: column.map(papers.index), kind="stable", ignore_index=True)


def overview_page(studies: dict[str, Study], found: pd.DataFrame, claims: dict[str, dict]) -> str:
    """The page in Markdown."""
    known = claims | {row.claim: _as_claim(row) for row in found.itertuples() if row.claim not in claims}
    counts = verdicts(found, claims)["verdict"].value_counts()
    listed = ", ".join(f"{counts[name]} {name}" for name in picture.VERDICTS if name in counts)
    text = (
        "# Results\n\n"
        "What published claims come to when segcross tests them, with budgets of minutes to hours that each page "
        "states. A verdict is about that budget, those data and our reading of the method, never about the paper. "
        "Pages and numbers are written by `snakemake publish` ([how](../publishing.md)).\n\n"
        f"![{picture.TITLE}](overview.png)\n\n*{picture.TITLE}.* {picture.CAPTION}\n\n"
        f"Claims × situations: {listed}.\n\n## Experiments\n\n"
        "A cell is a method under one condition and protocol on one fold with one seed: a training with its tests, a "
        "method without training, or the sessions of an interactive one.\n\n"
        "| experiment | data | methods | folds × seeds | cells |\n|:--|:--|--:|--:|--:|\n"
    )
    for name, study in studies.items():
        cells = study.ledger
        if "kind" in cells:  # the networks of interactive methods are none of them
            cells = cells[cells["kind"] == "session"]
        text += (
            f"| [{name}]({name}/README.md) | {', '.join(cells['dataset'].unique())} | {cells['method'].nunique()} | "
            f"{cells['fold'].nunique()} × {cells['seed'].nunique()} | {len(cells)} |\n"
        )
    text += "\n## Claims\n"
    for source in dict.fromkeys(claim["source"] for claim in known.values()):
        text += f"\n### {source}\n\n| claim | published | where | measured | p, Holm | verdict | patients × seeds |"
        text += " page |\n|:--|:--|:--|--:|--:|:--|--:|:--|\n"
        for name, claim in known.items():
            if claim["source"] == source:
                text += _rows(name, claim, found[found["claim"] == name])
    return text


def _as_claim(row: tuple) -> dict:
    """What the page says of a claim that is not of the catalogue, from its row of claims.csv."""
    numbers = {"treatment": row.published_treatment, "difference": row.published_difference}
    published = {key: value for key, value in numbers.items() if pd.notna(value)}
    return {"source": row.source, "says": row.says, "provenance": row.provenance, "published": published}


def _rows(name: str, claim: dict, found: pd.DataFrame) -> str:
    if found.empty:
        sides = " − ".join(f"`{method_name(claim[side])}`" for side in ("treatment", "control") if side in claim)
        nothing = f"{DASH} | {DASH} | {DASH} | {picture.UNTESTED} | {DASH} | {DASH}"
        return f"| `{name}`: {sides} | {_published(claim)} | {nothing} |\n"
    text, published = "", _published(claim)
    (table,) = claim_tables(found)
    for row, shown in zip(found.itertuples(), table.rows.itertuples(index=False), strict=True):
        cells = dict(zip(table.rows.columns, shown, strict=True))
        text += (
            f"| `{name}`: `{cells['treatment − control']}`, {METRIC_NAMES.get(row.metric, row.metric)} | "
            f"{published} | {cells['where']} | {cells['measured']} | {cells['p, Holm']} | **{row.verdict}** | "
            f"{cells['patients × seeds']} | [{row.study}]({row.study}/README.md) |\n"
        )
        published = "″"  # as above
    return text


def _published(claim: dict) -> str:
    numbers = claim.get("published") or {}
    return ", ".join(f"{key} {value:{'+' if key == 'difference' else ''}g}" for key, value in numbers.items()) or (
        f"“{claim['says']}”" if claim.get("provenance", "stated") == "stated" else claim["says"]
    )
