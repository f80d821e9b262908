"""nnU-Net's networks: the published counts, the forward pass written out, anisotropic plans, deep supervision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, parameters
from torch import nn

from lib.errors import BadInput
from lib.models import build_model

PLAN = {"stages": 3, "width": 4, "strides": [1, [1, 2, 2], 2], "kernels": [[1, 3, 3], 3, 3]}


@pytest.mark.parametrize(
    ("recipe", "dims", "count"),
    # Of dynamic-network-architectures 0.4.4 by the authors, which has classifiers of all stages: minus the idle ones.
    [
        ({"name": "nnunet"}, 3, 31_197_204 - 3_088),
        ({"name": "nnunet", "deep_supervision": True}, 3, 31_197_204 - 4 * (320 + 1)),
        ({"name": "nnunet", "stages": 8}, 2, 46_328_604 - 7_960),
        ({"name": "nnunet", "stages": 7}, 2, 33_474_840 - 5_908),
        ({"name": "nnunet_resenc"}, 3, 102_351_380 - 3_088),
        ({"name": "nnunet_resenc", "stages": 8}, 2, 140_021_084 - 7_960),
    ],
)
def test_parameter_counts(recipe, dims, count):
    assert parameters(recipe, 1, 4, dims) == count


def stacked(layers, x):
    """Convolution, instance normalisation, leaky ReLU, as many times as there are."""
    for conv, norm in zip(layers[::3], layers[1::3], strict=True):
        x = F.conv2d(x, conv.weight, conv.bias, stride=conv.stride, padding=1)
        x = F.leaky_relu(F.instance_norm(x, weight=norm.weight, bias=norm.bias), 0.01)
    return x


def back_up(model, skips):
    x = skips.pop()
    for up, stage in zip(model.decoder.up, model.decoder.stages, strict=True):
        x = F.conv_transpose2d(x, up.weight, up.bias, stride=2)
        x = stacked(stage, torch.cat([x, skips.pop()], 1))
    head = model.decoder.classifiers[0]
    return F.conv2d(x, head.weight, head.bias)


def awake(recipe):
    """The network with random scales: the residual blocks' start at 0, which would hide them."""
    model = build(recipe).eval()
    for layer in model.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model


def test_plain_network_equals_a_plain_forward_pass():
    model, x = awake({"name": "nnunet", "stages": 4, "width": 4}), torch.rand(2, 2, 32, 24)
    with torch.no_grad():
        y, skips = x, []
        for stage in model.encoder:
            y = stacked(stage, y)
            skips.append(y)
        assert [s.shape[1] for s in skips] == [4, 8, 16, 32]
        torch.testing.assert_close(model(x), back_up(model, skips), rtol=1e-4, atol=1e-5)


def test_residual_network_equals_a_plain_forward_pass():
    model, x = awake({"name": "nnunet_resenc", "stages": 4, "width": 4}), torch.rand(2, 2, 32, 24)
    with torch.no_grad():
        y, skips = stacked(model.stem, x), []
        for number, stage in enumerate(model.encoder):
            for position, block in enumerate(stage):
                (conv, norm), shortcut = block.second, y
                if number and position == 0:
                    shortcut = F.conv2d(F.avg_pool2d(y, 2), block.project[0].weight)
                    shortcut = F.instance_norm(shortcut, weight=block.project[1].weight, bias=block.project[1].bias)
                z = F.conv2d(stacked(block.first, y), conv.weight, conv.bias, padding=1)
                y = F.leaky_relu(F.instance_norm(z, weight=norm.weight, bias=norm.bias) + shortcut, 0.01)
            skips.append(y)
        assert [len(stage) for stage in model.encoder] == [1, 3, 4, 6]
        torch.testing.assert_close(model(x), back_up(model, skips), rtol=1e-4, atol=1e-5)


def test_residual_blocks_start_as_their_shortcut():
    block = build({"name": "nnunet_resenc", "stages": 2, "width": 4}).encoder[1][1]
    x = torch.randn(1, 8, 6, 6)
    assert torch.equal(block(x), F.leaky_relu(x, 0.01))


def test_weights_are_drawn_for_the_leaky_relu():
    conv = build({"name": "nnunet", "stages": 2, "width": 64}).encoder[1][3]
    assert conv.weight.std().item() == pytest.approx((2 / (1.0001 * 9 * 128)) ** 0.5, rel=0.02)
    assert not conv.bias.any()


@pytest.mark.parametrize("name", ["nnunet", "nnunet_resenc"])
def test_strides_and_kernels_per_axis(name):
    """Five slices are enough where the plan halves them once: padded to 6."""
    model = build({"name": name, **PLAN}, 3)
    seen = []
    for stage in model.encoder:
        stage.register_forward_hook(lambda _, __, y: seen.append(tuple(y.shape[2:])))
    assert model(torch.rand(1, 2, 5, 24, 22)).shape == (1, 3, 5, 24, 22)
    assert seen == [(6, 24, 24), (6, 12, 12), (3, 6, 6)]
    first = next(m for m in model.modules() if isinstance(m, nn.Conv3d))
    assert first.kernel_size == (1, 3, 3)
    with pytest.raises(BadInput, match=f"'{name}' needs at least 2 × 4 × 4 pixels .* has 1 × 24 × 24"):
        model(torch.rand(1, 2, 1, 24, 24))


def test_sizes_of_deep_supervision():
    model = build(
        {
            "name": "nnunet",
            **PLAN,
            "stages": 4,
            "strides": [1, [1, 2, 2], 2, 2],
            "kernels": None,
            "deep_supervision": True,
        },
        3,
    )
    x = torch.rand(1, 2, 9, 30, 35)
    assert [tuple(y.shape[2:]) for y in model(x)] == [(9, 30, 35), (9, 15, 18)]
    assert model.eval()(x).shape == (1, 3, 9, 30, 35)


def test_the_smallest_image_grows_by_its_last_column():
    """One pixel at the bottom has no standard deviation."""
    model = build({"name": "nnunet", "stages": 3, "width": 4})
    x = torch.rand(1, 2, 4, 4)
    wide = torch.cat([x, x[..., -1:].expand(-1, -1, -1, 4)], 3)
    assert torch.equal(model(x), model(wide)[..., :4])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"stages": 1}, "at least 2 stages, not 1"),
        ({"strides": [1, 2]}, "with 6 stages needs a list of 6 strides"),
        ({"stages": 2, "strides": [1, [2, 2, 2]]}, r"strides that are .* one per axis \(2\)"),
        ({"stages": 2, "strides": [2, 2]}, "stride 1 in its first stage, not 2"),
        ({"stages": 2, "kernels": [3, 4]}, "odd kernels"),
        ({"stages": 2, "kernels": [3, 0]}, "kernels that are a whole number of at least 1"),
    ],
)
def test_bad_plans_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_model({"name": "nnunet", **recipe}, 1, 2, 2)
