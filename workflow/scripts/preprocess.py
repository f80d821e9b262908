"""Turn the images and label maps of a dataset into the arrays that trainings share."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.preprocess import preprocess_cases
from lib.data.split import cases_of
from lib.data.store import open_store
from lib.files import read_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        wanted, scope = snakemake.params, snakemake.wildcards.scope
        training = None
        if scope:  # statistics of the fold
            fold, few = int(scope.removeprefix("-fold")), wanted.condition.get("train_patients")
            training = cases_of(read_json(snakemake.input.splits), fold, "train", few)
        preprocess_cases(
            read_index(snakemake.input.cases),
            snakemake.output.store,
            {"dataset": snakemake.wildcards.dataset, "condition": snakemake.wildcards.condition},
            wanted.block,
            wanted.condition,
            training,
        )
        for case, entry in open_store(snakemake.output.store).meta["cases"].items():
            print(case, "shape", entry["shape"], "spacing", [round(side, 3) for side in entry["spacing"]])
