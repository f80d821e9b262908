from __future__ import annotations

import pandas as pd
import pytest

from lib.files import file_sha256, write_json
from lib.verify import compare_report, compare_tables, verify_cell, verify_cells

TABLE = pd.DataFrame({"method": ["a", "b"], "structure": ["nerve", "nerve"], "value": [0.1 + 0.2, 0.5], "n": [3, 4]})


@pytest.fixture
def tables(tmp_path):
    def compare(change) -> list[dict]:
        TABLE.to_csv(tmp_path / "old.csv", index=False)
        change(TABLE.copy()).to_csv(tmp_path / "new.csv", index=False)
        return compare_tables(tmp_path / "old.csv", tmp_path / "new.csv")

    return compare


def test_a_field_that_differs_is_named(tables):
    (found,) = tables(lambda table: table.assign(value=[0.3, 0.6]))  # 0.3 differs from 0.1 + 0.2 by rounding alone
    assert found["row"] == "line 3: b nerve" and found["column"] == "value"
    assert (found["stored"], found["derived"]) == ("0.5", "0.6")


@pytest.mark.parametrize(
    ("change", "column", "derived"),
    [
        (lambda t: t.iloc[:1], "rows", "1"),
        (lambda t: t.drop(columns="n"), "columns", "method, structure, value"),
        (lambda t: t.assign(method=["a", "c"]), "method", "c"),
        (lambda t: t.assign(value=[0.3, float("nan")]), "value", ""),
    ],
)
def test_what_else_can_differ(tables, change, column, derived):
    (found,) = tables(change)
    assert (found["column"], found["derived"]) == (column, derived)


def test_equal_tables(tables):
    assert tables(lambda table: table) == []


def test_a_cell_without_scores_and_one_without_predictions(tmp_path):
    task = {"output": str(tmp_path / "scores.csv"), "cell": {"fold": 0}, "predictions": str(tmp_path)}
    assert verify_cell(task) == []  # as the ledger says
    TABLE.to_csv(tmp_path / "scores.csv", index=False)
    (found,) = verify_cell(task)
    assert found["stored"] == "missing: evaluate.json"
    write_json(tmp_path / "evaluate.json", {"state": "ok", "reason": ""})
    (found,) = verify_cells([task | {"index": str(tmp_path / "no.csv"), "splits": str(tmp_path / "no.json")}], 1)
    assert "no.json" in found["derived"] or "no.csv" in found["derived"]


def test_a_table_changed_after_the_report(tmp_path):
    table, page = tmp_path / "scores.csv", tmp_path / "index.html"
    assert compare_report(page, [table])[0]["stored"] == "missing"
    table.write_text("a\n1\n")
    page.write_text(f"scores.csv {file_sha256(table)}")
    assert compare_report(page, [table]) == []
    table.write_text("a\n2\n")
    assert compare_report(page, [table])[0]["row"] == "scores.csv"
