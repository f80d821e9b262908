"""Train a few-shot method for one cell in a supervised child process."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.training_script import train_alone

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    job = snakemake.params.job
    minutes = snakemake.config["protocols"][snakemake.wildcards.protocol]["checkpoint_minutes"]
    job |= {"protocol": job["protocol"] | {"checkpoint_minutes": minutes}}
    train_alone(snakemake, "lib.few_shot.training:train_cell", job, Path(snakemake.output.record).parent)
