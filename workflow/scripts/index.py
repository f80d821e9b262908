"""List the cases of a dataset from its folder and file name patterns."""

from typing import TYPE_CHECKING

from lib.data.index import index_cases
from lib.files import write_table
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        index = index_cases(snakemake.params.folder, snakemake.params.files)
        write_table(snakemake.output.index, index)
        print(f"{len(index)} cases of {index['patient'].nunique()} patients")
