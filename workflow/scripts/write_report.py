"""Write the report of one experiment: one self-contained HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lib.figures.style import read_table
from lib.files import atomic, file_sha256, read_json
from lib.log import logged
from lib.provenance import commit, hardware, project_version, versions
from lib.report import build_report
from lib.report.cite import read_references
from lib.report.datasets import noise_of
from lib.report.users import USERS_BYTES, users_section

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def provenance(code: str, tables: list[str], ledger: pd.DataFrame, checks: list[dict]) -> dict:
    """What made this page, its cells and their data; each cell's own hashes are in the ledger."""
    return {
        "version": project_version(),
        "commit": commit(),
        "packages": versions(),
        "machine that wrote this page": hardware(),
        "code of this page (hash)": code,
        "tables of this page (hash)": {Path(table).name: file_sha256(table) for table in tables},
        "data (hash)": {check["dataset"]: check["data_hash"] for check in checks},
        "machines that trained": _distinct(ledger, "hardware"),
        "packages of the trainings": _distinct(ledger, "software"),
        "code of the cells (hash)": {
            method: ", ".join(_distinct(rows, "code")) for method, rows in ledger.groupby("method", sort=False)
        },
    }


def noise_by_dataset(stores: list[dict]) -> dict[str, list[dict]]:
    """What the conditions changed, from one store of each dataset and condition."""
    found: dict[str, dict[str, dict]] = {}
    for store in stores:
        found.setdefault(store["dataset"], {}).setdefault(store["condition"], store)
    return {dataset: noise_of(list(conditions.values())) for dataset, conditions in found.items()}


def _distinct(ledger: pd.DataFrame, column: str) -> list[str]:
    return sorted({str(value) for value in ledger[column].dropna() if value})


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given, page = snakemake.input, Path(snakemake.output.report)
        tables = {Path(path).stem: read_table(path) for path in given.tables}
        checks = [read_json(path) for path in given.checks]
        users = None
        if given.get("users_tables"):
            users = users_section(
                {Path(path).stem: read_table(path) for path in given.users_tables},
                [Path(path) for path in given.users_figures],
                snakemake.params.users,
                page.parent,
                USERS_BYTES,
            )
        html = build_report(
            experiment=snakemake.wildcards.experiment,
            tables_by_name=tables,
            checks=checks,
            certificates=[read_json(path) for path in given.certificates],
            noise=noise_by_dataset([read_json(f"{store}/store.json") for store in given.stores]),
            figures=[Path(path) for path in given.figures],
            galleries=[read_json(path) for path in given.galleries],
            references=read_references(given.references),
            config=snakemake.params.config,
            provenance=provenance(snakemake.params.code, given.tables, tables["ledger"], checks),
            folder=page.parent,
            users=users,
        )
        with atomic(page) as temporary:
            temporary.write_text(html, encoding="utf-8")
