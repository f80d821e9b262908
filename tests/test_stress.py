"""Two hundred kills at random moments: `make stress`."""

from __future__ import annotations

import shutil
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
    run_among_kills,
)
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.stress]
KILLS = 200


def test_random_kills_change_nothing(tmp_path, capsys):
    undisturbed, project = Project(tmp_path / "undisturbed", TINY), Project(tmp_path / "killed", TINY)
    undisturbed.snakemake()
    killed, began, rounds, started = Counter(), Counter(), 0, time.monotonic()

    def random_kill() -> bool:
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
