"""What the scripts of trainings that have a job to themselves share. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lib.status import supervise

if TYPE_CHECKING:
    from snakemake.iocontainers import Snakemake


def train_alone(script: Snakemake, target: str, job: dict, folder: Path) -> dict:
    """Run `target` on `job`, with the data of the rule and the places of the cell in `folder`; returns its record."""
    job = job | {
        "store": script.input.store,
        "splits": script.input.splits,
        "certificate": script.input.certificate,
        "output": str(folder / "training"),
        "checkpoints": "results/checkpoints",
        "tensorboard": str("results/tensorboard" / folder.relative_to("results/cells")),
        "threads": script.threads,
    }
    return supervise(
        "train",
        target,
        job,
        record=script.output.record,
        log=script.log[0],
        attempts=script.config["attempts"],
        mem_mb=script.resources.mem_mb,
        gpus=script.resources.gpu,
    )
