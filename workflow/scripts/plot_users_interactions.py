"""Draw how many interactions methods need, how often they fail, and the area under the curve."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import style, users_interactions
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        figure = users_interactions.draw(style.read_table(snakemake.input.interactions), snakemake.params.budget)
        style.save(figure, Path(snakemake.output.pdf).with_suffix(""))
