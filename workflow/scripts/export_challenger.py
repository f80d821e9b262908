"""The primary metric of every patient and method, as the R package challengeR reads it."""

from typing import TYPE_CHECKING

from lib.files import write_table
from lib.log import logged
from lib.statistics import read_scores, situations
from lib.statistics.robustness import challenger_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        scores = read_scores(snakemake.input.scores)
        table = challenger_table(situations(scores, snakemake.params.failed, snakemake.params.empty))
        write_table(snakemake.output.challenger, table)
        print(f"{len(table)} rows, {table['value'].isna().sum()} of them without a value")
