"""Draw the distribution of the primary metric over all cases, per structure and method."""

from __future__ import annotations

from pathlib import Path

from lib.figures import distributions, style
from lib.log import logged


def main(scores: str, structures: list[str], pdf: str) -> None:
    """Read scores.csv; write `pdf` and the PNG beside it. structures: names in the order of the config."""
    figure = distributions.draw(style.read_table(scores), structures)
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):  # noqa: F821
        main(snakemake.input.scores, list(snakemake.params.structures), snakemake.output.pdf)  # noqa: F821
