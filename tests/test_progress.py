from __future__ import annotations

import fcntl
from datetime import datetime
from pathlib import Path

from lib.cells import Cell
from lib.files import write_json
from lib.progress import progress

NOW = datetime(2026, 1, 1, 12, 0)


def cell(seed: int, loss="ce") -> Cell:
    return Cell("hearts", "clean", "cpu", "unet", loss, 0, seed)


def end(of: Cell, seconds=60.0, **change) -> None:
    entry = {"state": "ok", "reason": "", "message": "", "log": "", "attempts": 1, "wall_seconds": seconds} | change
    for stage in of.stages:
        write_json(of.folder / f"{stage}.json", entry | {"stage": stage})


def run(of: Cell, line: str, stage="train"):
    """A cell whose stage holds its lock, as the supervisor does."""
    notes = Path("results/attempts") / of.folder.relative_to("results/cells")
    log = Path(f"results/logs/{of.seed}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"unet, on a GPU\n{line}\nsomething else\n")
    write_json(
        notes / f"{stage}-1.json",
        {"state": "failed", "reason": "killed", "stage": stage, "log": str(log), "attempts": 1},
    )
    lock = (notes / f"{stage}.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_sessions_of_simulated_users_and_their_networks_end_with_one_record(in_tmp):
    network = Cell("hearts", "clean", "mine", "pnet", "box_network", 0, 0)
    sessions = [Cell("hearts", "clean", "mine", "bifseg", "interactive", 0, seed) for seed in range(3)]
    end(network, 100.0)
    end(sessions[0], 30.0)
    assert network.stages == ("train",) and sessions[0].stages == ("predict",)
    lock = run(sessions[1], "session 5/60  centre user", stage="predict")
    text = progress([network, *sessions], "mine", NOW)
    assert text.startswith("mine: 4 cells: 2 done, 0 failed, 1 running, 1 waiting\n")
    assert "about 0:00:45 left" in text  # a session takes 30 s
    assert "running: bifseg+interactive hearts clean fold 0 seed 1  session 5/60  centre user" in text
    lock.close()


def test_counts_and_the_end_at_the_present_speed(in_tmp):
    cells = [cell(seed) for seed in range(8)]
    for seed, seconds in enumerate([50.0, 60.0, 100.0]):
        end(cells[seed], seconds)
    end(cells[3], state="failed", reason="diverged", message="the loss became nan")
    locks = [run(cells[4], "iteration 5/10  loss 1"), run(cells[5], "iteration 7/10  loss 1")]
    text = progress(cells, "mine", NOW)
    assert text.startswith("mine: 8 cells: 3 done, 1 failed, 2 running, 2 waiting\n")
    # three stages of 60 s is the usual cell: (2 waiting + 2 halves) x 180 s on 2
    assert "about 0:04:30 left, until 12:04, if 2 run at once as now" in text
    assert "running: unet+ce hearts clean fold 0 seed 5  iteration 7/10  loss 1" in text
    assert "failed: unet+ce hearts clean fold 0 seed 3  diverged: the loss became nan" in text
    for lock in locks:
        lock.close()
    assert "Nothing is running." in progress(cells, "mine", NOW)


def test_a_method_that_ended_before_tells_its_own_time(in_tmp):
    end(cell(0), 10.0)
    end(cell(0, "slow"), 1000.0)
    lock = run(cell(1, "slow"), "iteration 1/10")
    text = progress([cell(0), cell(0, "slow"), cell(1, "slow")], "mine", NOW)
    assert "about 0:25:00 left" in text  # half of 3000 s
    lock.close()


def test_before_the_first_ending(in_tmp):
    lock = run(cell(0), "iteration 1/10")
    assert "No cell has ended yet" in progress([cell(0), cell(1)], "mine", NOW)
    lock.close()


def test_long_lists_are_cut(in_tmp):
    cells = [cell(seed) for seed in range(20)]
    for one in cells:
        end(one, state="failed", reason="error", message="x")
    assert "… and 12 more failed" in progress(cells, "mine", NOW)
