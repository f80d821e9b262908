"""Say which cells changed between two results, beyond what another seed would do or not, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.diff import compare_results, describe, read_results
from lib.errors import BadInput
from lib.files import write_table
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FOLDER = Path("results/diff")


def main(old: str | None, new: str | None, failed: str, empty: str) -> str:
    """Compare the results folders `old` and `new`, write both tables, return what a terminal should show."""
    if not (old and new):
        raise BadInput("Name two results folders: snakemake diff --config old=/elsewhere/results/demo new=results/demo")
    cells, methods = compare_results(read_results(old), read_results(new), failed, empty)
    write_table(FOLDER / "cells.csv", cells)
    write_table(FOLDER / "methods.csv", methods)
    return f"old: {old}\nnew: {new}\n{describe(cells, methods)}\nTables: {FOLDER}/cells.csv, {FOLDER}/methods.csv"


if __name__ == "__main__":
    with logged(snakemake.log[0]) as say:
        say(main(snakemake.params.old, snakemake.params.new, snakemake.params.failed, snakemake.params.empty))
