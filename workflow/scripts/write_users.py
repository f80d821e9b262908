"""Write the page about the interactive methods of an experiment: one self-contained HTML file."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures.style import read_table
from lib.files import atomic
from lib.log import logged
from lib.report.users import build_users_page

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given, page = snakemake.input, Path(snakemake.output.page)
        html = build_users_page(
            snakemake.wildcards.experiment,
            {Path(path).stem: read_table(path) for path in given.tables},
            [Path(path) for path in given.figures],
            snakemake.params.config,
            page.parent,
        )
        with atomic(page) as temporary:
            temporary.write_text(html, encoding="utf-8")
        print(f"open {page} in a browser")
