"""Means with intervals, ranks and the top group; the difference of every two methods; variance components."""

from typing import TYPE_CHECKING

from lib.files import write_table
from lib.log import logged
from lib.statistics import components, rank, read_scores, situations

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        scores = read_scores(snakemake.input.scores)
        parts = situations(scores, snakemake.params.failed, snakemake.params.empty)
        ranking, pairs = rank(parts)
        write_table(snakemake.output.ranking, ranking)
        write_table(snakemake.output.comparisons, pairs)
        write_table(snakemake.output.components, components(parts))
        top = ranking.query("structure == 'mean' and metric == 'dice' and top_group")
        print(f"{len(pairs)} pairs, {pairs['separated'].sum()} separated by mean Dice")
        print(f"top group: {', '.join(top['method'])}")
