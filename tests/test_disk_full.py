"""A disk that is full: an error, no half file, and all goes on when there is room."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from tiny_store import restore_torch, tiny_job, tiny_store  # noqa: F401

from lib.child import is_disk_full
from lib.files import write_table
from lib.inference.predict import predict_cell
from lib.status import cell_state, supervise
from lib.training import train_cell
from lib.training.checkpoint import load_checkpoint, save_checkpoint

RECORD = "results/cells/tiny/train.json"


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """Work on a disk of 48 MB; yields a function that leaves so much of it free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    monkeypatch.chdir(disk)

    def leave(megabytes: float | None) -> None:
        ballast = Path("ballast")
        ballast.unlink(missing_ok=True)
        if megabytes is not None:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, int(free - megabytes * 2**20))

    yield leave
    os.chdir(tmp_path)
    subprocess.run(["umount", "-l", disk], check=True)


def half_files() -> list[str]:
    return [str(p) for p in Path().rglob(".[0-9]*.*")]


def large(job: dict) -> dict:
    """The job with a network whose checkpoint takes some megabytes."""
    return job | {"model": {"name": "shallow_segnet", "stages": 2, "width": 48}, "cell": job["cell"] | {"seed": 3}}


@pytest.mark.slow
def test_a_checkpoint_does_not_fit(small_disk, tmp_path):
    """The training stops as `disk-full`, never as a failure of the method, and ends with the same bits later."""
    tiny_store(tmp_path)
    whole = large(tiny_job(tmp_path, "whole", iterations=6))
    train_cell(whole)
    job = large(tiny_job(tmp_path, iterations=6, checkpoint_minutes=0))
    job |= {"output": "results/cells/tiny/training", "checkpoints": "results/checkpoints"}
    small_disk(1)
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            supervise("train", "lib.training:train_cell", job, record=RECORD, log="log", attempts=1)
        known = cell_state(Path(RECORD).parent)
        assert (stopped.value.code, known["state"], known["reason"]) == (1, "missing", "disk-full")
        assert not half_files() and not Path(RECORD).exists()
    small_disk(None)
    assert supervise("train", "lib.training:train_cell", job, record=RECORD, log="log", attempts=1)["state"] == "ok"
    weights = [torch.load(Path(j["output"]) / "weights.pt", weights_only=True) for j in (job, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_the_checkpoint_before_outlives_one_that_does_not_fit(small_disk):
    folder, state = Path("checkpoints"), {"a": torch.arange(500_000.0)}
    save_checkpoint(folder, state)
    small_disk(1)
    with pytest.raises((OSError, RuntimeError)) as error:
        save_checkpoint(folder, {"a": torch.zeros(500_000)})
    assert is_disk_full(error.value) and not half_files()
    assert torch.equal(load_checkpoint(folder)["a"], state["a"])
    small_disk(None)
    save_checkpoint(folder, {"a": torch.zeros(500_000)})
    assert not load_checkpoint(folder)["a"].any()


def test_predictions_do_not_fit(small_disk, tmp_path):
    tiny_store(tmp_path)
    job = tiny_job(tmp_path, iterations=2)
    train_cell(job)
    paths = {"training": job["output"], "index": str(tmp_path / "index.csv"), "output": "predictions"}
    job = {key: job[key] for key in ("cell", "model", "protocol", "store", "splits", "threads")} | paths
    small_disk(0)
    with pytest.raises(OSError) as error:
        predict_cell(job)
    assert is_disk_full(error.value) and not Path("predictions").exists() and not half_files()
    small_disk(None)
    assert predict_cell(job)["cases"] == 1 and Path("predictions").is_dir()


def test_a_table_does_not_fit(small_disk):
    table = pd.DataFrame(np.random.default_rng(0).random((50_000, 4)))
    write_table("scores.csv", table.head(3))
    before = Path("scores.csv").read_text()
    small_disk(1)
    with pytest.raises(OSError) as error:
        write_table("scores.csv", table)
    assert error.value.errno == errno.ENOSPC and Path("scores.csv").read_text() == before and not half_files()
    small_disk(None)
    write_table("scores.csv", table)
    assert len(pd.read_csv("scores.csv")) == 50_000


def test_a_full_disk_is_told_by_the_exit_status_of_the_child(tmp_path):
    """There may be no room for the file that says so."""
    (tmp_path / "target.py").write_text("def full(job): raise OSError(28, 'No space left on device')\n")
    (tmp_path / "job.json").write_text("{}")
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'workflow/scripts'}:{tmp_path}"}
    command = [sys.executable, "-m", "lib.child", "target:full", "job.json", "outcome.json"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert run.returncode == os.EX_IOERR and not (tmp_path / "outcome.json").exists()
