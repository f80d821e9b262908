"""Training on CUDA: deterministic steps, mixed precision, resumption. Run where there is a GPU: pytest -m gpu."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from tiny_store import restore_torch, tiny_job, tiny_store  # noqa: F401

from lib.inference.predict import predict_cell
from lib.training import train_cell, trainer
from lib.training.augment import DEFAULTS, augment_batch, complete_settings

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
pytestmark = pytest.mark.gpu

MODELS = [
    {"name": "segnet", "width": 4},
    {"name": "shallow_segnet", "stages": 2, "width": 4},
    {"name": "shallow_segnet", "stages": 2, "width": 4, "upsampling": "unpool"},
    {"name": "unet", "width": 4},
]
LOSSES = [
    {"name": "cross_entropy"},
    {"name": "cross_entropy", "weights": "median_frequency"},
    {"name": "dilated_balanced_cross_entropy", "radius": 2},
]


def weights(job: dict) -> dict[str, torch.Tensor]:
    return torch.load(f"{job['output']}/weights.pt", weights_only=True)


def assert_equal(a: dict, b: dict) -> None:
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture
def tiny(tmp_path):
    tiny_store(tmp_path)
    return tmp_path


def jobs(folder, recipe=MODELS[1], loss=LOSSES[1], **protocol) -> list[dict]:
    both = [tiny_job(folder, output, **protocol) for output in ("first", "second")]
    return [job | {"model": recipe, "loss": loss} for job in both]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("recipe", MODELS, ids=str)
def test_steps_are_deterministic(tiny, recipe, loss):
    first, second = jobs(tiny, recipe, loss, iterations=6, validate_every=3)
    assert train_cell(first)["device"] == torch.cuda.get_device_name()
    train_cell(second)
    assert_equal(weights(first), weights(second))


def test_minutes_are_the_same_training_as_their_iterations(tiny):
    first, second = jobs(tiny, precision="float16", validate_every=50)
    del first["protocol"]["iterations"]
    first["protocol"]["minutes"] = 0.05
    cost = train_cell(first)
    assert cost["iterations"] > 10
    second["protocol"]["iterations"] = cost["iterations"]
    assert train_cell(second)["peak_memory_mb"] == pytest.approx(cost["peak_memory_mb"], rel=0.1)
    assert_equal(weights(first), weights(second))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_and_repeats(tiny, precision):
    change = {"precision": precision, "iterations": 200, "batch": 4, "lr": 1e-2, "validate_every": 200}
    first, second = jobs(tiny, loss=LOSSES[0], augment=False, **change)
    assert train_cell(first)["validation_dice"] > 0.75
    train_cell(second)
    assert_equal(weights(first), weights(second))


@pytest.mark.parametrize("change", [{"precision": "float16", "score": "best"}, {"optimizer": "sgd"}])
def test_resumption_is_exact(tiny, monkeypatch, change):
    whole, broken = jobs(tiny, **change)
    train_cell(whole)
    step = trainer.Training.step

    def stopped(self):
        if self.progress.iteration == 10 and not self.progress.resumed:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(trainer.Training, "step", stopped)
    with pytest.raises(SystemExit):
        train_cell(broken)
    torch.cuda.manual_seed(99)
    result = train_cell(broken)
    assert result["resumed"] == 1
    assert_equal(weights(broken), weights(whole))


def test_cost(tiny):
    job = tiny_job(tiny)
    cost = train_cell(job)
    assert 0 < cost["peak_memory_mb"] < 2000
    assert cost["gpu_hours"] == pytest.approx(cost["wall_seconds"] / 3600)
    assert cost["energy_kwh"] is None or 0 <= cost["energy_kwh"] < 1


@pytest.mark.parametrize("dims", [2, 3])
def test_augmentation_draws_the_same_on_both_devices(dims):
    settings = complete_settings({n: {"probability": 1.0} for n in DEFAULTS} | {"noise": False})
    image = torch.randn((3, 2, *[20, 24, 28][:dims]))
    label = torch.randint(0, 4, (3, *image.shape[2:]))
    spacing = torch.ones(3, dims, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        new = augment_batch(image.to(device), label.to(device), spacing, settings, generator)
        results.append([t.cpu() for t in new])
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-3, rtol=1e-3)
    assert (results[0][1] == results[1][1]).float().mean() > 0.99  # nearest: ties may round either way


def test_prediction(tiny):
    job = tiny_job(tiny, iterations=4)
    train_cell(job)
    keys = ("cell", "model", "protocol", "store", "splits", "threads")
    paths = {"training": job["output"], "index": str(tiny / "index.csv"), "output": str(tiny / "predictions")}
    assert predict_cell({key: job[key] for key in keys} | paths)["cases"] == 1


def test_three_dimensions(tmp_path):
    tiny_store(tmp_path, spatial_dims=3, shape=(16, 36, 36))
    for recipe in MODELS:
        first, second = jobs(tmp_path, recipe, patch=[16, 32, 32], iterations=3, validate_every=3)
        if recipe["name"] == "segnet":
            first["protocol"]["patch"] = second["protocol"]["patch"] = [32, 32, 32]
        train_cell(first)
        train_cell(second)
        assert_equal(weights(first), weights(second))
        assert all(t.isfinite().all() for t in weights(first).values())
