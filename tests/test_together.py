"""Several cells in one job: each its own ending, nothing of the others', and the results of cells by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT
from kills import assert_nothing_trained_twice, end_all, is_under_way, kill, processes, start, weights
from project import COHORT, Project

import lib.memory
from lib.cells import Cell
from lib.files import read_json, write_json
from lib.ledger import build_ledger
from lib.memory import MIB
from lib.status import cell_state, supervise_all, task_of

TARGETS = """
import os, signal, time
from pathlib import Path
from lib.errors import Diverged

def ends(job):
    seed, output = job["cell"]["seed"], Path(job["output"])
    with open(f"ran{seed}", "a") as file: file.write("x")
    if job["together"]:  # waits until the others have begun, which one after the other never happens
        deadline = time.monotonic() + 20
        while any(not Path(f"ran{other}").exists() for other in job["together"]):
            assert time.monotonic() < deadline, "not side by side"
            time.sleep(0.01)
    how = job["how"].get(str(seed), "well")
    if how == "diverges": raise Diverged("nan")
    if how == "crashes": raise KeyError("oops")
    if how == "killed": os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleeps": time.sleep(60)
    time.sleep(job["seconds"].get(str(seed), 0))
    output.mkdir(parents=True)
    return {"seed": seed}

def fills(job):
    memory = bytearray(job["mb"][str(job["cell"]["seed"])] * 2**20)
    time.sleep(job["seconds"])
    Path(job["output"]).mkdir(parents=True)
    return {"mb": len(memory) // 2**20}
"""


def folder(seed: int) -> Path:
    return Cell("hearts", "clean", "smoke", "unet", "ce", 0, seed).folder


@pytest.fixture
def job(in_tmp, monkeypatch):
    """Run one job for seeds whose target is a function of TARGETS; records are deleted before, as Snakemake does."""
    (in_tmp / "targets.py").write_text(TARGETS)
    (in_tmp / "input.json").write_text("{}")
    monkeypatch.setattr("lib.status.SCRIPTS", f"{ROOT / 'workflow/scripts'}{os.pathsep}{in_tmp}")

    def run(seeds, target="ends", attempts=1, mem_mb=None, **given) -> dict[int, dict]:
        job = {"how": {}, "seconds": {}, "together": []} | given
        records = [folder(seed) / "train.json" for seed in seeds]
        for record in records:
            record.unlink(missing_ok=True)
        tasks = [task_of(record, job, inputs=["input.json"]) for record in records]
        found = supervise_all("train", f"targets:{target}", tasks, attempts=attempts, mem_mb=mem_mb)
        return dict(zip(seeds, found, strict=True))

    return run


def times_run(seed: int) -> int:
    return len(Path(f"ran{seed}").read_text())


def test_they_run_at_the_same_time_and_each_ends_as_it_does(job):
    how = {"1": "diverges", "2": "crashes", "3": "killed"}
    with pytest.raises(SystemExit) as stopped:
        job(range(4), how=how, together=[0, 1, 2, 3], attempts=2)
    assert stopped.value.code == 1
    states = [cell_state(folder(seed)) for seed in range(4)]
    assert [(state["state"], state["reason"]) for state in states[1:]] == [
        ("failed", "diverged"), ("missing", "error"), ("missing", "killed"),
    ]  # fmt: skip
    assert read_json(folder(0) / "train.json")["result"] == {"seed": 0}
    assert (
        "Diverged: nan"
        in (Path("results/logs/train") / folder(1).relative_to("results/cells")).with_suffix(".log").read_text()
    )

    with pytest.raises(SystemExit):  # the retry: a kill is no failure however often, a second crash is
        job(range(4), how=how, together=[0, 1, 2, 3], attempts=2)
    assert [times_run(seed) for seed in range(4)] == [1, 1, 2, 2], "what had ended was not done again"
    states = [cell_state(folder(seed)) for seed in range(4)]
    assert (states[1]["reason"], states[2]["state"], states[2]["attempts"]) == ("diverged", "failed", 2)
    assert (states[3]["state"], states[3]["reason"]) == ("missing", "killed")
    assert (folder(0) / "train.json").exists() and (folder(0) / "training").is_dir()


def test_only_what_is_new_or_has_changed_runs(job):
    job([0, 1])
    assert job([0, 1, 2])[0]["result"] == {"seed": 0}
    assert [times_run(seed) for seed in range(3)] == [1, 1, 1]
    job([1, 2])
    assert times_run(1) == 1, "the neighbours are nothing to a cell"
    (folder(1) / "training").rmdir()
    job([0, 1, 2])
    assert [times_run(seed) for seed in range(3)] == [1, 2, 1]
    Path("input.json").write_text('{"other": 1}')
    job([0, 1, 2])
    assert [times_run(seed) for seed in range(3)] == [2, 3, 2]
    job([0, 1, 2], how={"0": "well"})
    assert [times_run(seed) for seed in range(3)] == [3, 4, 3]
    job([0, 1, 2], how={"0": "well"}, threads=2, protocol={"checkpoint_minutes": 3})
    assert [times_run(seed) for seed in range(3)] == [3, 4, 3], "as alone: these make no cell another one"
    job([0, 1, 2], how={"0": "well"}, protocol={"lr": 3})
    assert [times_run(seed) for seed in range(3)] == [4, 5, 4]


def test_what_the_stages_after_made_goes_with_a_new_start_alone(job):
    job([0, 1])
    for seed in (0, 1):
        write_json(folder(seed) / "predict.json", {"state": "ok"})
        (folder(seed) / "scores.csv").touch()
    (folder(1) / "training").rmdir()
    job([0, 1])
    assert (folder(0) / "predict.json").exists() and (folder(0) / "scores.csv").exists()
    assert not (folder(1) / "predict.json").exists() and not (folder(1) / "scores.csv").exists()


def test_a_cell_by_itself_is_done_again_when_snakemake_asks(job):
    job([0])
    job([0])
    assert times_run(0) == 2


def test_the_shares_of_a_job_add_up_to_its_time(job):
    found = job([0, 1, 2], seconds={"0": 0.5, "1": 0.5, "2": 1.5}, together=[0, 1, 2])
    spent = [found[seed]["wall_seconds"] * found[seed]["share"] for seed in range(3)]
    assert sum(spent) == pytest.approx(found[2]["wall_seconds"], rel=0.01)
    assert 0.3 < found[0]["share"] < 0.36 and 0.4 < found[2]["share"] < 0.85
    assert {found[seed]["side_by_side"] for seed in found} == {3}
    write_json(folder(2) / "training/cost.json", {"gpu_hours": 9.0, "energy_kwh": 3.0, "wall_seconds": 4.0})
    (row,) = build_ledger([Cell.at(folder(2))]).to_dict("records")
    assert row["gpu_hours"] == pytest.approx(9 * found[2]["share"]) and row["side_by_side"] == 3
    assert row["energy_kwh"] == pytest.approx(3 * found[2]["share"]) and row["wall_seconds"] == 4
    assert job([5])[5]["share"] == 1


@pytest.fixture
def limited(monkeypatch):
    """As inside a Slurm job; returns a limit of memory so many MB above what is used already."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "")  # no Slurm is asked
    monkeypatch.setattr(lib.memory, "SECONDS", 0.2)
    monkeypatch.setattr(lib.memory, "_top_of_job", os.getpid)
    return lambda more: int(psutil.Process().memory_info().rss / MIB) + more


def test_the_largest_is_stopped_and_has_the_memory_to_itself_afterwards(job, limited):
    found = job([0, 1], "fills", mb={"0": 50, "1": 300}, seconds=2, mem_mb=limited(380))
    assert [found[seed]["result"]["mb"] for seed in (0, 1)] == [50, 300]
    notes = sorted(Path("results/attempts").rglob("seed1/train-*.json"))
    assert [read_json(note)["reason"] for note in notes] == ["out-of-memory", ""]
    assert (found[0]["attempts"], found[1]["attempts"], found[1]["side_by_side"]) == (1, 2, 1)


def test_want_of_memory_counts_alone_only(job, limited):
    found = job([0, 1], "fills", mb={"0": 50, "1": 600}, seconds=1, mem_mb=limited(380))
    assert found[0]["state"] == "ok"
    assert (found[1]["state"], found[1]["reason"], found[1]["side_by_side"]) == ("failed", "out-of-memory", 1)


SUPERVISOR = """
import sys; sys.path[:0] = [{scripts!r}]
import lib.status; lib.status.SCRIPTS = {path!r}
job = {{"how": {{"0": "sleeps", "1": "sleeps"}}, "together": [0, 1], "seconds": {{}}}}
tasks = [lib.status.task_of(record, job) for record in {records!r}]
lib.status.supervise_all("train", "targets:ends", tasks, attempts=1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_all_of_them(job, in_tmp, number):
    scripts = str(ROOT / "workflow/scripts")
    records = [str(folder(seed) / "train.json") for seed in (0, 1)]
    program = SUPERVISOR.format(scripts=scripts, path=f"{scripts}{os.pathsep}{in_tmp}", records=records)
    supervisor = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: Path("ran0").exists() and Path("ran1").exists())
        assert [cell_state(folder(seed))["reason"] for seed in (0, 1)] == ["running"] * 2
        children = psutil.Process(supervisor.pid).children()
        assert len(children) == 2
        supervisor.send_signal(number)
        assert supervisor.wait(10) == (143 if number == signal.SIGTERM else -9)
        assert not psutil.wait_procs(children, timeout=10)[1]
        reason = "timeout" if number == signal.SIGTERM else "killed"
        assert [cell_state(folder(seed))["reason"] for seed in (0, 1)] == [reason] * 2
    finally:
        supervisor.kill()
        supervisor.wait()


def _wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.02)


# Diverges with seed 1 alone, which it knows by the stream that the initial weights come from.
MOODY = """
import numpy as np, torch
from torch import nn
from lib.registry import register

@register("moody")
class Moody(nn.Module):
    def forward(self, logits, target, **batch):
        first = int(np.random.SeedSequence([1, 0]).generate_state(3, np.uint64)[0] % 2**63)
        loss = nn.functional.cross_entropy(logits, target)
        return loss * float("nan") if torch.initial_seed() == first else loss
"""

TINY = {
    "datasets": {"brain_cohort": COHORT},
    # A checkpoint after each iteration: what a kill costs can then be told to the iteration.
    "protocols": {
        "smoke": {"iterations": 40, "batch": 2, "patch": [32, 32], "validate_every": 20, "checkpoint_minutes": 0}
    },
    "losses": {"moody": {"name": "moody"}},
    "experiment": {
        "name": "tiny",
        "datasets": ["brain_cohort"],
        "methods": ["unet_narrow+ce", "unet_narrow+moody"],
        "protocol": "smoke",
        "folds": [0],
        "seeds": [0, 1, 2],
        "claims": [],
    },
}
SCORES = "results/tiny/scores.csv"


def project_of(folder: Path, **config) -> Project:
    project = Project(folder, TINY | config)
    (project.lib / "losses/moody.py").write_text(MOODY)
    return project


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Project:
    project = project_of(tmp_path_factory.mktemp("alone"))
    project.snakemake(SCORES)
    return project


def _trainings(folder: Path) -> list[psutil.Process]:
    return [process for kind, process in processes(folder) if kind == "training"]


@pytest.mark.slow
def test_together_is_as_alone_also_when_one_is_killed(alone, tmp_path):
    project = project_of(tmp_path, seeds_per_job=3)
    assert {name: n for name, n in project.planned(SCORES).items() if name in ("train", "predict", "evaluate")} == {
        "train": 2, "predict": 2, "evaluate": 2,
    }  # fmt: skip
    controller = start(project, SCORES, "--cores", "2", "--configfile", "tiny.yaml")
    try:
        _wait_for(lambda: any(is_under_way(tmp_path, training) for training in _trainings(tmp_path)), 240)
        assert len(_trainings(tmp_path)) >= 2, "side by side"
        assert kill(tmp_path, "training", under_way=True) == "training"
        assert controller.wait(300) == 0, (tmp_path / "run.log").read_text()[-5000:]
    finally:
        end_all(tmp_path)

    ours, theirs = weights(project), weights(alone)
    assert ours.keys() == theirs.keys() and len(ours) == 5, "all but what diverged"
    for cell, expected in theirs.items():
        assert all(torch.equal(ours[cell][name], tensor) for name, tensor in expected.items()), cell
    assert (tmp_path / SCORES).read_text() == (alone.folder / SCORES).read_text()
    assert sum(assert_nothing_trained_twice(project).values()) == 1, "resumed; or kept, if the kill met its last moment"
    ledger = project.table("ledger.csv").set_index(["loss", "seed"])
    assert ledger["reason"].to_dict() == {(loss, seed): "" for loss in ("ce", "moody") for seed in range(3)} | {
        ("moody", 1): "diverged"
    }
    assert "train failed (killed)" in (tmp_path / "run.log").read_text()
    assert (ledger["side_by_side"].astype(int) == 3).sum() >= 5, "all but the killed one, which ends alone"
    assert set(ledger["attempts"].astype(int)) <= {1, 2}

    # However they are bundled from now on, there is nothing to do.
    for size in (3, 1, 2, 10):
        project.configure(TINY | {"seeds_per_job": size})
        assert project.planned(SCORES) == {}, size


def state(project: Project) -> dict[Path, object]:
    """All that was made of the cells: logs and tables by what they say, the rest by when it was written."""
    results = project.folder / "results"
    texts = {file: file.read_text() for kind in ("logs/*/**/seed?.log", "tiny/*.csv") for file in results.glob(kind)}
    folders = ("training", "predictions")
    return texts | {
        file: file.stat().st_mtime_ns for file in results.glob("cells/**/*.*") if file.parent.name in folders
    }


@pytest.mark.slow
def test_bundling_what_was_done_apart_does_nothing_again(alone):
    """A prediction of one seed can be older than the training of another, by which Snakemake starts their job."""
    kept = state(alone)
    alone.configure(TINY | {"seeds_per_job": 3})
    assert "train" not in alone.planned(SCORES)
    alone.snakemake(SCORES)
    assert state(alone) == kept and len(kept) > 40
    assert alone.planned(SCORES) == {}
    alone.configure(TINY)
    assert alone.planned(SCORES) == {}


@pytest.mark.slow
def test_one_more_seed_in_a_job_with_finished_ones_is_all_that_runs(alone):
    """The last test: it leaves more cells."""
    kept = state(alone)
    alone.configure(TINY | {"seeds_per_job": 4, "experiment": TINY["experiment"] | {"seeds": [0, 1, 2, 3]}})
    alone.snakemake(SCORES)
    now = state(alone)
    assert {file for file in kept if now[file] != kept[file]} == set((alone.folder / "results/tiny").glob("*.csv"))
    assert len(weights(alone)) == 7 and len(alone.table("ledger.csv")) == 8
    assert alone.planned(SCORES) == {}
