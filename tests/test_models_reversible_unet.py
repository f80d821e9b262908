"""Partially reversible U-Net: the published count, the forward pass written out, gradients and memory of both forms."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, parameters
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lib.errors import BadInput

RECIPE = {"name": "reversible_unet", "width": 4}


def test_parameter_count():
    assert parameters({"name": "reversible_unet"}, 4, 3, 3) == 12_365_283


@pytest.mark.parametrize("shape", [(2, 2, 32, 48), (1, 2, 16, 32, 16)])
def test_equals_a_plain_forward_pass(shape):
    model = build(RECIPE, len(shape) - 2)
    conv, pool, mode = (
        (F.conv2d, F.max_pool2d, "bilinear") if len(shape) == 4 else (F.conv3d, F.max_pool3d, "trilinear")
    )
    x = torch.randn(shape)

    def half(part, y):
        y = F.group_norm(y, 2, part.norm.weight, part.norm.bias)
        return conv(F.leaky_relu(y, 0.01), part.conv.weight, padding=1)

    def block(sequence, y):
        (b,) = sequence.blocks
        y1, y2 = y.tensor_split(2, dim=1)
        y1 = y1 + half(b.f, y2)
        return torch.cat([y1, y2 + half(b.g, y1)], 1)

    y = block(model.encoder[0], conv(x, model.first.weight, padding=1))
    skips = []
    for k in range(4):
        skips.append(y)
        y = block(model.encoder[k + 1], model.down[k](pool(y, 2)))
    assert [s.shape[1] for s in [*skips, y]] == [4, 8, 16, 24, 32]
    y = block(model.decoder[0], y)
    for k in range(4):
        y = F.interpolate(model.up[k](y), scale_factor=2, mode=mode) + skips.pop()
        y = block(model.decoder[k + 1], y)
    torch.testing.assert_close(model(x), model.classifier(y), rtol=1e-4, atol=1e-5)


def pair(spatial_dims: int, **options) -> list[nn.Module]:
    """The same network with and without the memory of its activations."""
    return [build({**RECIPE, **options, "reversible": flag}, spatial_dims) for flag in (True, False)]


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("size", [(33, 48), (17, 16, 16)])
def test_gradients_equal_those_of_ordinary_autograd(size, blocks):
    x = torch.randn(1, 2, *size, dtype=torch.double)
    logits, gradients = [], []
    for model in pair(len(size), blocks=blocks):
        model.double()
        image = x.clone().requires_grad_()
        logits.append(model(image))
        (logits[-1] * torch.linspace(-1, 1, logits[-1].numel()).view(logits[-1].shape)).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()} | {"image": image.grad})
    assert torch.equal(*logits)
    for name, expected in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-8, atol=1e-10)


def test_float32_computes_inputs_back_closely_enough():
    """Over a sequence of 8 blocks, a hundred times more than rounding alone costs, and far below a gradient's noise."""
    gradients = []
    for model in pair(2, blocks=8):
        torch.manual_seed(1)
        model(torch.randn(2, 2, 32, 32)).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_gradients_under_bfloat16_autocast():
    """The stream stays in float32, so both forms see the same numbers in each convolution."""
    gradients = []
    for model in pair(2, blocks=2):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.randn(2, 2, 32, 32))
            loss = logits.float().square().mean()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()


def test_a_frozen_weight_gets_no_gradient_and_the_others_theirs():
    gradients = []
    for model in pair(2):
        model.encoder[1].blocks[0].f.conv.weight.requires_grad_(False)
        torch.manual_seed(1)
        model(torch.randn(1, 2, 32, 32)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert gradients[0].count(None) == 1
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def kept(model: nn.Module, x: Tensor) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass, each storage once."""
    ours = {p.untyped_storage().data_ptr() for p in model.parameters()} | {x.untyped_storage().data_ptr()}
    storages: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(x)
    assert logits.requires_grad
    return sum(t.untyped_storage().nbytes() for address, t in storages.items() if address not in ours)


def test_memory_of_activations():
    """A third of the ordinary memory at one block per level; more blocks cost nothing more."""
    x = torch.randn(1, 2, 32, 32, 32)
    (one, ordinary), (three, ordinary_three) = (
        [kept(model, x) for model in pair(3, blocks=blocks)] for blocks in (1, 3)
    )
    assert ordinary > 2.8 * one
    assert ordinary_three > 5.5 * three
    assert three == one


@pytest.mark.slow
def test_peak_memory_of_a_step():
    """All tensors of forward and backward together, by torch's profiler."""
    peaks = []
    for model in pair(3, blocks=3, width=24):  # narrower, and buffers of the CPU's convolutions hide all else
        x = torch.rand(1, 2, 48, 48, 48)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            model(x).square().mean().backward()
        events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
        peaks.append(max(accumulate(changes)))
    assert peaks[1] > 2 * peaks[0]


def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        logits = build(RECIPE)(torch.rand(1, 2, 32, 32))
    assert logits.grad_fn is None


def test_bad_recipes_are_explained():
    with pytest.raises(BadInput, match="'reversible_unet' needs an even width, which it halves, not 5"):
        build({**RECIPE, "width": 5})
    with pytest.raises(BadInput, match="needs reversible to be true or false, not 'no'"):
        build({**RECIPE, "reversible": "no"})
