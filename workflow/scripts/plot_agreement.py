"""Draw how far rankings by other schemes, metrics and empty-mask policies agree."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import agreement, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(table: str, pdf: str) -> None:
    """Read agreement.csv; write `pdf` and the PNG beside it."""
    style.save(agreement.draw(style.read_table(table)), Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.agreement, snakemake.output.pdf)
