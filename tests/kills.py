"""Killing a run at random, and what must hold afterwards; for tests on this machine and on a cluster."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import torch
from project import COHORT, Project

KINDS = ("training", "supervisor", "snakemake in a job", "controller")
TABLES = ("scores", "ranking", "comparisons", "claims")
# Columns of the ledger that tell how a result came about, not what it is.
STORY = {
    "attempts",
    "log",
    "wall_seconds",
    "gpu_hours",
    "energy_kwh",
    "peak_memory_mb",
    "samples_per_second",
    "resumed",
}

TINY = {
    "datasets": {"brain_cohort": COHORT},
    # A checkpoint after each iteration: what a kill costs can then be told to the iteration.
    "protocols": {
        "smoke": {"iterations": 300, "batch": 2, "patch": [32, 32], "validate_every": 100, "checkpoint_minutes": 0}
    },
    "experiment": {
        "name": "tiny",
        "datasets": ["brain_cohort"],
        "methods": ["unet_narrow+ce", "unet_narrow+dbce"],
        "stand_ins": {"unet": "unet_narrow"},
        "protocol": "smoke",
        "folds": [0],
        "seeds": [0, 1],
        "claims": ["dbce_beats_ce"],
    },
}


def start(project: Project, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """The controller, in a session of its own, its words at the end of run.log."""
    with (project.folder / "run.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=project.folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def processes(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Kind and process of all that works in the folder, the controller and orphans included."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() != str(folder):
                continue
            command = " ".join(process.cmdline())
            if "lib.child" in command:
                yield "training", process
            elif ".snakemake/scripts/" in command and "bash" not in command:
                yield "supervisor", process
            elif " -m snakemake " in command and "bash" not in command and "srun" not in command:
                yield ("snakemake in a job" if " --mode " in command else "controller"), process


def is_under_way(folder: Path, training: psutil.Process) -> bool:
    """Whether a training has something to lose: it has written a line of progress, and a checkpoint before that."""
    with suppress(psutil.Error):
        cell = re.search(r"results/attempts/(\S+)/train\.job\.json", " ".join(training.cmdline()))
        log = folder / f"results/logs/train/{cell[1]}.log" if cell else None
        return bool(log) and "\niteration" in log.read_text().rpartition("\n# ")[2]
    return False


def kill(folder: Path, *kinds: str, under_way: bool = False) -> str:
    """kill -9 of a random process of a random one of the kinds that there are; returns which, or "" where none is."""
    found = [(kind, p) for kind, p in processes(folder) if kind in kinds and (not under_way or is_under_way(folder, p))]
    if not found:
        return ""
    victim = random.choice(sorted({kind for kind, _ in found}))
    with suppress(psutil.NoSuchProcess):
        random.choice([process for kind, process in found if kind == victim]).kill()
    return victim


def end_all(folder: Path) -> None:
    """End what is left, so that no test leaves anything behind."""
    for _, process in list(processes(folder)):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def run_among_kills(
    project: Project,
    kills: Iterator[Callable[[], object]],
    *arguments: str,
    pause: tuple[float, float],
    environment: dict[str, str] | None = None,
    limit: float,
) -> None:
    """Give the same command, again whenever it ends, and call the next of `kills` in between, until it has succeeded.

    A kill that returns something false has met nobody, and is tried again at the next pause.
    """
    deadline, attempt = time.monotonic() + limit, next(kills, None)
    controller = start(project, *arguments, environment=environment)
    try:
        while True:
            assert time.monotonic() < deadline, (project.folder / "run.log").read_text()[-5000:]
            with suppress(subprocess.TimeoutExpired):
                if controller.wait(random.uniform(*pause)) == 0:
                    return
                controller = start(project, *arguments, environment=environment)
                continue
            if attempt and attempt():
                attempt = next(kills, None)
    finally:
        if controller.poll() is None:
            controller.kill()
            controller.wait()


def weights(project: Project) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of every cell by its folder."""
    cells = project.folder / "results/cells"
    return {
        str(p.parent.parent.relative_to(cells)): torch.load(p, weights_only=True)
        for p in cells.rglob("training/weights.pt")
    }


def assert_same_results(project: Project, undisturbed: Project, experiment: str = "tiny") -> None:
    """Weights to the bit, tables to the letter, no cell lost or failed."""
    ours, theirs = weights(project), weights(undisturbed)
    assert ours.keys() == theirs.keys() and ours
    for cell, expected in theirs.items():
        assert all(torch.equal(ours[cell][name], tensor) for name, tensor in expected.items()), cell
    for name in TABLES:
        table = f"results/{experiment}/{name}.csv"
        assert (project.folder / table).read_text() == (undisturbed.folder / table).read_text(), name
    ledgers = [p.table("ledger.csv", experiment) for p in (project, undisturbed)]
    pd.testing.assert_frame_equal(*(ledger[[c for c in ledger if c not in STORY]] for ledger in ledgers))
    assert set(ledgers[0]["state"]) == {"ok"}
    assert not list((project.folder / "results").rglob(".[0-9]*.*")), "half a file"


def assert_nothing_trained_twice(project: Project) -> Counter:
    """No attempt began before the iteration that one before it had reported; returns what attempts began with."""
    began = Counter()
    for log in (project.folder / "results/logs/train").rglob("*.log"):
        reached, latest, start, ended = 0, 0, 0, False
        for line in log.read_text().splitlines():
            if line.startswith("# "):
                reached, start = max(reached, latest), 0
            elif resumed := re.match(r"resumed at iteration (\d+)", line):
                start = int(resumed[1])
                began["resumed"] += 1
            elif "results were kept" in line:
                ended = True
                began["kept"] += 1
            elif iteration := re.match(r"iteration (\d+)/", line):
                assert start >= reached and not ended, f"{log}:\n{log.read_text()}"
                latest = int(iteration[1])
    return began
