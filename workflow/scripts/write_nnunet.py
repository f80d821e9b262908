"""Write a dataset as nnU-Net reads it, with the folds of this project."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.nnunet import write_nnunet
from lib.files import read_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    given = snakemake.input
    with logged(snakemake.log[0]):
        folder = snakemake.output.folder
        write_nnunet(read_index(given.cases), read_json(given.splits), folder, snakemake.params.block)
