"""Pack tables, figures, report, configuration and code of an experiment into a Workflow Run RO-Crate."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.cells import STAGES
from lib.crate import write_crate
from lib.files import read_json
from lib.log import logged
from lib.provenance import commit, project_version, versions

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given = snakemake.input
        stages = [Path(path).with_name(f"{stage}.json") for path in given.records for stage in STAGES]
        write_crate(
            snakemake.output.crate,
            experiment=snakemake.wildcards.experiment,
            results=[Path(path) for path in [*given.tables, *given.figures, given.report]],
            config=snakemake.params.config,
            checks=[read_json(path) for path in given.checks],
            records=[read_json(file) for file in stages if file.exists()],
            provenance={"version": project_version(), "commit": commit(), "packages": versions()},
        )
