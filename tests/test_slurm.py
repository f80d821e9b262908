"""`snakemake --profile slurm-gpu` on a Slurm cluster that the tests start here, and twenty ways for it to go wrong.

Skipped where Slurm or its plug-in is missing (apt-get install slurmctld slurmd slurm-client munge; make slurm), unless
REQUIRE_SLURM is set, as in continuous integration.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from collections import Counter
from itertools import repeat, takewhile

import pytest
from kills import TINY, assert_nothing_trained_twice, assert_same_results, end_all, kill, run_among_kills, start
from project import Project
from slurm_cluster import COMMAND, Cluster, missing, on_cluster

KILLS = 20
MEMORY = """
import torch
from torch import nn
from lib.registry import register

class Ballast(nn.Module):
    def forward(self, logits, target, **batch):
        if not hasattr(self, "ballast"):
            self.ballast = torch.ones(self.megabytes * 2**18)
        return nn.functional.cross_entropy(logits, target)

@register("hungry")
class Hungry(Ballast):
    megabytes = 800

@register("insatiable")
class Insatiable(Ballast):
    megabytes = 8000
"""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()) and "REQUIRE_SLURM" not in os.environ, reason=missing()),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    assert not missing(), missing()
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def test_twenty_kills_change_nothing(cluster, tmp_path, capsys):
    """The default experiment, as `snakemake --profile slurm-gpu` runs it, ends like an undisturbed run on this machine."""
    undisturbed, project = Project(tmp_path / "undisturbed", TINY), on_cluster(tmp_path / "killed", TINY)
    undisturbed.snakemake()
    done, began, seen, started = Counter(), Counter(), {}, time.monotonic()

    def running(*rules: str) -> list[str]:
        words = [f"rule_{rule}_wildcards" for rule in rules]
        return [n for n, state, comment in cluster.jobs() if state == "R" and any(w in comment for w in words)]

    def look() -> None:
        """At what Slurm was asked for, for each training; and spare requeued jobs the two minutes that they would wait."""
        for number in running("train"):
            seen[number] = seen.get(number) or cluster.run("scontrol", "show", "job", "--oneliner", number).stdout

        for number, state, _ in cluster.jobs():
            if state == "PD":
                cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")

    def step(*command: str) -> bool:
        jobs = running("train", "predict", "evaluate")
        if jobs:
            cluster.run(*command, random.choice(jobs))
        return bool(jobs)

    def slurmd() -> bool:
        jobs = running("train", "predict", "evaluate")
        if jobs:
            cluster.kill("slurmd")
            cluster.start("slurmd")
        return bool(jobs)

    def preempt() -> bool:
        jobs = running("train", "predict", "evaluate")
        if jobs:
            cluster.run("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        return bool(jobs)

    ways = {
        "kill -9 of a training": lambda: kill(project.folder, "training"),
        "kill -9 of a supervisor": lambda: kill(project.folder, "supervisor"),
        "kill -9 of the controller": lambda: kill(project.folder, "controller"),
        "kill -9 of a snakemake in a job": lambda: kill(project.folder, "snakemake in a job"),
        "the signal of a time limit": lambda: step("scancel", "--signal=TERM"),
        "scancel": lambda: step("scancel"),
        "requeue": lambda: step("scontrol", "requeue"),
        "preemption": preempt,
        "kill -9 of slurmd": slurmd,
    }
    planned = [*ways] * 2 + random.choices([*ways], k=KILLS - 2 * len(ways))
    random.shuffle(planned)

    def next_kill() -> bool:
        look()
        met = planned and ways[planned[-1]]()
        if met:
            done[planned.pop()] += 1
        return bool(met)

    try:
        while planned:
            kills = takewhile(lambda _: planned, repeat(next_kill))
            run_among_kills(project, kills, *COMMAND, pause=(1, 4), environment=cluster.environment, limit=1500)
            assert_same_results(project, undisturbed)
            began += assert_nothing_trained_twice(project)
            if planned:  # the experiment ended before all kills were done; once more
                for name in ("cells", "attempts", "checkpoints", "logs", "tiny"):
                    shutil.rmtree(project.folder / "results" / name)
    finally:
        end_all(project.folder)
    assert done.total() == KILLS and began

    for asked in seen.values():
        for words in ("gres:gpu:1", "TimeLimit=12:00:00", "Partition=gpu", "Requeue=1"):
            assert words in asked, asked
        assert re.search(r"MinMemoryNode=(6000|12000|18000)M", asked), (
            asked
        )  # times the attempt: a killed job is tried again
        assert re.search(r"Comment=rule_train_wildcards_brain_cohort_clean_smoke_unet_narrow_d?b?ce_0_[01]", asked), (
            asked
        )
    submitted = {p.name.removeprefix("rule_") for p in (project.folder / "results/logs/slurm").iterdir()}
    assert submitted <= {"simulate", "check_cases", "preprocess", "train", "predict", "evaluate"}, "all else is local"
    for row in project.table("ledger.csv").itertuples():
        number = re.findall(r"  Slurm job (\d+) on ", (project.folder / row.log).read_text())[-1]
        assert list((project.folder / "results/logs/slurm").rglob(f"{number}.log")), f"the log of Slurm job {number}"
    with capsys.disabled():
        print(f"\n{KILLS} kills on Slurm in {time.monotonic() - started:.0f} s: {dict(done)}; trainings: {dict(began)}")


@pytest.mark.stress  # waits for Slurm's polls of memory
def test_memory_grows_with_the_attempts_and_a_method_that_diverges_is_a_row(cluster, tmp_path):
    losses = {name: {"name": name} for name in ("hungry", "insatiable", "explosive")}
    methods = [f"unet_narrow+{loss}" for loss in ("ce", *losses)]
    experiment = TINY["experiment"] | {"methods": methods, "seeds": [0], "claims": []}
    smoke = TINY["protocols"]["smoke"] | {"iterations": 400, "validate_every": 400}
    project = on_cluster(
        tmp_path / "project", TINY | {"losses": losses, "experiment": experiment, "protocols": {"smoke": smoke}}
    )
    (project.lib / "losses/memory.py").write_text(MEMORY)
    memory = ("--set-resources", "train:mem_mb=1100*attempt")
    try:
        assert start(project, *COMMAND, *memory, environment=cluster.environment).wait(900) == 0, (
            project.folder / "run.log"
        ).read_text()[-5000:]
    finally:
        end_all(project.folder)
    ledger = project.table("ledger.csv").set_index("loss")
    assert ledger["state"].to_dict() == {"ce": "ok", "hungry": "ok", "insatiable": "failed", "explosive": "failed"}
    assert ledger["reason"].to_dict() == {
        "ce": "",
        "hungry": "",
        "insatiable": "out-of-memory",
        "explosive": "diverged",
    }
    notes = project.folder / "results/attempts/brain_cohort/clean/smoke/unet_narrow/hungry/fold0/seed0"
    assert "out-of-memory" in (notes / "train-1.json").read_text() and len(list(notes.glob("train-[0-9].json"))) == 2
    assert "more than the 3300 MB (mem_mb)" in ledger.loc["insatiable", "message"]
    assert set(project.table("ranking.csv")["loss"]) >= {"ce", "hungry", "explosive"}
    assert (project.folder / "results/tiny/report/index.html").exists()
