"""Read every image and label map of a dataset once and note what would spoil a comparison."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.check import check_cases
from lib.files import write_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        result = check_cases(read_index(snakemake.input.index), snakemake.params.block, snakemake.wildcards.dataset)
        write_json(snakemake.output.check, result)
        print(
            f"{len(result['problems'])} problems, {len(result['warnings'])} warnings; data hash {result['data_hash']}"
        )
