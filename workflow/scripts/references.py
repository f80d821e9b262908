"""Bring the references of all cases to the grid of a store, for simulated users and their scores."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.preprocess import write_references
from lib.data.store import open_store
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        write_references(
            read_index(snakemake.input.cases),
            open_store(snakemake.input.store),
            snakemake.output.references,
            snakemake.params.block,
        )
