"""Draw the mean score of every training and the standard deviation between trainings."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import seeds, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(scores: str, components: str, ranking: str, pdf: str) -> None:
    """Read scores.csv, components.csv and ranking.csv; write `pdf` and the PNG beside it."""
    figure = seeds.draw(*(style.read_table(table) for table in (scores, components, ranking)))
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given = snakemake.input
        main(given.scores, given.components, given.ranking, snakemake.output.pdf)
