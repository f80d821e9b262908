"""Draw the critical-difference diagram."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import critical_difference, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(table: str, pdf: str) -> None:
    """Read critical_difference.csv; write `pdf` and the PNG beside it."""
    style.save(critical_difference.draw(style.read_table(table)), Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.critical_difference, snakemake.output.pdf)
