"""Write the report of one experiment: one self-contained HTML page."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures.style import read_table
from lib.files import atomic, read_json
from lib.log import logged
from lib.provenance import LIB, commit, hardware, versions
from lib.report import build_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

TABLES = ("ledger", "scores", "ranking", "comparisons", "claims")


def provenance(code: str) -> dict:
    """What made this page; what made each cell is hashed in its identity, in the ledger."""
    project = LIB.parents[2] / "pyproject.toml"
    return {
        "version": tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "unknown",
        "commit": commit(),
        "packages": versions(),
        "machine that wrote this page": hardware(),
        "code of this page (hash)": code,
    }


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given, page = snakemake.input, Path(snakemake.output.report)
        html = build_report(
            experiment=snakemake.wildcards.experiment,
            **{name: read_table(given[name]) for name in TABLES},
            checks=[read_json(path) for path in given.checks],
            figures=[Path(path) for path in given.figures],
            config=snakemake.params.config,
            provenance=provenance(snakemake.params.code),
            folder=page.parent,
        )
        with atomic(page) as temporary:
            temporary.write_text(html, encoding="utf-8")
