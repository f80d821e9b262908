"""Divide the patients of a dataset into folds with training, validation and test parts."""

from typing import TYPE_CHECKING

from lib.data.index import read_index
from lib.data.split import split_patients
from lib.files import read_json, write_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        settings = snakemake.params
        index = read_index(snakemake.input.index)
        splits = split_patients(index, settings.folds, settings.seed, settings.validation)
        dataset = read_json(snakemake.input.check)["dataset"]
        write_json(snakemake.output.splits, {"dataset": dataset, **splits})
        for number, parts in enumerate(splits["folds"]):
            print(f"fold {number}:", ", ".join(f"{len(names)} {part}" for part, names in parts.items()))
