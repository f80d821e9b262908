"""Everything in the folder of a study but its sources: tables, small figures, the page."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from lib.errors import BadInput
from lib.figures import claims, degradation, heatmap, seeds
from lib.files import atomic, write_table
from lib.publishing.page import study_page
from lib.publishing.study import Study, leaks, write_study
from lib.statistics import components, judge, rank
from lib.statistics.degradation import degradation as degrade

DPI = 120
COLOURS = 64
TABLES = ("ranking", "comparisons", "claims", "degradation")  # the others are of use to figures alone
FIGURES = ("claims", "heatmap", "seeds", "degradation")


def tables_of(study: Study) -> dict[str, pd.DataFrame]:
    """TABLES and components, by the functions that make those of a run; empty ones are left out."""
    parts, conditions = study.parts(), study.settings["conditions"]
    ranking, pairs = rank(parts, study.primary)
    known = {"conditions": conditions, "protocols": study.settings["protocols"], "ledger": study.ledger}
    known["curves"] = study.more.get("curves")
    tables = {
        "ranking": ranking,
        "comparisons": pairs,
        "components": components(parts),
        "claims": judge(parts, study.settings["claims"], study.primary, **known),
        "degradation": degrade(parts, conditions, study.primary),
    }
    return {name: table for name, table in tables.items() if len(table)}


def figures_of(study: Study, tables: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """Those of FIGURES that a study has, by the stem of their file."""
    drawn = {}
    if "claims" in tables:
        drawn["claims"] = claims.draw(tables["claims"])
    if not study.users:
        drawn["heatmap"] = heatmap.draw(tables["ranking"], study.ledger)
        drawn["seeds"] = seeds.draw(study.scores, tables["components"], tables["ranking"])
    if "degradation" in tables:
        drawn["degradation"] = degradation.draw(tables["degradation"], list(dict.fromkeys(study.scores["method"])))
    return drawn


def publish(folder: Path, study: Study, about: str = "") -> None:
    """Write the folder of a study, all of it or nothing; what a person wrote on its page, or put beside it, stays.

    The folder's name is the experiment's; about: what the experiment is. Raises BadInput where a file would tell a path
    or the name of the machine.
    """
    with atomic(folder) as temporary:
        if folder.exists():
            shutil.copytree(folder, temporary)
        write_study(temporary, study)
        _derive(temporary, folder.name, study, about)
        refuse_leaks(temporary)


def _derive(folder: Path, name: str, study: Study, about: str) -> None:
    tables = tables_of(study)
    for table in TABLES:
        if table in tables:
            write_table(folder / f"{table}.csv", tables[table])
        else:
            (folder / f"{table}.csv").unlink(missing_ok=True)
    drawn = figures_of(study, tables)
    for stem in FIGURES:
        if stem in drawn:
            save_small(drawn[stem], folder / f"{stem}.png")
        else:
            (folder / f"{stem}.png").unlink(missing_ok=True)
    page = folder / "README.md"
    written = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(study_page(name, study, tables, list(drawn), about, written), encoding="utf-8")


def refuse_leaks(folder: Path) -> None:
    """Raise BadInput for a text file of a published folder that tells a path or the name of the machine."""
    for file in sorted(file for file in folder.iterdir() if file.suffix in (".csv", ".md", ".yaml")):
        if found := leaks(file.read_text(encoding="utf-8")):
            raise BadInput(
                f"{file.name} would publish {found[0]}, which belongs to this machine: change the key of the "
                "configuration that holds it (a relative path will do), and publish again"
            )


def save_small(figure: Figure, path: Path) -> None:
    """A PNG for a page that is kept in a repository: DPI dots per inch, COLOURS colours, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    with Image.open(buffer) as image, atomic(path) as temporary:
        image.convert("RGB").quantize(COLOURS).save(temporary, "PNG", optimize=True)
