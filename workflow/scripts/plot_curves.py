"""Draw the learning curves: training loss and validation Dice against the iteration."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import curves, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(table: str, architectures: list[str], pdf: str) -> None:
    """Read curves.csv; write `pdf` and the PNG beside it. architectures: names in the order of the config."""
    style.save(curves.draw(style.read_table(table), architectures), Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.curves, list(snakemake.params.architectures), snakemake.output.pdf)
