"""Derive the numbers of the report again, from the predictions on disk to the claims, and say which differ."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lib.cells import Cell
from lib.errors import BadInput
from lib.files import write_table
from lib.ledger import build_ledger, gather_curves, gather_scores, gather_trials
from lib.log import logged
from lib.statistics import components, judge, rank, read_scores, situations
from lib.statistics.consensus import consensus
from lib.statistics.degradation import degradation
from lib.statistics.robustness import compare_rankings
from lib.verify import FINDINGS, compare_report, verify_cells, verify_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def derive(folder: Path, cells: list[Cell], settings: dict) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table of an experiment with its name: the first three from the cells, the others from scores.csv."""
    yield "scores", gather_scores(cells)
    yield "curves", (curves := gather_curves(cells))
    yield "ledger", (ledger := build_ledger(cells))
    if not (folder / "scores.csv").exists():
        return
    failed, empty = settings["failed"], settings["empty"]
    scores = read_scores(folder / "scores.csv")
    parts = situations(scores, failed, empty)
    ranking, pairs = rank(parts)
    yield "ranking", ranking
    yield "comparisons", pairs
    yield "components", components(parts)
    rankings = compare_rankings(scores, failed, empty)
    yield "schemes", rankings.schemes
    yield "rank_distribution", rankings.distribution
    yield "agreement", rankings.agreement
    yield "critical_difference", rankings.critical_difference
    yield "consensus", consensus(parts)
    known = {key: settings[key] for key in ("conditions", "protocols")}
    yield "claims", judge(parts, settings["claims"], ledger=ledger, curves=curves, **known)
    if (folder / "learning_rates.csv").exists():
        yield "learning_rates", gather_trials(cells)
    if (folder / "degradation.csv").exists():
        yield "degradation", degradation(parts, settings["conditions"])


if __name__ == "__main__":
    with logged(snakemake.log[0]) as say:
        settings, folder = snakemake.params.settings, Path("results") / snakemake.params.experiment
        if not folder.exists():
            raise BadInput(f"{folder} is not there: run the experiment first (snakemake), then ask whether it holds")
        findings = verify_cells(snakemake.params.jobs, snakemake.threads)
        say(f"{len(snakemake.params.jobs)} cells scored again: {len(findings)} differences")
        cells = [Cell(**names) for names in snakemake.params.cells]
        tables = 0
        for name, table in derive(folder, cells, settings):
            findings += verify_table(folder / f"{name}.csv", table)
            tables += 1
        findings += compare_report(folder / "report/index.html", sorted(folder.glob("*.csv")))
        write_table(folder / "verify.csv", pd.DataFrame(findings, columns=FINDINGS))
        for found in findings[:20]:
            say(" · ".join(str(value) for value in found.values() if value))
        if findings:
            say(f"{len(findings)} differences; all of them: {folder}/verify.csv")
            sys.exit(1)
        say(f"{tables} tables derived again, and the report shows them: no difference")
