from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib.cells import Cell
from lib.files import read_json, write_json
from lib.forecast import Estimate, describe, estimate_of, forecast, from_past, to_run
from lib.provenance import recipe_hash

PROTOCOL = {"iterations": 100, "validate_every": 30, "batch": 2, "patch": [8, 8], "checkpoint_minutes": 5}


def job(seed=0, **change) -> dict:
    cell = Cell("hearts", "clean", "cpu", "unet", "ce", 0, seed).columns()
    return {"cell": cell, "model": {"name": "unet"}, "loss": {"name": "ce"}, "protocol": PROTOCOL, "threads": 1} | {
        "code": "1", "splits": "splits.json",
    } | change  # fmt: skip


def end(of: dict, seconds=(10.0, 2.0), state="ok", **cost) -> None:
    """Write what a cell leaves behind that ended."""
    folder = Cell(**{k: v for k, v in of["cell"].items() if k != "method"}).folder
    entry = {"state": state, "reason": "" if state == "ok" else "diverged", "message": "", "log": "", "attempts": 1}
    for stage, wall in zip(("train", "predict", "evaluate"), (*seconds, 1.0), strict=True):
        write_json(folder / f"{stage}.json", entry | {"stage": stage, "wall_seconds": wall})
    (folder / "training").mkdir(exist_ok=True)
    (folder / "training/weights.pt").write_bytes(b"0" * 3_000_000)
    written = {"iterations": 100, "resumed": 0, "energy_kwh": None, "peak_memory_mb": 7.0}
    written |= {"code": of["code"], "recipe": recipe_hash(of)}
    write_json(folder / "training/cost.json", written | cost)


def test_the_arithmetic_of_a_probe():
    probe = {"steps": [1.0, 2.0, 3.0], "seconds_per_case": 0.5, "parameters": 1000, "peak_memory_mb": 9.0}
    probe |= {"kwh_per_second": 1e-3, "device": "GPU"}
    found = estimate_of(probe, job(), start=4.0, counts=(3, 5))
    cases = 0.5 * (4 * 3 + 5)  # validations after 30, 60, 90 and 100 iterations
    assert found.seconds == pytest.approx(2 * 4 + 100 * 2.0 + cases)
    assert found.low == pytest.approx(2 * 4 + 100 * 1.2 + cases)
    assert found.high == pytest.approx(2 * 4 + 100 * 2.8 + cases)
    assert found.kwh == pytest.approx(1e-3 * (200 + cases)) and found.weights_mb == pytest.approx(0.004)
    assert found.source == "3 steps on GPU"


def test_cells_that_ended_tell_the_cost_of_the_others(in_tmp):
    for seed, seconds in enumerate([10.0, 12.0]):
        end(job(seed), (seconds, 2.0))
    jobs = [job(seed) for seed in range(6)]
    assert from_past(jobs) is None  # two are too few
    end(job(2), (20.0, 2.0))
    end(job(3), (500.0, 2.0), resumed=1)  # an interrupted training tells no time
    found = from_past(jobs)
    low, middle, high = np.quantile([12.0, 14.0, 22.0], [0.1, 0.5, 0.9])
    assert (found.low, found.seconds, found.high) == pytest.approx((low, middle, high))
    assert found.weights_mb == 3 and found.kwh is None and found.source == "3 cells that ended"

    table = forecast(jobs, say=pytest.fail)  # no probe
    assert table[["cells", "to_run"]].to_numpy().tolist() == [[6, 2]]
    text = describe(table, "mine", 2)
    assert "6 cells, 2 to run" in text and "2 x 14 s (12 s to 20 s), by 3 cells that ended" in text
    assert "with 2 at once: 14 s" in text and "energy: unknown" in text


def test_what_is_still_to_run(in_tmp):
    assert to_run(job())
    end(job())
    assert not to_run(job())
    assert to_run(job(code="2")) and to_run(job(loss={"name": "dice"}))
    assert not to_run(job(protocol=PROTOCOL | {"checkpoint_minutes": 1}))
    end(job(1), state="failed")
    assert not to_run(job(1))  # until retry_failed forgets it
    assert to_run(job(1, code="2")), "a failure of other code says nothing of this"


def test_a_failed_training_is_run_again_only_as_another(in_tmp):
    end(job(), state="failed")
    folder = Cell("hearts", "clean", "cpu", "unet", "ce", 0, 0).folder
    (folder / "training/cost.json").unlink()
    assert not to_run(job()), "nobody knows what failed: Snakemake will say"
    write_json("results/attempts" / folder.relative_to("results/cells") / "train.job.json", job())
    assert not to_run(job())
    assert to_run(job(loss={"name": "dice"})) and to_run(job(code="2"))


def test_cells_that_shared_a_job_are_forecast_by_their_share(in_tmp):
    for seed in range(3):
        end(job(seed), (90.0, 3.0), energy_kwh=0.6)
        for stage in ("train", "predict"):
            record = Cell("hearts", "clean", "cpu", "unet", "ce", 0, seed).folder / f"{stage}.json"
            write_json(record, read_json(record) | {"share": 1 / 3, "side_by_side": 3})
    jobs = [job(seed) for seed in range(9)]
    found = from_past(jobs)
    assert found.seconds == pytest.approx(31) and found.kwh == pytest.approx(0.2)
    table = forecast(jobs, say=pytest.fail)
    assert "with 2 at once, 3 cells in each job: 93 s" in describe(table, "mine", 2, 3)
    assert "with 8 at once, 3 cells in each job: 93 s" in describe(table, "mine", 8, 3), "a job is not split"
    assert "with 8 at once: 31 s" in describe(table, "mine", 8)


def test_nothing_to_run_is_said_so(in_tmp):
    for seed in range(3):
        end(job(seed))
    assert describe(forecast([job(s) for s in range(3)], say=pytest.fail), "mine", 1) == "mine: 3 cells, 0 to run"


def test_a_method_whose_probe_fails_is_named_and_the_others_are_added_up():
    rows = []
    for method, estimate in {
        "a": Estimate(10.0, 8.0, 12.0, 1.0, 0.5, 7.0, "20 steps on GPU"),
        "b": Estimate(np.nan, np.nan, np.nan, np.nan, None, np.nan, "nothing, as the probe failed: out of memory"),
    }.items():
        names = {"dataset": "d", "condition": "clean", "protocol": "p", "method": method, "cells": 2, "to_run": 2}
        known = {**vars(estimate), "seconds_low": estimate.low, "seconds_high": estimate.high}
        rows.append(names | known)
    text = describe(pd.DataFrame(rows), "mine", 4)
    assert "b  d clean  2 cells, by nothing, as the probe failed: out of memory" in text
    assert "without b" in text and "with 4 at once: 10 s" in text
