"""A training step per architecture × loss is deterministic to the bit: on CPUs always, on CUDA where there is one.

Operations that raise or vary under deterministic CUDA do neither on CPUs, so only the CUDA half proves them.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts

import pytest
import torch
from model_variants import UNET, VARIANTS, Variant, build

from lib.losses import available as losses
from lib.losses import build_loss
from lib.losses.recipes import is_auxiliary
from lib.models.layers import max_unpool, upsample_linear

LOSSES = [{"name": name} for name in losses() if not is_auxiliary(name)] + [
    {"name": "cross_entropy", "weights": "median_frequency"},
    {"name": "dilated_balanced_cross_entropy", "radius": 2, "combine": "max", "frequency": "batch"},
    {"name": "topk_bottom_all_but_sigma", "of": {"name": "focal"}},
    {"sum": [{"weight": 1.0, "loss": {"name": "dice"}}, {"weight": 1.0, "loss": {"name": "cross_entropy"}}]},
]
# Network and loss share no operation, so each of both once covers them; CUDA also gets the full cross, in float32.
FLAT = [variant for variant in VARIANTS if 2 in variant.dims]
PLAIN = next(variant for variant in VARIANTS if variant.recipe == UNET)
PAIRS = [(variant, {"name": "cross_entropy"}) for variant in FLAT if variant != PLAIN]
PAIRS += [(PLAIN, loss) for loss in LOSSES]
CONTEXT = {
    "classes": 4,
    "class_frequencies": {"voxels": [70, 10, 12, 8], "voxels_of_cases_with_class": [100] * 4},
}
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


def label(recipe: dict | Variant) -> str:
    return str(recipe) if isinstance(recipe, Variant) else "-".join(str(value) for value in recipe.values())


def weights_after_a_step(
    variant: Variant, loss: dict, device: str, dtype: torch.dtype, size: tuple[int, ...]
) -> dict[str, torch.Tensor]:
    network = build(variant.recipe, len(size), channels=(1, 4)).to(device)
    criterion = build_loss(loss, **CONTEXT).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    images = torch.randn(2, 1, *size).to(device)
    target = torch.randint(0, 4, (2, *size)).to(device)
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        logits = network(images)
    assert (logits if variant.outputs == 1 else logits[0]).shape == (2, 4, *size)
    value = criterion(logits, target)
    (value * (1024 if dtype == torch.float16 else 1)).backward()  # float16 gradients need a scale
    assert value.isfinite()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
    optimizer.step()
    return network.state_dict()


def assert_same_to_the_bit(variant: Variant, loss: dict, device: str, dtype: torch.dtype, size: tuple[int, ...]):
    first, second = (weights_after_a_step(variant, loss, device, dtype, size) for _ in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), f"{name} differs between two equal runs"


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("model", "loss"), PAIRS, ids=label)
def test_two_equal_training_steps_end_with_equal_weights(model, loss, dtype, device, deterministic):
    size = (32, 37) if device == "cpu" else (96, 101)
    assert_same_to_the_bit(model, loss, device, dtype, size)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("loss", LOSSES, ids=label)
@pytest.mark.parametrize("model", FLAT, ids=label)
def test_two_equal_steps_of_every_pair(model, loss, device, deterministic):
    assert_same_to_the_bit(model, loss, device, torch.float32, (96, 101))


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("model", "loss"), PAIRS, ids=label)
def test_two_equal_float16_steps_end_with_equal_weights(model, loss, device, deterministic):
    assert_same_to_the_bit(model, loss, device, torch.float16, (96, 101))


@pytest.mark.parametrize("device", [CUDA])  # on CPUs: test_models.py
@pytest.mark.parametrize("model", [variant for variant in VARIANTS if 3 in variant.dims], ids=label)
def test_two_equal_volume_steps_end_with_equal_weights(model, device, deterministic):
    assert_same_to_the_bit(model, {"name": "cross_entropy"}, device, torch.float32, (32, 33, 32))


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("size", [(24, 26), (25, 27), (8, 9, 11)], ids=str)
def test_resampling_on_cuda_equals_that_of_the_cpu(size, device, deterministic):
    pool = {2: torch.nn.functional.max_pool2d, 3: torch.nn.functional.max_pool3d}[len(size)]
    x = torch.randn(2, 8, *size)
    pooled, indices = pool(x, 2, 2, return_indices=True)
    upstream = torch.randn(2, 8, *size)
    for resample, tolerance in (
        (lambda x: max_unpool(x, indices.to(x.device), size), 0),
        (lambda x: upsample_linear(x, size), 1e-5),
    ):
        results = []
        for where in ("cpu", device):
            leaf = pooled.clone().to(where).requires_grad_()
            value = resample(leaf)
            value.backward(upstream.to(where))
            results.append((value.detach().cpu(), leaf.grad.cpu()))
        torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("loss", LOSSES, ids=label)
def test_losses_on_cuda_equal_those_of_the_cpu(loss, device, deterministic):
    logits, target = torch.randn(2, 4, 40, 33), torch.randint(0, 4, (2, 40, 33))
    criterion = build_loss(loss, **CONTEXT)  # stays on the CPU: its weights follow the logits
    torch.testing.assert_close(criterion(logits.to(device), target.to(device)).cpu(), criterion(logits, target))
