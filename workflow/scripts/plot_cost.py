"""Draw the score against parameters, FLOPs, training time and energy."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import cost, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(ranking: str, ledger: str, pdf: str) -> None:
    """Read ranking.csv and ledger.csv; write `pdf` and the PNG beside it."""
    figure = cost.draw(style.read_table(ranking), style.read_table(ledger))
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.ranking, snakemake.input.ledger, snakemake.output.pdf)
