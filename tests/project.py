"""A copy of the repository in which tests run the workflow and edit what they like."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml
from conftest import ROOT

COHORT = {
    "source": {"simulate": "icbm152", "patients": 6, "seed": 0, "spacing": 5},
    "structures": {"csf": 1, "gray_matter": 2, "white_matter": 3},
    "preprocess": {"slices": "axial", "intensity": "zscore", "crop": "nonzero"},
    "splits": {"folds": 2, "validation": 0.34},
    "tolerance_mm": 5,
}

# A methods developer's view: one file, one line of configuration. Each of these fails in its own way.
LOSSES = """
import os, signal
import torch
from torch import nn
from lib.registry import register

@register("explosive")
class Explosive(nn.Module):
    def forward(self, logits, target, **batch):
        return logits.mean() * float("nan")

@register("broken")
class Broken(nn.Module):
    def forward(self, logits, target, **batch):
        return logits[:, 99]

@register("crashing")
class Crashing(nn.Module):
    def forward(self, logits, target, **batch):
        os.kill(os.getpid(), signal.SIGSEGV)
"""


class Project:
    """A copy of the repository with an experiment in tiny.yaml."""

    def __init__(self, folder: Path, config: dict):
        self.folder = folder
        for name in ("rules", "workflow", "config", "profiles", "envs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Snakefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        (self.lib / "losses/failing.py").write_text(LOSSES)
        self.configure(config)

    @property
    def lib(self) -> Path:
        return self.folder / "workflow/scripts/lib"

    def configure(self, config: dict) -> None:
        self.config = config
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--configfile", "tiny.yaml"]
        run = subprocess.run(command, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert not check or run.returncode == 0, run.stdout[-6000:]
        return run

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs that a dry run would start, by rule; the targets left out."""
        text = self.snakemake("--dry-run", *arguments).stdout
        table = re.search(r"^job +count\n[- ]+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
        rows = table[1].splitlines() if table else []
        return {rule: int(n) for rule, n in (row.split() for row in rows) if rule not in ("all", "report", "figures")}

    def table(self, name: str, experiment: str = "tiny") -> pd.DataFrame:
        return pd.read_csv(self.folder / "results" / experiment / name, keep_default_na=False)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
