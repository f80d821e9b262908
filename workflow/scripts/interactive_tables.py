"""The tables of the interactive track: rounds, what methods needed, curves, ranking, claims, and what became of all."""

from typing import TYPE_CHECKING

import pandas as pd

from lib.cells import Cell
from lib.files import write_table
from lib.interactive import tables
from lib.log import logged
from lib.statistics import judge

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given, written = snakemake.params, snakemake.output
        sessions, others = ([Cell(**names) for names in cells] for cells in (given.sessions, given.others))
        robots, budget = given.settings["robots"], given.settings["interactions"]
        ledger = tables.build_ledger(sessions, others, given.protocol)
        write_table(written.ledger, ledger)
        found = {"rounds": tables.gather_rounds(sessions)}
        if len(found["rounds"]):
            found |= tables.measured(found["rounds"], ledger, budget, robots, given.objects, given.failed)
        parts = tables.parts_of(found["scores"], robots[0], given.objects, given.failed) if "scores" in found else []
        claims = judge(parts, given.claims, tables.PRIMARY, protocols=given.protocols)
        for name in tables.TABLES:
            write_table(written[name], found.get(name, pd.DataFrame(columns=tables.TABLES[name])))
        write_table(written.claims, claims)
        for row in claims.itertuples():
            print(f"{row.claim}: {row.verdict}. {row.sentence}")
