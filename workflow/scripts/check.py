"""Read every image and label map once and stop on what would spoil a comparison."""

from typing import TYPE_CHECKING

from lib.data.check import check_cases
from lib.data.index import read_index
from lib.files import write_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        index = read_index(snakemake.input.index)
        result = check_cases(index, snakemake.params.structures, snakemake.params.dataset)
        for warning in result["warnings"]:
            print(f"warning: {warning}")
        write_json(snakemake.output.check, result)
        print(f"{len(result['cases'])} cases are sound; data hash {result['data_hash']}")
