"""Draw Dice against the number of interactions."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import style, users_curves
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given = snakemake.params
        figure = users_curves.draw(style.read_table(snakemake.input.curves), list(given.methods), dict(given.families))
        style.save(figure, Path(snakemake.output.pdf).with_suffix(""))
