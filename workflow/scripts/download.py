"""Download a dataset's files, check them and unpack them."""

from typing import TYPE_CHECKING

from lib.data.download import download_source
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        download_source(
            snakemake.params.source,
            snakemake.output.raw,
            dataset=snakemake.wildcards.dataset,
            cache=f"results/downloads/{snakemake.wildcards.dataset}",
            lock=snakemake.params.lock,
        )
