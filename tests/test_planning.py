"""What a plan of many cells costs, before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
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


def measure(folder: Path, *arguments: str) -> tuple[str, float, float]:
    """What a call of Python says, its CPU seconds, and its peak of memory in MB."""
    run = subprocess.run([sys.executable, "-c", MEASURED, *arguments], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    cpu, peak = run.stdout.splitlines()[-1].split()[1:]
    return run.stdout + run.stderr, float(cpu), float(peak)


def plan(project: Project, *python: str) -> tuple[str, float, float]:
    return measure(project.folder, *python, "-m", "snakemake", "--dry-run", "--cores", "2", "--configfile", "tiny.yaml")


def test_a_plan_imports_nothing_heavy(tmp_path):
    said, _, _ = plan(Project(tmp_path, TINY), "-X", "importtime")
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert "lib.config" in imported
    heavy = {"torch", "monai", "scipy.stats", "nibabel", "matplotlib", "SimpleITK"} & imported
    assert not heavy


@pytest.mark.parametrize(
    ("cells", "seconds", "megabytes"),
    [(1000, 40, 350), pytest.param(10_000, 300, 1200, marks=pytest.mark.stress)],
)
def test_thousands_of_cells_are_planned_in_seconds(tmp_path, record_property, cells, seconds, megabytes):
    """Measured on a busy machine: 11 s and 177 MB for 1,000 cells, most of it Snakemake's own."""
    architectures = ["unet_narrow", "segnet_narrow", "shallow_segnet_narrow", "nnunet_narrow", "segresnet_narrow"]
    experiment = TINY["experiment"] | {
        "architectures": architectures, "losses": ["ce", "wce", "dbce", "dice"], "seeds": list(range(cells // 40)),
        "folds": [0, 1], "claims": [],
    }  # fmt: skip
    del experiment["methods"]
    said, cpu, peak = plan(Project(tmp_path, TINY | {"experiment": experiment}))
    assert f"train {cells}" in " ".join(said.split())
    record_property("measured", f"a plan of {cells} cells: {cpu:.1f} s of CPU, {peak:.0f} MB")
    assert cpu < seconds and peak < megabytes


CHAINS = """
rule all:
    input:
        expand("evaluate/{i}", i=range(500)),


rule train:
    output:
        "train/{i}",


rule predict:
    input:
        "train/{i}",
    output:
        "predict/{i}",


rule evaluate:
    input:
        "predict/{i}",
    output:
        "evaluate/{i}",
"""


@pytest.mark.stress
def test_the_scheduler_of_the_profile_costs_less_than_the_default_one(tmp_path, record_property):
    """Jobs that only touch their outputs: what remains is the controller's own cost of a finished job."""
    (tmp_path / "Snakefile").write_text(CHAINS)
    for stage in ("train", "predict", "evaluate"):
        (tmp_path / stage).mkdir()
        for i in range(500):
            (tmp_path / stage / str(i)).touch()
    snakemake = ("-m", "snakemake", "--forceall", "--cores", "2", "--quiet", "all")
    _, planning, _ = measure(tmp_path, *snakemake, "--dry-run")
    cost = {
        scheduler: (measure(tmp_path, *snakemake, "--touch", "--scheduler", scheduler)[1] - planning) / 1500
        for scheduler in ("greedy", "ilp")
    }
    record_property(
        "measured", ", ".join(f"{1000 * s:.1f} ms of CPU per finished job ({name})" for name, s in cost.items())
    )
    assert yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())["scheduler"] == "greedy"
    assert cost["greedy"] < cost["ilp"]
