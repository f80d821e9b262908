"""Draw the best, median and worst case of one dataset with every method's contours."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.figures import montage, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given = snakemake.params
        place = (given.dataset, given.condition, given.protocol)
        scores = style.at(style.read_table(snakemake.input.scores), place)
        figure = montage.draw(
            scores,
            read_index(snakemake.input.index),
            montage.prediction_folders(scores),
            dict(given.structures),
            list(given.methods),
            given.palette,
            style.overlays(list(given.coloured)),
        )
        style.save(figure, Path(snakemake.output.pdf).with_suffix(""))
