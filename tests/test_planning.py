"""What a plan of many cells costs, before anything runs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from kills import TINY
from project import Project

pytestmark = pytest.mark.slow


def plan(project: Project, *python: str) -> tuple[str, float, float]:
    """Standard output and error of a dry run, CPU seconds, and peak MB of the largest child so far."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *python, "-m", "snakemake", "--dry-run", "--cores", "2", "--configfile", "tiny.yaml"]
    run = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return run.stdout + run.stderr, cpu, after.ru_maxrss / 1024


def test_a_plan_imports_nothing_heavy(tmp_path):
    said, _, _ = plan(Project(tmp_path, TINY), "-X", "importtime")
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert "lib.config" in imported
    heavy = {"torch", "monai", "scipy.stats", "nibabel", "matplotlib", "SimpleITK"} & imported
    assert not heavy


@pytest.mark.skipif(
    "PYTEST_XDIST_WORKER" in os.environ, reason="the peak of memory is that of all children of a worker"
)
def test_a_thousand_cells_are_planned_in_seconds(tmp_path):
    """Measured: 11 s and 177 MB, of which 8 s and 75 MB for the cells; all but a tenth of it Snakemake's own."""
    architectures = ["unet_narrow", "segnet_narrow", "shallow_segnet_narrow", "nnunet_narrow", "segresnet_narrow"]
    experiment = TINY["experiment"] | {
        "architectures": architectures, "losses": ["ce", "wce", "dbce", "dice"], "seeds": list(range(25)),
        "folds": [0, 1], "claims": [],
    }  # fmt: skip
    del experiment["methods"]
    said, cpu, peak = plan(Project(tmp_path, TINY | {"experiment": experiment}))
    assert "train 1000" in " ".join(said.split())
    assert cpu < 40 and peak < 350
