"""Draw which pairs of methods are separated."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import significance, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(comparisons: str, ranking: str, pdf: str) -> None:
    """Read comparisons.csv and ranking.csv; write `pdf` and the PNG beside it."""
    figure = significance.draw(style.read_table(comparisons), style.read_table(ranking))
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.comparisons, snakemake.input.ranking, snakemake.output.pdf)
