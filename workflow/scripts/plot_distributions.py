"""Draw the distribution of the primary metric over all cases, per structure and method."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import distributions, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(scores: str, structures: list[str], pdf: str) -> None:
    """Read scores.csv; write `pdf` and the PNG beside it. structures: names in the order of the config."""
    figure = distributions.draw(style.read_table(scores), structures)
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.scores, list(snakemake.params.structures), snakemake.output.pdf)
