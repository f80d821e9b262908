"""How the score falls as one kind of noise grows, and the area under that curve."""

from typing import TYPE_CHECKING

from lib.files import write_table
from lib.log import logged
from lib.statistics import read_scores, situations
from lib.statistics.degradation import AREA, degradation

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        parts = situations(read_scores(snakemake.input.scores), snakemake.params.failed, snakemake.params.empty)
        table = degradation(parts, snakemake.params.conditions)
        write_table(snakemake.output.degradation, table)
        for row in table[table["strength"].astype(str) == AREA].itertuples():
            print(f"{row.dataset}, {row.family}, {row.method}: area {row.mean:.3f} ({row.low:.3f} to {row.high:.3f})")
