"""Train a network on boxes around the seen structures, in a supervised child process."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.precision import with_precision
from lib.training_script import train_alone

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    job = snakemake.params.job
    minutes = snakemake.config["protocols"][job["cell"]["protocol"]]["checkpoint_minutes"]
    protocol = with_precision(job["protocol"], snakemake.input.store) | {"checkpoint_minutes": minutes}
    folder = Path(snakemake.output.record).parent
    train_alone(snakemake, "lib.interactive.networks:train_network", job | {"protocol": protocol}, folder)
