"""V-Net: the published count and table, the first sum, and the forward pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, on_meta
from torch import nn


def narrow(spatial_dims: int = 2, inputs: int = 2) -> nn.Module:
    return build({"name": "vnet", "width": 4}, spatial_dims, channels=(inputs, 3))


def test_parameter_count():
    model = on_meta({"name": "vnet"}, 1, 2, 3)
    assert sum(p.numel() for p in model.parameters()) == 45_600_316


def test_convolutions_in_order():
    model = on_meta({"name": "vnet"}, 1, 2, 3).eval()
    order = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_hook(
                lambda m, _, y: order.append((type(m).__name__, m.kernel_size[0], y.shape[1], y.shape[2]))
            )
    with torch.no_grad():
        model(torch.rand(1, 1, 16, 16, 16, device="meta"))

    def stage(channels, size, depth):
        return [("Conv3d", 5, channels, size)] * depth

    expected = stage(16, 16, 1)
    for channels, size, depth in ((32, 8, 1), (64, 4, 2), (128, 2, 3), (256, 1, 2)):
        expected += [("Conv3d", 2, channels, size), *stage(channels, size, depth)]
    for channels, size, depth in ((256, 2, 2), (128, 4, 2), (64, 8, 1), (32, 16, 1)):
        expected += [("ConvTranspose3d", 2, channels // 2, size), *stage(channels, size, depth)]
    assert order == [*expected, ("Conv3d", 5, 2, 16), ("Conv3d", 1, 2, 16)]


@pytest.mark.parametrize(("inputs", "source"), [(1, [0, 0, 0, 0]), (3, [0, 1, 2, 0]), (4, [0, 1, 2, 3])])
def test_the_first_sum_repeats_the_image_along_channels(inputs, source):
    model = narrow(inputs=inputs).eval()
    nn.init.zeros_(model.first[0].weight)  # only the repeated image is left
    seen = []
    model.down[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(2, inputs, 16, 16)
    model(x)
    torch.testing.assert_close(seen[0], F.elu(x[:, source]))


@pytest.mark.parametrize("shape", [(2, 2, 32, 16), (1, 2, 16, 32, 16)])
def test_equals_a_plain_forward_pass(shape):
    model = narrow(len(shape) - 2).eval()
    kinds = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.modules.batchnorm._BatchNorm
    layers = iter([layer for layer in model.modules() if isinstance(layer, kinds)])

    def conv_norm(y):
        conv, norm = next(layers), next(layers)
        return norm(conv(y))

    def residual(y, depth):
        z = y
        for _ in range(depth):
            z = F.elu(conv_norm(z))
        return F.elu(z + y)

    x = torch.randn(shape)
    with torch.no_grad():
        y = F.elu(conv_norm(x) + torch.cat([x, x], 1))
        skips = []
        for depth in (1, 2, 3, 2):
            skips.append(y)
            y = residual(F.elu(conv_norm(y)), depth)
        for depth in (2, 2, 1, 1):
            y = residual(torch.cat([F.elu(conv_norm(y)), skips.pop()], 1), depth)
        y = F.elu(conv_norm(y))
        expected = next(layers)(y)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert next(layers, None) is None


def test_dropout_of_whole_channels_in_training_only():
    model = narrow()
    zeroed = []
    for layer in model.modules():
        if isinstance(layer, nn.Dropout2d):
            assert layer.p == 0.5
            layer.register_forward_hook(
                lambda _, args, y: zeroed.append(((y == 0) & (args[0] != 0)).flatten(2).sum(2) / y[0, 0].numel())
            )
    model(torch.rand(4, 2, 32, 32))
    assert len(zeroed) == 2 + 2 + 4
    assert set(torch.cat([share.flatten() for share in zeroed]).tolist()) == {0.0, 1.0}
    zeroed.clear()
    model.eval()(torch.rand(4, 2, 32, 32))
    assert not torch.cat([share.flatten() for share in zeroed]).any()
