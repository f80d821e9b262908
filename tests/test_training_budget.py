"""A budget in epochs or minutes: how many iterations it is, and that these are a training like any other."""

from __future__ import annotations

import csv
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_store import restore_torch, tiny_job, tiny_store  # noqa: F401

from lib.budget import iterations_within
from lib.files import read_json, write_json
from lib.forecast import estimate_of, iterations_of
from lib.losses.criterion import Criterion
from lib.provenance import value_hash
from lib.statistics.sentences import budget_text
from lib.training import train_cell, trainer
from lib.training.probe import probe_training
from lib.training.schedule import learning_rate


def budget(job: dict, **given) -> dict:
    """The job with another budget instead of its iterations."""
    protocol = {key: value for key, value in job["protocol"].items() if key != "iterations"}
    return job | {"protocol": protocol | given}


def rows_of(job: dict) -> list[list[str]]:
    with (Path(job["output"]) / "curve.csv").open() as file:
        return [row[:4] for row in csv.reader(file)]  # all columns but the seconds


def assert_same_training(one: dict, other: dict) -> None:
    assert rows_of(one) == rows_of(other)
    weights, expected = (torch.load(Path(job["output"]) / "weights.pt", weights_only=True) for job in (one, other))
    assert weights.keys() == expected.keys()
    for name in weights:
        assert torch.equal(weights[name], expected[name]), name


# --- epochs


@pytest.mark.parametrize(
    ("dims", "change", "fold", "iterations"),
    [
        (2, {"epochs": 1, "batch": 2}, 0, 9),  # 3 training cases of 6 slices: 18 patches
        (2, {"epochs": 1, "batch": 4}, 0, 5),  # 4.5 batches
        (2, {"epochs": 0.5, "batch": 4}, 0, 3),  # 2.25
        (2, {"epochs": 1, "batch": 2}, 1, 6),  # two training cases
        (3, {"epochs": 5, "batch": 2, "patch": [6, 16, 16]}, 0, 8),  # 3 volumes: 7.5 batches
        (3, {"epochs": 1, "batch": 8, "patch": [6, 16, 16]}, 0, 1),
    ],
)
def test_an_epoch_is_as_many_patches_as_there_are_training_images(tmp_path, dims, change, fold, iterations):
    tiny_store(tmp_path, spatial_dims=dims)
    splits = read_json(tmp_path / "splits.json")
    splits["folds"][1]["train"] = ["p1", "p2"]
    splits["folds"][1]["validation"] = ["p3", "p4"]
    write_json(tmp_path / "splits.json", splits)
    write_json(tmp_path / "certificate.json", {"sound": True, "splits_hash": value_hash(splits)})
    job = budget(tiny_job(tmp_path), **change, warmup=0, validate_every=1000)
    job["cell"] = job["cell"] | {"fold": fold}
    assert iterations_of(job) == iterations  # what a forecast reckons with
    assert train_cell(job)["iterations"] == iterations
    assert [row[0] for row in rows_of(job)][-1] == str(iterations)


def test_epochs_are_the_same_training_as_their_iterations(tmp_path):
    tiny_store(tmp_path)
    epochs = budget(tiny_job(tmp_path, "epochs", validate_every=5), epochs=1.2)  # 21.6 patches in twos
    iterations = tiny_job(tmp_path, "iterations", validate_every=5, iterations=11)
    train_cell(epochs)
    train_cell(iterations)
    assert_same_training(epochs, iterations)
    origins = [read_json(Path(job["output"]) / "cost.json")["identity"] for job in (epochs, iterations)]
    assert origins[0] != origins[1]  # another recipe, which other folds show


def test_fewer_training_patients_make_shorter_epochs(tmp_path):
    tiny_store(tmp_path)
    meta = read_json(tmp_path / "store/store.json")
    meta["condition_settings"] = {"train_patients": 2}
    write_json(tmp_path / "store/store.json", meta)
    job = budget(tiny_job(tmp_path), epochs=1)
    assert iterations_of(job) == 6
    assert train_cell(job)["iterations"] == 6


# --- minutes


@pytest.mark.parametrize(
    ("minutes", "step", "validation", "iterations"),
    [
        (1, 0.5, 0, 120),
        (1, 0.5, 10, 60),  # three times 20 steps and a validation, 20 s
        (1, 0.5, 9, 60),  # three times 19 s; 3 s are too short for another validation
        (1, 0.25, 4, 128),  # six times 9 s, then 8 steps and the last validation
        (1, 0.25, 0, 240),
        (0.5, 100, 0, 1),
        (0.5, 1, 100, 1),
    ],
)
def test_as_many_iterations_as_fit(minutes, step, validation, iterations):
    protocol = {"minutes": minutes, "validate_every": 20}
    assert iterations_within(protocol, step, validation) == iterations


def test_minutes_are_settled_by_the_time_of_steps_and_validations(tmp_path, monkeypatch):
    tiny_store(tmp_path)
    monkeypatch.setattr(trainer, "seconds_per_step", lambda training, seconds: 1 / 16)
    monkeypatch.setattr(trainer, "seconds_per_case", lambda training: 0.25)
    job = budget(tiny_job(tmp_path), minutes=0.05, validate_every=10)  # 3 s; a period is 0.875
    cost = train_cell(job)
    assert cost["iterations"] == 3 * 10 + 2  # 0.375 s are left: 0.25 of them validate
    rows = rows_of(job)[1:]
    assert [row[0] for row in rows if row[3]] == ["10", "20", "30", "32"]
    assert float(rows[-1][2]) == learning_rate(job["protocol"] | {"iterations": 32}, 31)


def test_minutes_are_the_same_training_as_their_iterations(tmp_path):
    tiny_store(tmp_path)
    change = {"validate_every": 50, "score": "best"}
    minutes = budget(tiny_job(tmp_path, "minutes", **change), minutes=0.02)
    cost = train_cell(minutes)
    assert cost["iterations"] > 10
    assert 0.1 < cost["wall_seconds"] / 1.2 < 10  # others may use the machine; the arithmetic is tested elsewhere
    iterations = tiny_job(tmp_path, "iterations", iterations=cost["iterations"], **change)
    train_cell(iterations)
    assert_same_training(minutes, iterations)


@pytest.mark.parametrize("killed", [False, True])
def test_a_resumed_training_keeps_the_iterations_that_were_settled(tmp_path, monkeypatch, killed):
    tiny_store(tmp_path)
    job, whole = budget(tiny_job(tmp_path), minutes=1), tiny_job(tmp_path, "whole", iterations=30)
    train_cell(whole)
    monkeypatch.setattr(trainer, "iterations_within", lambda *times: 30)
    step, stops = trainer.Training.step, [signal.SIGTERM]

    def interrupted(self):
        if self.protocol["iterations"] == 30 and self.progress.iteration == 13 and stops:
            number = stops.pop()
            if killed:
                raise SystemExit(-9)  # nothing is saved
            os.kill(os.getpid(), number)
        step(self)

    monkeypatch.setattr(trainer.Training, "step", interrupted)
    monkeypatch.setattr(trainer, "TIMED_SECONDS", 0.01)
    with pytest.raises(SystemExit):
        train_cell(job)
    monkeypatch.setattr(trainer, "iterations_within", lambda *times: pytest.fail("settled twice"))
    cost = train_cell(job)
    assert cost["iterations"] == 30 and cost["resumed"] == 1
    assert_same_training(job, whole)


def test_losses_and_rates_run_to_the_settled_end(tmp_path, monkeypatch):
    tiny_store(tmp_path)
    seen, forward = [], Criterion.forward

    def spy(self, *arguments, **batch):
        seen.append((batch["iteration"], batch["iterations"]))
        return forward(self, *arguments, **batch)

    monkeypatch.setattr(Criterion, "forward", spy)
    train_cell(budget(tiny_job(tmp_path), epochs=1))
    assert seen == [(i, 9) for i in range(9)]
    seen.clear()
    monkeypatch.setattr(trainer, "iterations_within", lambda *times: 5)
    monkeypatch.setattr(trainer, "TIMED_SECONDS", 0.01)
    train_cell(budget(tiny_job(tmp_path, "minutes"), minutes=1))
    assert seen[-5:] == [(i, 5) for i in range(5)]


# --- who else asks for the budget


def test_a_forecast_of_minutes_and_epochs(tmp_path):
    tiny_store(tmp_path)
    probe = {"steps": [0.5] * 3, "seconds_per_case": 2.0, "parameters": 1, "peak_memory_mb": 1.0}
    probe |= {"kwh_per_second": None, "device": "CPU"}
    minutes = budget(tiny_job(tmp_path), minutes=1, validate_every=20)
    found = estimate_of(probe, minutes, start=5.0, counts=(3, 4))
    # 20 steps and a validation of three cases are 16 s; after three of them 12 s are left, half of them for steps.
    assert found.seconds == pytest.approx(2 * 5 + 60 + 4 * 2)
    epochs = budget(tiny_job(tmp_path), epochs=2, validate_every=20)
    assert estimate_of(probe, epochs, start=5.0, counts=(3, 4)).seconds == pytest.approx(
        2 * 5 + 18 * 0.5 + 1 * 6 + 4 * 2
    )


@pytest.mark.parametrize("given", [{"minutes": 5}, {"epochs": 3}])
def test_a_probe_needs_no_iterations(tmp_path, given):
    tiny_store(tmp_path)
    assert len(probe_training(budget(tiny_job(tmp_path), **given))["steps"]) >= 2


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"iterations": 400, "batch": 8}, "400 iterations of 8 patches"),
        ({"epochs": 1, "batch": 8}, "1 epoch with 8 patches per iteration"),
        ({"minutes": 12.5, "batch": 8}, "12.5 minutes with 8 patches per iteration"),
        ({}, ""),
    ],
)
def test_the_budget_in_words(protocol, words):
    assert budget_text(protocol) == words


# --- TensorBoard

events = pytest.mark.skipif(find_spec("tensorboard") is None, reason="the package tensorboard is not installed")


def points(folder: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads: the points of each curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(folder)
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def assert_shows_the_curve(job: dict) -> None:
    shown, rows = points(job["tensorboard"]), rows_of(job)[1:]
    for column, tag in enumerate(("loss", "lr", "validation_dice"), start=1):
        expected = [(int(row[0]), pytest.approx(float(row[column]), rel=1e-6)) for row in rows if row[column]]
        assert shown[tag] == expected, tag
    assert len(shown) == 3


@events
def test_tensorboard_shows_the_learning_curve_and_changes_nothing(tmp_path, monkeypatch):
    tiny_store(tmp_path)
    logged, silent = tiny_job(tmp_path), tiny_job(tmp_path, "silent")
    train_cell(logged)
    assert_shows_the_curve(logged)
    monkeypatch.setattr("lib.training.events.find_spec", lambda name: None)
    train_cell(silent)
    assert not Path(silent["tensorboard"]).exists()
    assert_same_training(logged, silent)


@events
def test_no_point_is_there_twice_after_an_interruption(tmp_path, monkeypatch):
    tiny_store(tmp_path)
    job, step, running = tiny_job(tmp_path), trainer.Training.step, []

    def killed(self):
        if self.progress.iteration in (5, 13) and self.progress.iteration not in running:
            running.append(self.progress.iteration)
            assert [s for s, _ in points(job["tensorboard"])["loss"]] == list(range(1, self.progress.iteration + 1))
            if len(running) == 2:
                raise SystemExit(-9)  # eight rows after the checkpoint
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(trainer.Training, "step", killed)
    for _ in range(2):
        with pytest.raises(SystemExit):
            train_cell(job)
    train_cell(job)
    assert_shows_the_curve(job)
    assert len(list(Path(job["tensorboard"]).iterdir())) == 1
