"""What the benchmarks share: taking turns, the printed line, and the record in results/ from which
docs/performance.md is made. Import it before NumPy and torch: it asks them for one thread."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

RESULTS = Path(__file__).with_name("results")
MATRICES = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_bf16": "AMX"}  # flag of the processor: name


def arguments(description: str, rounds: int = 7) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each; the medians count (%(default)s)")
    parser.add_argument("--save", action="store_true", help="write the rows to benchmarks/results/")
    return parser


def children_time() -> float:
    """CPU seconds of all ended child processes: the clock for runs that start a process and wait for it."""
    return os.times().children_user + os.times().children_system


def alternate(
    runs: dict[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    warm_up: bool = True,
):
    """{name: [seconds in each round]}, in turns, as a busy machine slows all alike; one turn before warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(0 if warm_up else 1, rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name] += [clock() - start] if turn else []
    return seconds


class Record:
    """The rows of one benchmark, printed as they come. `packages`: those whose versions the numbers depend on."""

    def __init__(self, name: str, *packages: str):
        self.name, self.packages, self.rows = name, packages, []

    def add(self, what, ours, unit="s", peer="", theirs=None, goal="", more_is_better=False) -> None:
        """ours, theirs: a number, or a list with one per round, of which the median is kept, and the median of their
        ratios: how many times better ours is. `theirs` is None where the peer is absent. goal: "ours <= 1.9" or
        "ratio >= 3"."""
        pairs = [[x] if isinstance(x, int | float) else x for x in (ours, theirs)]
        ratio = theirs and median(a / b if more_is_better else b / a for a, b in zip(*pairs, strict=True))
        row = {"what": what, "ours": median(pairs[0]), "peer": peer, "peer_value": theirs and median(pairs[1])}
        self.rows.append(row := row | {"unit": unit, "ratio": ratio, "goal": goal})
        other = f"{peer} {row['peer_value']:.4g}, {ratio:.2f}x" if ratio else peer and f"{peer} absent"
        end = {True: f"{goal}: met", False: f"{goal}: NOT MET", None: goal}[met(row)]
        print(f"{what:44} {row['ours']:9.4g} {unit:8} {other:36} {end}", flush=True)

    def save(self) -> None:
        found = {d.name.lower(): d.version for d in distributions()}
        versions = {"python": platform.python_version()} | {p: found.get(p.lower()) for p in self.packages}
        record = {"machine": machine(), "versions": versions, "date": str(date.today()), "rows": self.rows}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def met(row: dict) -> bool | None:
    """Whether a row meets its goal; None where it has none or its peer is absent."""
    goal = re.fullmatch(r"(ours|ratio) (<=|>=) ([\d.]+)", row["goal"])
    if goal is None or row[goal[1]] is None:
        return None
    return row[goal[1]] <= float(goal[3]) if goal[2] == "<=" else row[goal[1]] >= float(goal[3])


def machine() -> str:
    """General words: system, cores, what it computes matrices with."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    extensions = [name for flag, name in MATRICES.items() if flag in flags]
    return ", ".join([f"{platform.system()} on {platform.machine()}", f"{os.cpu_count()} cores", *extensions])
