"""The numbers of a report derived again from the predictions on disk, held against what the tables say."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from lib.evaluation import evaluate_cell, write_failed_scores, write_scores
from lib.files import file_sha256, read_json, write_table
from lib.status import SCIENTIFIC

FINDINGS = ["table", "row", "column", "stored", "derived"]
TOLERANCE = 1e-9  # relative; tables are written with all digits, so only another processor's rounding needs it


def verify_cells(jobs: Iterable[dict], workers: int) -> list[dict]:
    """Score the predictions of every cell again; `jobs`: those of evaluate_cell, `output` being the stored table."""
    with ProcessPoolExecutor(workers) as pool:
        return [finding for found in pool.map(verify_cell, jobs, chunksize=4) for finding in found]


def verify_cell(job: dict) -> list[dict]:
    """What differs between a cell's stored scores and those of the predictions that lie beside them.

    Nothing of a cell that was not evaluated: the ledger says `missing`, and is derived again too.
    """
    stored = Path(job["output"])
    record = stored.with_name("evaluate.json")
    if not (stored.is_file() or record.is_file()):
        return []
    if absent := [path.name for path in (stored, record) if not path.is_file()]:
        return [_finding(stored, stored=f"missing: {absent[0]}")]
    ended = read_json(record)
    with tempfile.TemporaryDirectory() as folder:
        again = job | {"output": Path(folder) / "scores.csv"}
        try:
            if ended["state"] == "ok":
                evaluate_cell(again)
            elif ended["reason"] in SCIENTIFIC:
                write_failed_scores(again)
            else:
                write_scores([], job["cell"], again["output"])
        except (ValueError, OSError) as error:
            return [_finding(stored, derived=str(error))]
        return compare_tables(stored, again["output"])


def verify_table(stored: Path, derived: pd.DataFrame) -> list[dict]:
    """What differs between a stored table and the one derived now."""
    if not stored.is_file():
        return [_finding(stored, stored="missing")]
    with tempfile.TemporaryDirectory() as folder:
        write_table(again := Path(folder) / stored.name, derived)
        return compare_tables(stored, again)


def compare_report(page: Path, tables: list[Path]) -> list[dict]:
    """Tables that the report was not written from; it names those that it was by their SHA-256."""
    if not page.is_file():
        return [_finding(page, stored="missing")]
    text = page.read_text()
    hashes = {table: file_sha256(table) for table in tables}
    return [
        _finding(page, row=table.name, derived="was changed after the report was written")
        for table, digest in hashes.items()
        if table.name in text and digest not in text
    ]


def compare_tables(stored: Path, derived: Path) -> list[dict]:
    """The fields in which two CSV tables differ, row by row; numbers may differ by rounding."""
    old, new = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (stored, derived))
    if list(old.columns) != list(new.columns):
        return [_finding(stored, "columns", stored=", ".join(old.columns), derived=", ".join(new.columns))]
    if len(old) != len(new):
        return [_finding(stored, "rows", stored=str(len(old)), derived=str(len(new)))]
    findings = []
    for column in old.columns:
        a, b = old[column], new[column]
        for row in np.flatnonzero((a != b) & ~_close(a, b)):
            findings.append(_finding(stored, column, _name(old, row), a[row], b[row]))
    return findings


def _close(a: pd.Series, b: pd.Series) -> np.ndarray:
    a, b = (pd.to_numeric(column, errors="coerce").to_numpy(float) for column in (a, b))
    return np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)


def _name(table: pd.DataFrame, row: int) -> str:
    """The line in the file and the words of its row, which name it."""
    words = [v for v in table.iloc[row] if v and pd.isna(pd.to_numeric(v, errors="coerce")) and len(v) < 40]
    return f"line {row + 2}: {' '.join(dict.fromkeys(words))}"


def _finding(table: Path, column: str = "", row: str = "", stored: str = "", derived: str = "") -> dict:
    return {"table": str(table), "row": row, "column": column, "stored": stored, "derived": derived}
