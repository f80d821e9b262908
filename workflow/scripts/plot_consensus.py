"""Draw the ranking over all datasets together."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import consensus, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(table: str, ranking: str, pdf: str) -> None:
    """Read consensus.csv and ranking.csv; write `pdf` and the PNG beside it."""
    figure = consensus.draw(style.read_table(table), style.read_table(ranking))
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.consensus, snakemake.input.ranking, snakemake.output.pdf)
