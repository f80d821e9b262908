"""Draw the scores over the strength of a noise, and the area under the curves."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import degradation, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(table: str, methods: list[str], pdf: str) -> None:
    """Read degradation.csv; write `pdf` and the PNG beside it. methods: names in the order of the config."""
    style.save(degradation.draw(style.read_table(table), methods), Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        main(snakemake.input.degradation, list(snakemake.params.methods), snakemake.output.pdf)
