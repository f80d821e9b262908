"""Score cells; one that failed for a scientific reason gets the worst scores, one that met an accident none."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.evaluation import write_failed_scores, write_scores
from lib.status import SCIENTIFIC, supervise_all, task_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    given = snakemake.input
    job = snakemake.params.job | {"index": given.index, "splits": given.splits}
    tasks = []
    for record, predicted in zip(snakemake.output, given.records, strict=True):
        predictions = {"predictions": str(Path(predicted).with_name("predictions"))}
        inputs = [predicted, given.index, given.splits]
        tasks.append(task_of(record, job | predictions, upstream=predicted, inputs=inputs))
    records = supervise_all(
        "evaluate",
        "lib.evaluation:evaluate_cell",
        tasks,
        attempts=snakemake.config["attempts"],
        mem_mb=snakemake.resources.mem_mb,
    )
    for task, record in zip(tasks, records, strict=True):
        if record["state"] == "failed" and record["reason"] in SCIENTIFIC:
            write_failed_scores(task.job)
        elif record["state"] == "failed":
            write_scores([], task.job["cell"], task.job["output"])
