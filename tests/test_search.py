"""The search: who learns from which half, no test or validation image, its end, and that an interruption changes no bit."""

from __future__ import annotations

import csv
import math
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from tiny_store import SPLITS, restore_torch, tiny_store  # noqa: F401

from lib.data.store import open_store
from lib.errors import BadInput, Diverged
from lib.files import read_json
from lib.models import build_model
from lib.search import darts
from lib.search.darts import halves, search_cells
from lib.search.space import derive
from lib.training import trainer

SETTINGS = {
    "patch": [16, 16], "width": 4, "depth": 1, "nodes": 2, "epochs": 3, "batch": 3, "optimizer": "sgd", "lr": 0.1,
    "lr_end": 0.02, "momentum": 0.9, "weight_decay": 3e-4, "clip": 5.0, "alphas_from": 1, "alphas_lr": 0.01,
    "alphas_weight_decay": 5e-3, "patience": 40, "foreground": 0.5, "augment": {}, "precision": "float32", "threads": 1,
    "checkpoint_minutes": 10.0,
}  # fmt: skip
EPOCH = 2  # iterations: one patient of 6 slices teaches the weights, in batches of 3


def job(folder: Path, output: str = "training", seed: int = 0, **settings) -> dict:
    names = {"dataset": "tiny", "condition": "clean", "protocol": "brief", "architecture": "nas_unet", "loss": "search"}
    return {
        "cell": names | {"fold": 0, "seed": seed},
        "settings": SETTINGS | settings,
        "loss": {"name": "dice", "squared": True},
        "store": str(folder / "store"),
        "splits": str(folder / "splits.json"),
        "certificate": str(folder / "certificate.json"),
        "output": str(folder / output),
        "checkpoints": str(folder / f"{output}_checkpoints"),
        "tensorboard": str(folder / f"{output}_tensorboard"),
        "code": "0",
        "threads": 1,
    }


def found(job: dict) -> dict:
    return yaml.safe_load((Path(job["output"]) / "genotype.yaml").read_text())


def rows(job: dict, name: str) -> list[dict]:
    with (Path(job["output"]) / name).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def started(tmp_path, monkeypatch) -> tuple[darts.Search, dict]:
    """A search before its first step."""
    tiny_store(tmp_path)
    made = []

    def stop(*arguments):
        made.append(set_up(*arguments))
        raise InterruptedError

    set_up = darts.set_up
    monkeypatch.setattr(darts, "set_up", stop)
    with pytest.raises(InterruptedError):
        search_cells(job(tmp_path))
    return made[0]


def copies(parameters) -> list[torch.Tensor]:
    return [p.detach().clone() for p in parameters]


def moved(before: list[torch.Tensor], now) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(before, now, strict=True)]


class Untouchable:
    def draw(self):
        pytest.fail("a batch of the other half was drawn")


def test_weights_learn_from_one_half_and_alphas_from_the_other(started):
    weights, alphas = started.model.weights(), list(started.model.alphas.values())
    halves_of = {
        part: {tuple(c.image[0, :, 0, 0]) for c in s.cases}
        for part, s in (("w", started.sampler), ("a", started.alphas))
    }
    assert len(halves_of["w"]) == 1 and len(halves_of["a"]) == 2 and not halves_of["w"] & halves_of["a"]

    before, sampler, started.sampler = (copies(weights), copies(alphas)), started.sampler, Untouchable()
    started.step_of_alphas()
    assert all(w.grad is None for w in weights) and not any(moved(before[0], weights))
    assert all(moved(before[1], alphas))

    started.sampler, started.alphas = sampler, Untouchable()
    before = copies(weights), copies(alphas)
    gradients = copies(a.grad for a in alphas)
    started.step_of_weights()
    assert not any(moved(gradients, (a.grad for a in alphas))) and not any(moved(before[1], alphas))
    assert all(moved(before[0], weights))
    norm = math.sqrt(sum(float(w.grad.square().sum()) for w in weights))
    assert norm <= SETTINGS["clip"] * (1 + 1e-5)


def test_the_gradient_of_an_alpha_is_the_slope_of_the_loss(started):
    started.augment = None
    model = started.model.double()
    state = started.alphas.generator.get_state()

    def loss() -> torch.Tensor:
        started.alphas.generator.set_state(state)
        torch.manual_seed(0)  # dropout
        image, label, _ = started.alphas.draw()
        return started.loss(model.train()(image.double()), label, iteration=0, iterations=1, ignored=False)

    value = loss()
    value.backward(inputs=list(model.alphas.values()))
    for kind, row, column in (("down", 0, 2), ("up", 1, 1), ("normal", 4, 6), ("normal", 0, 1)):
        alpha, step = model.alphas[kind], 1e-4
        slope = []
        for sign in (1, -1):
            with torch.no_grad():
                alpha[row, column] += sign * step
                slope.append(float(loss()))
                alpha[row, column] -= sign * step
        expected = (slope[0] - slope[1]) / (2 * step)
        assert float(alpha.grad[row, column]) == pytest.approx(expected, rel=1e-3, abs=1e-8) and expected != 0
    assert not model.alphas["up"].grad[0].any() and not model.alphas["normal"].grad[1].any()  # edges of another kind


def test_no_image_of_a_test_or_validation_patient_is_opened(tmp_path):
    tiny_store(tmp_path)
    fold = SPLITS["folds"][0]
    for patient in fold["validation"] + fold["test"]:
        for file in (tmp_path / "store").glob(f"{patient}_*.npy"):
            file.unlink()
    given = job(tmp_path, epochs=2)
    search_cells(given)
    patients = found(given)["patients"]
    assert sorted(patients["weights"] + patients["alphas"]) == fold["train"]


def test_what_a_search_leaves(whole):
    given = whole[0]
    cost = read_json(Path(given["output"]) / "cost.json")
    assert sorted(p.name for p in Path(given["output"]).iterdir()) == [
        "alphas.csv",
        "cost.json",
        "curve.csv",
        "genotype.yaml",
    ]
    recipe = found(given)
    assert recipe["found_by"] == {"search": "brief", "dataset": "tiny", "condition": "clean", "fold": 0, "seed": 0}
    assert recipe["data"] == cost["data"] and recipe["settings"]["alphas_lr"] == 0.01
    assert recipe["settings"]["loss"] == given["loss"] and "checkpoint_minutes" not in recipe["settings"]
    network = build_model(recipe["architecture"] | {"width": 4, "depth": 1}, 1, 3, 2)
    assert network(torch.rand(1, 1, 9, 8)).shape == (1, 3, 9, 8)

    curve, alphas = rows(given, "curve.csv"), rows(given, "alphas.csv")
    assert [(r["epoch"], r["iteration"]) for r in curve] == [("1", "2"), ("2", "4"), ("3", "6")]
    assert [bool(r["alphas_loss"]) for r in curve] == [False, True, True]
    # a cosine over the epochs from 0.1 to 0.02: (1 + cos(π e / 3)) / 2 is 1, 3/4, 1/4
    assert [float(r["lr"]) for r in curve] == pytest.approx([0.1, 0.08, 0.04])
    assert float(curve[0]["entropy"]) > float(curve[2]["entropy"]) > 0.9
    assert cost["iterations"] == 3 * EPOCH and cost["wall_seconds"] > 0
    shares = {(r["operations"], int(r["node"]), int(r["state"])): [] for r in alphas}
    for row in alphas:
        shares[row["operations"], int(row["node"]), int(row["state"])].append(float(row["weight"]))
    assert all(sum(row) == pytest.approx(1) for row in shares.values())
    edges = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    weights = {
        kind: [shares.get((kind, *edge), [0.0] * n) for edge in edges]
        for kind, n in (("down", 6), ("up", 4), ("normal", 7))
    }
    assert derive(weights, 2) == recipe["architecture"]["genotype"]


def test_alphas_wait_for_their_epoch_and_patience_ends_a_search(tmp_path):
    tiny_store(tmp_path)
    given = job(tmp_path, epochs=9, alphas_from=2, alphas_lr=1e-12, alphas_weight_decay=0.0, patience=1)
    assert search_cells(given)["iterations"] == 3 * EPOCH
    curve = rows(given, "curve.csv")
    # The genotype after 2 epochs is the first that counts; the third leaves it as it was.
    assert [int(r["unchanged"]) for r in curve] == [0, 0, 1]
    assert [bool(r["alphas_loss"]) for r in curve] == [False, False, True]


def test_halves_are_patients_and_follow_the_seed(tmp_path):
    tiny_store(tmp_path)
    store = open_store(tmp_path / "store")
    cases = [f"p{i}_a" for i in range(5)]
    drawn = [
        halves(store, cases, {"protocol": "brief", "dataset": "tiny", "fold": 0, "seed": seed}) for seed in range(20)
    ]
    assert all(len(h["weights"]) == 2 and sorted(h["weights"] + h["alphas"]) == cases for h in drawn)
    assert drawn[0] == halves(store, cases, {"fold": 0, "seed": 0}) and len({tuple(h["weights"]) for h in drawn}) > 4
    with pytest.raises(BadInput, match="fold 0 of dataset tiny has 1 training patient; a search needs two"):
        halves(store, cases[:1], {"protocol": "brief", "dataset": "tiny", "fold": 0, "seed": 0})


def outcome(given: dict) -> list:
    curve = [{k: v for k, v in row.items() if k != "seconds"} for row in rows(given, "curve.csv")]
    return [(Path(given["output"]) / name).read_bytes() for name in ("genotype.yaml", "alphas.csv")] + [curve]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, list]:
    """A search that nobody interrupted, and what it left."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_store(folder)
    given = job(folder)
    search_cells(given)
    return given, outcome(given)


def test_another_seed_finds_another_genotype(tmp_path, whole):
    tiny_store(tmp_path)
    given = job(tmp_path, seed=1)
    search_cells(given)
    assert outcome(given)[0] != whole[1][0]
    assert found(given)["architecture"] != found(whole[0])["architecture"]


@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("killed", marks=pytest.mark.slow)])
def test_an_interruption_at_any_iteration_changes_no_bit(tmp_path, whole, monkeypatch, how):
    tiny_store(tmp_path)
    given = job(tmp_path, checkpoint_minutes=0 if how == "killed" else 10)
    step, met = darts.Search.step, set()

    def interrupted(self):
        at = self.progress.iteration
        if at not in met:
            met.add(at)
            if how == "killed":
                raise KeyboardInterrupt  # nothing is written on the way out
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(darts.Search, "step", interrupted)
    for _ in range(3 * EPOCH):
        with pytest.raises(KeyboardInterrupt if how == "killed" else SystemExit):
            search_cells(given)
        torch.manual_seed(random.randrange(99))
    cost = search_cells(given)
    assert met == set(range(3 * EPOCH)) and cost["resumed"] >= 3 * EPOCH - 1
    assert outcome(given) == whole[1]


def test_a_finished_search_is_handed_over(whole, monkeypatch):
    monkeypatch.setattr(darts.Search, "step", lambda self: pytest.fail("searched again"))
    shutil.rmtree(whole[0]["output"])
    search_cells(whole[0])
    assert outcome(whole[0]) == whole[1]


def test_faults(tmp_path, monkeypatch):
    tiny_store(tmp_path)
    with pytest.raises(BadInput, match=r"patch .* must have 2 sizes"):
        search_cells(job(tmp_path, patch=[16, 16, 16]))
    with pytest.raises(BadInput, match="has no features to look at"):
        search_cells(job(tmp_path) | {"loss": {"name": "mutual_information"}})
    with pytest.raises(Diverged, match="loss of the alphas"):
        loss_of = trainer.Training.loss_of

        def infinite(self, sampler):
            return loss_of(self, sampler) * (math.inf if sampler is self.alphas else 1)

        monkeypatch.setattr(trainer.Training, "loss_of", infinite)
        monkeypatch.setattr(darts.Search, "step_of_weights", lambda self: self.pending.append(torch.zeros(())))
        search_cells(job(tmp_path))
