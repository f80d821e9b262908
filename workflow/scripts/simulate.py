"""Simulate the images and label maps of an embedded cohort."""

from typing import TYPE_CHECKING

from lib.data.simulate import simulate_cohort
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        source = dict(snakemake.params.source)
        simulate_cohort(snakemake.output.raw, template=source.pop("simulate"), **source)
