"""Say how far the experiment is: done, failed, running, waiting, and the estimated end."""

from datetime import datetime
from typing import TYPE_CHECKING

from lib.cells import Cell
from lib.log import logged
from lib.progress import progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]) as say:
        cells = [Cell(**names) for names in snakemake.params.cells]
        say(progress(cells, snakemake.params.experiment, datetime.now()))
