"""Networks with a list of logits, a network inside or a backward pass of their own go through the trainer as the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_store import restore_torch, tiny_job, tiny_store  # noqa: F401

from lib.models import build_model
from lib.training import train_cell

pytestmark = pytest.mark.slow

UNET = {"name": "unet", "width": 4, "deep_supervision": True}


def trained(folder: Path, recipe: dict, output: str, **protocol) -> tuple[dict, dict[str, torch.Tensor]]:
    job = {**tiny_job(folder, output, iterations=12, validate_every=6, **protocol), "model": recipe}
    job["cell"] = {**job["cell"], "architecture": output}
    cost = train_cell(job)
    return cost, torch.load(Path(job["output"]) / "weights.pt", weights_only=True)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "recipe",
    [
        UNET,
        {**UNET, "residual": True, "normalisation": "instance"},
        {"name": "unet_plus_plus", "width": 4, "deep_supervision": True},
        {"name": "hdc_duc", "of": UNET},
        {"name": "reversible_unet", "width": 4},
        {"name": "u2net_3d", "width": 4, "pools": 3},
        {"name": "pnet", "width": 4},
    ],
    ids=lambda recipe: "-".join(map(str, recipe.values())),
)
def test_trains_validates_and_repeats_itself(tmp_path, recipe, dims):
    size = {2: (6, 40, 36), 3: (32, 40, 36)}[dims]
    tiny_store(tmp_path, dims, size)
    patch = {"patch": [32, 32]} if dims == 2 else {"patch": [32, 32, 32], "augment": False}
    cost, weights = trained(tmp_path, recipe, "one", **patch)
    again, same = trained(tmp_path, recipe, "two", **patch)
    assert cost["validation_dice"] == again["validation_dice"] is not None
    assert cost["flops"] > 0 and cost["parameters"] > 0
    assert all(torch.equal(t, same[name]) for name, t in weights.items())
    build_model(recipe, 1, 3, dims).load_state_dict(weights)


def test_the_reversible_network_trains_as_the_ordinary_one(tmp_path):
    tiny_store(tmp_path)
    recipe = {"name": "reversible_unet", "width": 4, "blocks": 2}
    results = [trained(tmp_path, {**recipe, "reversible": flag}, str(flag)) for flag in (True, False)]
    (cost, weights), (ordinary, expected) = results
    assert weights.keys() == expected.keys()
    for name, t in weights.items():
        torch.testing.assert_close(t, expected[name], rtol=1e-2, atol=1e-3)
    assert cost["flops"] == ordinary["flops"]
