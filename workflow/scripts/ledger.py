"""Gather what became of every cell, and the scores and curves of those that have them."""

from typing import TYPE_CHECKING

from lib.cells import Cell
from lib.files import write_table
from lib.ledger import build_ledger, gather_curves, gather_scores, require_scores
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    cells = [Cell(**names) for names in snakemake.params.cells]
    with logged(snakemake.log[0]):
        require_scores(cells)
        write_table(snakemake.output.ledger, build_ledger(cells))
        write_table(snakemake.output.scores, gather_scores(cells))
        write_table(snakemake.output.curves, gather_curves(cells))
