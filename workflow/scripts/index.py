"""List the cases of a dataset from its folder and its block of the configuration."""

from typing import TYPE_CHECKING

from lib.data.cases import write_index
from lib.data.index import index_cases
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        cases = index_cases(snakemake.params.folder, snakemake.params.dataset)
        write_index(snakemake.output.index, cases)
        print(f"{len(cases)} cases of {len({case.patient for case in cases})} patients")
