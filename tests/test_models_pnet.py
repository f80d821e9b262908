"""P-Net and PC-Net: counts, receptive fields, the forward pass written out, features that block 6 can be tuned on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lib.errors import BadInput
from lib.models import build_model


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def narrow(name: str, spatial_dims: int, inputs: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model({"name": name, "width": 4}, inputs, 3, spatial_dims)


@pytest.mark.parametrize(
    ("recipe", "spatial_dims", "total", "block6"),
    [
        ({"name": "pnet"}, 2, 464_450, 20_674),
        ({"name": "pcnet"}, 3, 676_626, 5_314),
        ({"name": "pcnet", "compressed": 16}, 3, 676_626, 5_314),
        ({"name": "pcnet", "width": 32}, 3, 169_866, 1_378),
        ({"name": "pcnet", "width": 16}, 3, 42_822, 370),
    ],
)
def test_parameter_counts(recipe, spatial_dims, total, block6):
    with torch.device("meta"):
        model = build_model(recipe, 1, 2, spatial_dims)
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(p.numel() for p in model.classifier.parameters()) == block6


@pytest.mark.parametrize(("name", "field"), [("pnet", (181, 181)), ("pcnet", (9, 85, 85))])
def test_receptive_field(name, field):
    model = build_model({"name": name, "width": 1}, 1, 2, len(field))
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)  # positive throughout: nothing cancels and no ReLU is shut
    size = [n + 4 for n in field]
    x = torch.ones(1, 1, *size, requires_grad=True)
    model.features(x)[(0, slice(None), *[n // 2 for n in size])].sum().backward()
    seen = x.grad[0, 0].nonzero()
    assert tuple((seen.max(0).values - seen.min(0).values + 1).tolist()) == field


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_pnet_equals_a_plain_forward_pass(spatial_dims):
    model = narrow("pnet", spatial_dims)
    conv = F.conv2d if spatial_dims == 2 else F.conv3d
    parameters = iter(model.parameters())
    x = y = torch.randn(2, 2, *(20, 18, 17)[:spatial_dims])
    blocks = []
    with torch.no_grad():
        for dilation, depth in ((1, 2), (2, 2), (4, 3), (8, 3), (16, 3)):
            for _ in range(depth):
                y = F.relu(conv(y, next(parameters), next(parameters), padding=dilation, dilation=dilation))
            blocks.append(y)
        y = F.relu(conv(torch.cat(blocks, 1), next(parameters), next(parameters)))
        expected = conv(y, next(parameters), next(parameters))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert next(parameters, None) is None


@pytest.mark.parametrize("size", [(9, 12), (5, 9, 12)])
def test_pcnet_equals_a_plain_forward_pass(size):
    model = narrow("pcnet", len(size))
    conv = F.conv2d if len(size) == 2 else F.conv3d
    convolutions, compressions = iter(model.blocks.parameters()), iter(model.compress.parameters())
    x = y = torch.randn(2, 2, *size)
    blocks = []
    with torch.no_grad():
        for dilation, depth in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)):
            through = 1 if dilation <= 2 else 0
            for _ in range(depth):
                weight, bias = next(convolutions), next(convolutions)
                in_plane = {"padding": dilation, "dilation": dilation}
                if len(size) == 3:
                    assert weight.shape[2:] == (1 + 2 * through, 3, 3)
                    in_plane = {"padding": (through, dilation, dilation), "dilation": (1, dilation, dilation)}
                y = F.relu(conv(y, weight, bias, **in_plane))
            blocks.append(conv(y, next(compressions), next(compressions)))
        expected = model.classifier(torch.cat(blocks, 1))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "channels"), [("pnet", 20), ("pcnet", 5)])
def test_block_6_tunes_on_cached_features(name, channels):
    model = narrow(name, 2)
    x = torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        cached = model.features(x)
    assert cached.shape == (1, channels, 20, 20)
    model.classifier(cached).square().sum().backward()
    tuned = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    assert set(tuned) == {f"classifier.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    model.zero_grad()
    model(x).square().sum().backward()
    for key, gradient in tuned.items():
        torch.testing.assert_close(model.get_parameter(key).grad, gradient)


@pytest.mark.parametrize(("name", "size"), [("pnet", (17, 30)), ("pnet", (17, 18, 19)), ("pcnet", (3, 6, 9))])
def test_deterministic_and_every_parameter_learns(name, size, deterministic):
    gradients = []
    for _ in range(2):
        model = narrow(name, len(size))
        torch.manual_seed(1)
        logits = model(torch.rand(2, 2, *size))
        assert logits.shape == (2, 3, *size)
        logits.square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) and a.any() for a, b in zip(*gradients, strict=True))


def test_bad_recipes_and_inputs_are_explained():
    with pytest.raises(BadInput, match="'pcnet' needs an integer compressed of at least 1, not -1"):
        build_model({"name": "pcnet", "compressed": -1}, 1, 2, 3)
    with pytest.raises(BadInput, match=r"'pnet' needs at least 17 pixels .* 40 × 16"):
        narrow("pnet", 2)(torch.rand(1, 2, 40, 16))
    with pytest.raises(BadInput, match=r"'pcnet' needs at least 6 pixels .* 40 × 5"):
        narrow("pcnet", 3)(torch.rand(1, 2, 2, 40, 5))
