"""The page of measurements: in step with what was saved, and goals that are judged as they are written."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import ROOT, module_at

sys.path.insert(0, str(ROOT / "benchmarks"))

import bench


def test_the_page_is_in_step_with_the_results():
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert text == module_at("docs/performance.py").page(text), "run `python docs/performance.py`"


def test_runs_take_turns_and_the_first_turn_warms_up():
    turns, now = [], [0.0]

    def run(name: str, seconds: float) -> None:
        turns.append(name)
        now[0] += seconds

    runs = {"ours": lambda: run("ours", 1), "peer": lambda: run("peer", 3)}
    assert bench.alternate(runs, 2, clock=lambda: now[0]) == {"ours": [1, 1], "peer": [3, 3]}
    assert turns == ["ours", "peer"] * 3


def test_a_record_keeps_medians_the_median_of_ratios_and_the_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    record = bench.Record("losses", "numpy", "no-such-package")
    record.add("slow", [1.0, 2.0, 4.0], "ms", "theirs", [4.0, 2.0, 8.0], "ratio >= 3")
    record.add("fast", [10.0, 20.0], "images/s", "theirs", [5.0, 4.0], "ratio >= 3", more_is_better=True)
    record.add("alone", 1.9, goal="ours <= 1.9")
    record.add("absent", 1.0, peer="theirs", goal="ratio >= 3")
    record.save()
    saved = json.loads((tmp_path / "losses.json").read_text())
    assert [row["ours"] for row in saved["rows"]] == [2.0, 15.0, 1.9, 1.0]
    assert [row["ratio"] for row in saved["rows"]] == [2.0, 3.5, None, None]
    assert [bench.met(row) for row in saved["rows"]] == [False, True, True, None]
    assert saved["versions"]["no-such-package"] is None and saved["versions"]["numpy"]
    assert "NOT MET" in capsys.readouterr().out.splitlines()[0]

    module = module_at("docs/performance.py")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    (tmp_path.parent / "losses.py").write_text('"""What it measures.\n\nMore."""\n')
    page = module.page("By hand.\n" + module.MARK + "old")
    goals = "2 of 3 are met. Not met:\n\n- slow: 2 times better than theirs; goal: ≥ 3\n"
    assert page.startswith(f"By hand.\n{module.MARK}\n## Goals\n\n{goals}\n## Losses\n\nWhat it measures.\n")
    assert "| slow | 2 | ms | theirs | 4 | 2 | times better ≥ 3 | **not met** |" in page
    assert "| absent | 1 | s | theirs | absent |  | times better ≥ 3 |  |" in page


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.0123"), (12345.678, "12,300"), (3, "3"), (1.5e-05, "1.5e-05")]
)
def test_numbers_have_three_digits(value, text):
    assert module_at("docs/performance.py").number(value) == text
