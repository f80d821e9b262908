"""Turn the images and label maps of a dataset into the arrays that trainings share."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.preprocess import preprocess_cases
from lib.data.store import open_store
from lib.files import read_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def training_cases(splits: dict, fold: int) -> list[str]:
    """Names of the cases whose patients train in a fold."""
    return [case for patient in splits["folds"][fold]["train"] for case in splits["cases"][patient]]


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        wanted, scope = snakemake.params, snakemake.wildcards.scope
        preprocess_cases(
            read_index(snakemake.input.cases),
            snakemake.output.store,
            {"dataset": snakemake.wildcards.dataset, "condition": snakemake.wildcards.condition},
            wanted.block,
            wanted.condition,
            training_cases(read_json(snakemake.input.splits), int(scope.removeprefix("-fold"))) if scope else None,
        )
        for case, entry in open_store(snakemake.output.store).meta["cases"].items():
            print(case, "shape", entry["shape"], "spacing", [round(side, 3) for side in entry["spacing"]])
