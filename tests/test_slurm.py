"""`snakemake --profile slurm-gpu` on a Slurm cluster that the tests start here, and twenty ways for it to go wrong.

Skipped where Slurm or its plug-in is missing (apt-get install slurmctld slurmd slurm-client munge; make slurm-plugin), unless
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
from slurm_cluster import COMMAND, Cluster, missing, on_cluster, slurm_job

from lib.files import read_json

KILLS = 20
# Where a loss stops its supervisor for a while, Slurm is the first to see that the job uses too much memory, and kills
# all of it.
MEMORY = """
import os, signal, time
import torch
from torch import nn
from lib.registry import register

class Ballast(nn.Module):
    megabytes, alone = 800, False

    def forward(self, logits, target, **batch):
        if not hasattr(self, "ballast"):
            if self.alone:
                os.kill(os.getppid(), signal.SIGSTOP)
            self.ballast = torch.ones(self.megabytes * 2**18)
            if self.alone:
                time.sleep(12)
                os.kill(os.getppid(), signal.SIGCONT)
        return nn.functional.cross_entropy(logits, target)

@register("hungry")
class Hungry(Ballast):
    pass

@register("hungry_alone")
class HungryAlone(Hungry):
    alone = True

@register("insatiable")
class Insatiable(Ballast):
    megabytes = 5000

@register("insatiable_alone")
class InsatiableAlone(Insatiable):
    alone = True
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


def test_twenty_kills_change_nothing(cluster, tmp_path, record_property):
    """The default experiment, as `snakemake --profile slurm-gpu` runs it, ends like an undisturbed run on this machine."""
    undisturbed, project = Project(tmp_path / "undisturbed", TINY), on_cluster(tmp_path / "killed", TINY)
    undisturbed.snakemake("claims")
    done, began, seen, started = Counter(), Counter(), {}, time.monotonic()

    def running(*rules: str) -> list[str]:
        words = [f"rule_{rule}_wildcards" for rule in rules]
        return [n for n, state, comment in cluster.jobs() if state == "R" and any(w in comment for w in words)]

    def look() -> None:
        """At what Slurm was asked for, for each training; and spare requeued jobs the two minutes that they would wait."""
        for number in running("train"):
            asked = cluster.run("scontrol", "show", "job", "--oneliner", number)
            if asked.returncode == 0:  # Slurm is there
                seen[number] = asked.stdout

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
        "kill -9 of a training": lambda: kill(project.folder, "training", under_way=True),
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
    assert done.total() == KILLS and began["resumed"] and seen

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
        slurm_job(project, row.log)
    record_property(
        "measured",
        f"{KILLS} kills on Slurm in {time.monotonic() - started:.0f} s: {dict(done)}; trainings: {dict(began)}; "
        "weights and tables identical",
    )


@pytest.mark.stress  # waits for Slurm's polls of memory
def test_memory_grows_with_the_attempts_and_a_method_that_diverges_is_a_row(cluster, tmp_path, record_property):
    """Seen by the supervisor or, in what is `alone`, by Slurm only, whose kill of a job leaves nobody to note why."""
    names = ("hungry", "hungry_alone", "insatiable", "insatiable_alone", "explosive")
    methods = [f"unet_narrow+{loss}" for loss in ("ce", *names)]
    experiment = TINY["experiment"] | {"methods": methods, "seeds": [0], "claims": []}
    losses = {name: {"name": name} for name in names}
    smoke = TINY["protocols"]["smoke"] | {"iterations": 20, "validate_every": 20}
    config = TINY | {"losses": losses, "experiment": experiment, "protocols": {"smoke": smoke}}
    project = on_cluster(tmp_path / "project", config)
    (project.lib / "losses/memory.py").write_text(MEMORY)
    memory, codes = ("--set-resources", "train:mem_mb=1100*attempt", "--", "claims"), []
    try:
        while len(codes) < 3 and 0 not in codes:
            codes.append(start(project, *COMMAND, *memory, environment=cluster.environment).wait(3600))
    finally:
        end_all(project.folder)
    assert codes == [1, 0], (project.folder / "run.log").read_text()[
        -5000:
    ]  # the last attempt, too, could note nothing
    ledger = project.table("ledger.csv").set_index("loss")
    assert ledger["reason"].to_dict() == {
        "ce": "",
        "hungry": "",
        "hungry_alone": "",
        "insatiable": "out-of-memory",
        "insatiable_alone": "out-of-memory",
        "explosive": "diverged",
    }
    assert all((row.state == "failed") == bool(row.reason) for row in ledger.itertuples())

    def messages(loss: str) -> list[str]:
        notes = project.folder / f"results/attempts/brain_cohort/clean/smoke/unet_narrow/{loss}/fold0/seed0"
        return [read_json(notes / f"train-{i + 1}.json")["message"] for i in range(len([*notes.glob("train-*.json")]))]

    limits = [f"more than the {mb} MB (mem_mb)" for mb in (1100, 2200, 3300)]
    for loss, tries in {"hungry": 1, "insatiable": 3}.items():  # Slurm may look first here, too
        for message, limit in zip(messages(loss)[:tries], limits, strict=False):
            assert limit in message or "exceeded memory limit" in message
    for loss, tries in {"hungry_alone": 1, "insatiable_alone": 3}.items():
        assert all(m.startswith("Slurm killed job") and "memory limit" in m for m in messages(loss)[:tries])
    assert [len(messages(loss)) for loss in names] == [2, 2, 3, 3, 1]
    assert set(project.table("ranking.csv")["loss"]) >= {"ce", "hungry", "hungry_alone", "explosive"}
    record_property(
        "measured",
        f"out of memory at 1100 MB, then ok with 2200; at 3300 MB recorded after three attempts: "
        f"'{ledger.loc['insatiable', 'message']}'; '{ledger.loc['insatiable_alone', 'message']}'",
    )
