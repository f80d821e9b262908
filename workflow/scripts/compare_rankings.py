"""Whether the ranking depends on the scheme, the metric, the policy for empty masks, and the dataset."""

from typing import TYPE_CHECKING

from lib.files import write_table
from lib.log import logged
from lib.statistics import read_scores, situations
from lib.statistics.consensus import consensus
from lib.statistics.robustness import compare_rankings

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        scores = read_scores(snakemake.input.scores)
        failed, empty = snakemake.params.failed, snakemake.params.empty
        rankings = compare_rankings(scores, failed, empty)
        write_table(snakemake.output.schemes, rankings.schemes)
        write_table(snakemake.output.distribution, rankings.distribution)
        write_table(snakemake.output.agreement, rankings.agreement)
        write_table(snakemake.output.critical_difference, rankings.critical_difference)
        write_table(snakemake.output.consensus, consensus(situations(scores, failed, empty)))
        print(rankings.schemes.query("metric == 'dice' and empty == @empty").to_string())
