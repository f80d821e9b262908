"""P-Net and PC-Net: counts, receptive fields, the forward pass written out, features that block 6 can be tuned on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, on_meta

from lib.errors import BadInput
from lib.models import build_model


def narrow(name: str, spatial_dims: int, inputs: int = 2) -> torch.nn.Module:
    return build({"name": name, "width": 4}, spatial_dims, channels=(inputs, 3))


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
    model = on_meta(recipe, 1, 2, spatial_dims)
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
    model = narrow("pnet", spatial_dims).eval()
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
    model = narrow("pcnet", len(size)).eval()
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
    model = narrow(name, 2).eval()
    x = torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        cached = model.features(x)
    assert cached.shape == (1, channels, 20, 20)
    model.classifier(cached).square().sum().backward()
    tuned = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    assert set(tuned) == {f"classifier.{layer}.{kind}" for layer in (1, 4) for kind in ("weight", "bias")}
    model.zero_grad()
    model(x).square().sum().backward()
    for key, gradient in tuned.items():
        torch.testing.assert_close(model.get_parameter(key).grad, gradient)


@pytest.mark.parametrize("name", ["pnet", "pcnet"])
def test_dropout_before_each_convolution_of_block_6(name):
    """Of single values, in training only."""
    model = build({"name": name, "width": 4, "dropout": 0.25}, channels=(2, 3))
    seen = {}
    for number in (1, 4):
        model.classifier[number].register_forward_pre_hook(
            lambda _, args, number=number: seen.update({number: args[0]})
        )
    x = torch.randn(2, 2, 40, 40)
    features = model.features(x)
    model(x)
    kept = seen[1] != 0
    assert (kept & (features != 0)).sum() / (features != 0).sum() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(seen[1][kept], features[kept] / 0.75)
    model.eval()(x)
    torch.testing.assert_close(seen[1], features)
    torch.testing.assert_close(seen[4], F.relu(model.classifier[1](features)))
    assert build({"name": name, "width": 4}).classifier[0].p == model.classifier[3].p * 2 == 0.5


def test_bad_recipes_are_explained():
    with pytest.raises(BadInput, match="'pcnet' needs an integer compressed of at least 1, not -1"):
        build_model({"name": "pcnet", "compressed": -1}, 1, 2, 3)
    with pytest.raises(BadInput, match=r"'pnet' needs a dropout of at least 0 and below 1, not 1"):
        build_model({"name": "pnet", "dropout": 1}, 1, 2, 3)
