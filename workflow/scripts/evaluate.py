"""Score one cell; a cell that failed for a scientific reason gets the worst scores, one that met an accident none."""

from typing import TYPE_CHECKING

from lib.evaluation import write_failed_scores, write_scores
from lib.status import SCIENTIFIC, supervise

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    job = snakemake.params.job | {
        "index": snakemake.input.index,
        "splits": snakemake.input.splits,
        "predictions": snakemake.input.predictions,
        "output": snakemake.output.scores,
    }
    record = supervise(
        "evaluate",
        "lib.evaluation:evaluate_cell",
        job,
        record=snakemake.output.record,
        log=snakemake.log[0],
        attempts=snakemake.config["attempts"],
        mem_mb=snakemake.resources.mem_mb,
        upstream=snakemake.input.record,
    )
    if record["state"] == "failed" and record["reason"] in SCIENTIFIC:
        write_failed_scores(job)
    elif record["state"] == "failed":
        write_scores([], job["cell"], job["output"])
