"""Write the page about one dataset: one self-contained HTML file."""

from typing import TYPE_CHECKING

import pandas as pd

from lib.data.cases import read_index
from lib.figures.style import overlays
from lib.files import atomic, read_json
from lib.log import logged
from lib.report.check import build_check_page

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        check, cases = read_json(snakemake.input.check), read_index(snakemake.input.index)
        seconds = float(pd.read_csv(snakemake.params.benchmark, sep="\t")["s"].iloc[0])
        colours = overlays(snakemake.params.coloured)
        html = build_check_page(check, cases, snakemake.params.block, seconds, colours)
        with atomic(snakemake.output.page) as temporary:
            temporary.write_text(html, encoding="utf-8")
        print(f"open {snakemake.output.page} in a browser")
