"""Draw the forest plot of the claims: published against measured differences."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import claims, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(table: str, pdf: str) -> None:
    """Read claims.csv; write `pdf` and the PNG beside it."""
    style.save(claims.draw(style.read_table(table)), Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.claims, snakemake.output.pdf)
