"""What takes long and what needs a Slurm of its own: `make stress`, with test_slurm, test_disk_full and test_planning."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from itertools import repeat, takewhile

import pytest
from kills import (
    TINY,
    assert_nothing_trained_twice,
    assert_same_results,
    end_all,
    kill,
    processes,
    run_among_kills,
    start,
)
from project import Project
from slurm_cluster import COMMAND, Cluster, missing, on_cluster, slurm_job

pytestmark = [pytest.mark.slow, pytest.mark.stress]
KILLS = 200


def test_random_kills_change_nothing(tmp_path, record_property):
    undisturbed, project = Project(tmp_path / "undisturbed", TINY), Project(tmp_path / "killed", TINY)
    started = time.monotonic()
    undisturbed.snakemake("claims")
    undisturbed_seconds = time.monotonic() - started  # what a machine, and its load, can do between two kills
    project.snakemake("data")
    killed, began, rounds, started = Counter(), Counter(), 0, time.monotonic()

    def random_kill() -> bool:
        at_work = {kind for kind, _ in processes(project.folder)} & {"training", "supervisor"}
        if not at_work and random.random() > 0.2:  # most kills while cells are at work, not while Snakemake starts
            return False
        victim = kill(project.folder, "training", "supervisor", "controller")
        killed.update([victim] if victim else [])
        return bool(victim)

    try:
        while killed.total() < KILLS:
            rounds += 1
            kills = takewhile(lambda _: killed.total() < KILLS, repeat(random_kill))
            arguments = ("claims", "--cores", "2", "--configfile", "tiny.yaml")  # weights and tables, no report
            pause = (undisturbed_seconds / 50, undisturbed_seconds / 10)
            run_among_kills(project, kills, *arguments, pause=pause, limit=3600)
            assert_same_results(project, undisturbed)
            began += assert_nothing_trained_twice(project)
            for name in ("cells", "attempts", "checkpoints", "logs", "tiny"):
                shutil.rmtree(project.folder / "results" / name, ignore_errors=True)
    finally:
        end_all(project.folder)
    assert began["resumed"]
    record_property(
        "measured",
        f"{killed.total()} kills ({dict(killed)}) in {rounds} rounds of {len(TINY['experiment']['methods']) * 2} "
        f"cells, {time.monotonic() - started:.0f} s (one undisturbed: {undisturbed_seconds:.0f} s); trainings: {dict(began)}; weights and tables identical each time",
    )


# On the cluster no training may be over before its time limit, however fast the machine.
SLOW = """
import os, time
from torch import nn
from lib.registry import register

@register("slow")
class Slow(nn.Module):
    def forward(self, logits, target, **batch):
        time.sleep(0.5 if "SLURM_JOB_ID" in os.environ else 0)
        return nn.functional.cross_entropy(logits, target)
"""


def test_a_time_limit_on_slurm(tmp_path, record_property):
    """The real one, of two minutes: the signal, 10 to 70 s before it, makes the training write its only checkpoints."""
    assert not missing(), missing()
    smoke = TINY["protocols"]["smoke"] | {"iterations": 600, "validate_every": 300, "checkpoint_minutes": 60}
    experiment = TINY["experiment"] | {"methods": ["unet_narrow+slow"], "seeds": [0], "claims": []}
    config = TINY | {"losses": {"slow": {"name": "slow"}}, "protocols": {"smoke": smoke}, "experiment": experiment}
    undisturbed = Project(tmp_path / "undisturbed", config)
    project, commands, started = on_cluster(tmp_path / "limited", config), 1, time.monotonic()
    for p in (undisturbed, project):
        (p.lib / "losses/slow.py").write_text(SLOW)
    undisturbed.snakemake("claims")
    profile = project.folder / "slurm-gpu/config.yaml"
    profile.write_text(profile.read_text().replace("TERM@120", "TERM@10"))
    with Cluster(tmp_path / "slurm") as cluster:
        limit = ("--set-resources", "train:runtime=2", "--", "claims")
        while start(project, *COMMAND, *limit, environment=cluster.environment).wait(3600):
            commands += 1
            assert commands < 10, (project.folder / "run.log").read_text()[-3000:]
    assert_same_results(project, undisturbed)
    began = assert_nothing_trained_twice(project)
    (log,) = (project.folder / "results/logs/train").rglob("*.log")
    stopped = log.read_text().count("SIGTERM: checkpoint at iteration")
    assert stopped > 1 and began["resumed"] > 1
    record_property(
        "measured",
        f"a training of five minutes under a time limit of two: stopped by Slurm's signal and resumed {stopped} times, "
        f"by {commands} commands in {time.monotonic() - started:.0f} s; weights and tables identical",
    )


def test_the_default_experiment_on_slurm(tmp_path, record_property):
    """`snakemake --profile slurm-gpu` and nothing else; the same numbers as on this machine alone."""
    assert not missing(), missing()
    here, there, started = Project(tmp_path / "here", {}), on_cluster(tmp_path / "there", {}), time.monotonic()
    with Cluster(tmp_path / "slurm") as cluster:
        run = start(there, *COMMAND, environment=cluster.environment)
        asked = {}
        while run.poll() is None:
            for number, _, comment in cluster.jobs():
                asked[number] = asked.get(number) or (comment, cluster.run("scontrol", "show", "job", number).stdout)
            time.sleep(1)
        assert run.returncode == 0, (there.folder / "run.log").read_text()[-5000:]
    seconds = time.monotonic() - started
    ledger = there.table("ledger.csv", "demo")
    cells = {tuple(cell) for cell in ledger[["architecture", "loss", "fold", "seed"]].itertuples(index=False)}
    assert len(cells) == 42 and set(ledger["state"]) == {"ok"}
    for rule, gpus, memory, minutes in (("train", 1, 6000, 720), ("predict", 1, 6000, 120), ("evaluate", 0, 3000, 120)):
        of_rule = {comment: job for comment, job in asked.values() if comment.startswith(f"rule_{rule}_")}
        assert of_rule.keys() == {
            f"rule_{rule}_wildcards_brain_cohort_clean_demo_{architecture}_{loss}_{fold}_{seed}"
            for architecture, loss, fold, seed in cells
        }
        for job in of_rule.values():
            assert f"MinMemoryNode={memory}M" in job and ("gres:gpu:1" in job) == bool(gpus), job
            assert f"TimeLimit={minutes // 60:02}:00:00" in job and "Partition=gpu" in job, job
    for row in ledger.itertuples():
        assert slurm_job(there, row.log) in asked
    started = time.monotonic()
    assert start(here).wait() == 0, (here.folder / "run.log").read_text()[-5000:]
    assert_same_results(there, here, "demo")
    record_property(
        "measured",
        f"the default experiment on Slurm: 42 of 42 cells ok, {len(asked)} jobs, {seconds:.0f} s, of them "
        f"{ledger['wall_seconds'].sum():.0f} s of training; here without Slurm {time.monotonic() - started:.0f} s; "
        "weights and tables identical",
    )


def test_a_disk_that_fills_up_during_a_run(tmp_path, record_property):
    """A run on a small disk: room for the data, not for the trainings; then room for all."""
    undisturbed = Project(tmp_path / "undisturbed", TINY)
    undisturbed.snakemake()
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    try:
        project, ballast, stopped = Project(disk / "project", TINY), disk / "ballast", 0
        for megabytes in (1, 3, 6, 12, 24):
            free = shutil.disk_usage(disk).free - megabytes * 2**20
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free)
            stopped += project.snakemake("--retries", "0", check=False).returncode != 0
            ballast.unlink()
        project.snakemake()
        assert_same_results(project, undisturbed)
        assert stopped >= 2
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    record_property(
        "measured", f"{stopped} runs stopped by a full disk; with room the same command ended with identical results"
    )
