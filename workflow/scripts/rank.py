"""Means with intervals, ranks and the top group; and the paired difference of every two methods."""

from typing import TYPE_CHECKING

from lib.files import write_table
from lib.log import logged
from lib.statistics import compare, read_scores

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        comparison = compare(
            read_scores(snakemake.input.scores),
            failed=snakemake.params.failed,
            empty=snakemake.params.empty,
        )
        write_table(snakemake.output.ranking, comparison.ranking)
        write_table(snakemake.output.comparisons, comparison.pairs)
        top = comparison.ranking.query("structure == 'mean' and metric == 'dice' and top_group")
        print(f"{len(comparison.pairs)} pairs, {comparison.pairs['separated'].sum()} separated by mean Dice")
        print(f"top group: {', '.join(top['method'])}")
