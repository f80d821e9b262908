"""Write the tables of performance.md from benchmarks/results/*.json: python docs/performance.py"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from bench import RESULTS, met

PAGE = Path(__file__).with_name("performance.md")
MARK = "<!-- From here on written by docs/performance.py, from benchmarks/results/. -->\n"
HEAD = ("", "ours", "unit", "peer", "its value", "times better", "goal", "")


def tables() -> str:
    """Which goals are missed; then a section per benchmark: what it measures, its rows, machine and versions."""
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    return "\n".join([goals(records), *(section(*record) for record in records.items())])


def goals(records: dict[str, dict]) -> str:
    rows = [row for record in records.values() for row in record["rows"] if met(row) is not None]
    missed = [
        f"- {row['what']}: {measured(row)}; goal: {row['goal'].partition(' ')[2]}" for row in rows if not met(row)
    ]
    lines = [f"{len(rows) - len(missed)} of {len(rows)} are met." + (" Not met:\n" if missed else ""), *missed]
    return signs("\n".join(["## Goals\n", *lines, ""]))


def measured(row: dict) -> str:
    if row["goal"].startswith("ours"):
        return f"{number(row['ours'])} {row['unit']}"
    return f"{number(row['ratio'])} times better than {row['peer']}"


def signs(text: str) -> str:
    return text.replace(">=", "≥").replace("<=", "≤")


def section(name: str, record: dict) -> str:
    source = (RESULTS.parent / f"{name}.py").read_text(encoding="utf-8")
    what = ast.get_docstring(ast.parse(source)).partition("\n\n")[0]
    versions = ", ".join(f"{name} {version or 'absent'}" for name, version in record["versions"].items())
    lines = [HEAD, ("---", "---:", "---", "---", "---:", "---:", "---", "---"), *map(cells, record["rows"])]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {name.capitalize()}\n\n{what}\n\n{table}\n\n{record['machine']}; {record['date']}; {versions}.\n"


def cells(row: dict) -> tuple[str, ...]:
    absent = "absent" if row["peer"] else ""
    theirs, ratio = ("" if row[key] is None else number(row[key]) for key in ("peer_value", "ratio"))
    verdict = {True: "met", False: "**not met**", None: ""}[met(row)]
    return (
        row["what"], number(row["ours"]), row["unit"], row["peer"], theirs or absent, ratio,
        signs(row["goal"].replace("ratio", "times better")), verdict,
    )  # fmt: skip


def number(value: float) -> str:
    """Three digits: 0.0123, 1.23, 123, 12,300."""
    return f"{float(f'{value:.3g}'):,.10g}"


def page(text: str) -> str:
    """The page with its second half written anew."""
    return text.partition(MARK)[0] + MARK + "\n" + tables()


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
