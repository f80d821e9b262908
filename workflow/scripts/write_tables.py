"""Write the results as tables for a paper: Markdown, and LaTeX with booktabs."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures.style import read_table
from lib.files import atomic
from lib.log import logged
from lib.typeset import claim_tables, comparison_tables, cost_tables, latex, markdown, ranking_tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(ranking: str, scores: str, comparisons: str, claims: str, ledger: str, folder: Path) -> None:
    """Read the tables of an experiment; write those for a paper as .md and .tex into `folder`."""
    units = read_table(scores).dropna(subset="unit").drop_duplicates(["dataset", "metric"])
    tables = {
        "ranking": ranking_tables(read_table(ranking), units.set_index(["dataset", "metric"])["unit"].to_dict()),
        "comparisons": comparison_tables(read_table(comparisons)),
        "claims": claim_tables(read_table(claims)),
        "cost": cost_tables(read_table(ledger)),
    }
    for name, table in tables.items():
        for suffix, text in ((".md", markdown(table)), (".tex", latex(table))):
            with atomic(folder / f"{name}{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(**snakemake.input, folder=Path(snakemake.output[0]).parent)
