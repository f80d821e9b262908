"""Two hundred kills at random moments: `make stress`."""

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
from slurm_cluster import COMMAND, Cluster, missing, on_cluster

pytestmark = [pytest.mark.slow, pytest.mark.stress]
KILLS = 200


def test_random_kills_change_nothing(tmp_path, capsys):
    undisturbed, project = Project(tmp_path / "undisturbed", TINY), Project(tmp_path / "killed", TINY)
    undisturbed.snakemake()
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
            arguments = ("--cores", "2", "--configfile", "tiny.yaml")
            run_among_kills(project, kills, *arguments, pause=(1, 6), limit=1800)
            assert_same_results(project, undisturbed)
            began += assert_nothing_trained_twice(project)
            with capsys.disabled():
                print(f"\n{killed.total()} kills in {time.monotonic() - started:.0f} s", end="", flush=True)
            for name in ("cells", "attempts", "checkpoints", "logs", "tiny"):
                shutil.rmtree(project.folder / "results" / name, ignore_errors=True)
    finally:
        end_all(project.folder)
    with capsys.disabled():
        print(
            f"\n{killed.total()} kills ({dict(killed)}) in {rounds} rounds of {len(TINY['experiment']['methods']) * 2} "
            f"cells, {time.monotonic() - started:.0f} s; trainings resumed {began['resumed']} times, "
            f"kept results used {began['kept']} times; weights and tables identical each time"
        )


def test_a_time_limit_on_slurm(tmp_path, capsys):
    """The real one, of one minute, three times in a row: Snakemake gives up, the same command goes on."""
    assert not missing(), missing()
    smoke = TINY["protocols"]["smoke"] | {"iterations": 9000, "validate_every": 3000, "checkpoint_minutes": 10}
    experiment = TINY["experiment"] | {"methods": ["unet_narrow+ce"], "seeds": [0], "claims": []}
    config = TINY | {"protocols": {"smoke": smoke}, "experiment": experiment}
    undisturbed = Project(tmp_path / "undisturbed", config)
    undisturbed.snakemake()
    with Cluster(tmp_path / "slurm") as cluster:
        project, runs = on_cluster(tmp_path / "limited", config), 0
        profile = project.folder / "slurm-gpu/config.yaml"
        profile.write_text(profile.read_text().replace("TERM@120", "TERM@10"))
        limit = ("--set-resources", "train:runtime=1")
        while start(project, *COMMAND, *limit, environment=cluster.environment).wait(1200):
            runs += 1
            assert runs < 10, (project.folder / "run.log").read_text()[-3000:]
    assert_same_results(project, undisturbed)
    began = assert_nothing_trained_twice(project)
    assert began["resumed"] > 0
    with capsys.disabled():
        print(f"\na training stopped by its time limit and resumed {began['resumed']} times, identical")


def test_a_disk_that_fills_up_during_a_run(tmp_path, capsys):
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
    with capsys.disabled():
        print(f"\n{stopped} runs stopped by a full disk; with room the same command ended with identical results")
