"""Search the cells of a network for one fold and seed in a supervised child process."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lib.cells import Cell
from lib.precision import with_precision
from lib.search.found import GENOTYPE, KIND, SUPERNET
from lib.training_script import train_alone

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    names, job = snakemake.wildcards, snakemake.params.job
    cell = Cell(names.dataset, names.condition, names.search, SUPERNET, KIND, int(names.fold), int(names.seed))
    minutes = snakemake.config["searches"][names.search]["checkpoint_minutes"]
    settings = with_precision(job["settings"], snakemake.input.store) | {"checkpoint_minutes": minutes}
    job |= {"cell": cell.columns(), "settings": settings}
    record = train_alone(snakemake, "lib.search.darts:search_cells", job, cell.folder)
    if record["state"] == "ok":
        shutil.copy(cell.folder / "training" / GENOTYPE, snakemake.output.genotype)
    else:
        Path(snakemake.output.genotype).write_text(f"# Nothing was found: {record['reason']}: {record['message']}\n")
