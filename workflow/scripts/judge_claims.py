"""Hold the claims of papers against the scores: difference, interval, verdict, and what may be written."""

from typing import TYPE_CHECKING

import pandas as pd

from lib.files import write_table
from lib.log import logged
from lib.statistics import judge, read_scores, situations

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given = snakemake.params
        parts = situations(read_scores(snakemake.input.scores), given.failed, given.empty)
        ledger = pd.read_csv(snakemake.input.ledger)
        claims = judge(parts, given.claims, conditions=given.conditions, protocols=given.protocols, ledger=ledger)
        write_table(snakemake.output.claims, claims)
        for row in claims.itertuples():
            print(f"{row.claim}: {row.verdict}. {row.sentence}")
