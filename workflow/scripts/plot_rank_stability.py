"""Draw how often each method takes each rank when patients and trainings are drawn again."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import rank_stability, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(distribution: str, ranking: str, empty: str, pdf: str) -> None:
    """Read rank_distribution.csv and ranking.csv; write `pdf` and the PNG beside it. empty: the policy to show."""
    figure = rank_stability.draw(style.read_table(distribution), style.read_table(ranking), empty)
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given = snakemake.input
        main(given.distribution, given.ranking, snakemake.params.empty, snakemake.output.pdf)
