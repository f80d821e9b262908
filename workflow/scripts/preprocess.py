"""Turn the images and label maps of a dataset into the arrays that trainings share."""

from typing import TYPE_CHECKING

from lib.data.index import read_index
from lib.data.preprocess import preprocess_cases
from lib.data.store import open_store
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        wanted = snakemake.params
        preprocess_cases(
            read_index(snakemake.input.index),
            snakemake.output.store,
            wanted.dataset,
            wanted.condition,
            wanted.structures,
            wanted.settings,
        )
        for case, entry in open_store(snakemake.output.store).meta["cases"].items():
            print(case, "shape", entry["shape"], "spacing", [round(side, 3) for side in entry["spacing"]])
