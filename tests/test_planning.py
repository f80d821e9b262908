"""What a plan of many cells costs, before anything runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from kills import TINY
from project import Project

pytestmark = pytest.mark.slow

# A process of its own, because the peak of memory is that of all children that a process has had.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("measured", used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(code)
"""


def plan(project: Project, *python: str) -> tuple[str, float, float]:
    """What a dry run says, its CPU seconds, and its peak of memory in MB."""
    command = [*python, "-m", "snakemake", "--dry-run", "--cores", "2", "--configfile", "tiny.yaml"]
    run = subprocess.run([sys.executable, "-c", MEASURED, *command], cwd=project.folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    cpu, peak = run.stdout.splitlines()[-1].split()[1:]
    return run.stdout + run.stderr, float(cpu), float(peak)


def test_a_plan_imports_nothing_heavy(tmp_path):
    said, _, _ = plan(Project(tmp_path, TINY), "-X", "importtime")
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert "lib.config" in imported
    heavy = {"torch", "monai", "scipy.stats", "nibabel", "matplotlib", "SimpleITK"} & imported
    assert not heavy


def test_a_thousand_cells_are_planned_in_seconds(tmp_path):
    """Measured on a busy machine: 11 s and 177 MB, of which 8 s and 75 MB for the cells; most of it is Snakemake's own."""
    architectures = ["unet_narrow", "segnet_narrow", "shallow_segnet_narrow", "nnunet_narrow", "segresnet_narrow"]
    experiment = TINY["experiment"] | {
        "architectures": architectures, "losses": ["ce", "wce", "dbce", "dice"], "seeds": list(range(25)),
        "folds": [0, 1], "claims": [],
    }  # fmt: skip
    del experiment["methods"]
    said, cpu, peak = plan(Project(tmp_path, TINY | {"experiment": experiment}))
    assert "train 1000" in " ".join(said.split())
    assert cpu < 40 and peak < 350
