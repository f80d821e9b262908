"""DMFNet: the published count, its convolutions in order, a unit and the whole forward pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, on_meta
from torch import nn

from lib.errors import BadInput
from lib.models import build_model


def narrow(spatial_dims: int = 3) -> nn.Module:
    return build({"name": "dmfnet", "width": 4}, spatial_dims)


def test_parameter_count():
    model = on_meta({"name": "dmfnet"}, 4, 4, 3)
    assert sum(p.numel() for p in model.parameters()) == 3_875_890


def test_convolutions_in_order():
    model = on_meta({"name": "dmfnet"}, 4, 4, 3).eval()
    order = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv3d):
            assert layer.bias is None
            layer.register_forward_hook(
                lambda m, _, y: order.append((m.kernel_size, m.groups, m.dilation[0], m.out_channels, y.shape[-1]))
            )
    with torch.no_grad():
        model(torch.rand(1, 4, 32, 32, 32, device="meta"))

    def unit(before, after, size, dilations, halved=False):
        point, cube, plane = (1, 1, 1), (3, 3, 3), (1, 3, 3)
        entrance = 2 * size if halved else size
        convs = [(point, 1, 1, before // 4, entrance), (point, 1, 1, min(before, after), entrance)]
        convs += [(cube, 16, d, after, size) for d in dilations] + [(plane, 16, 1, after, size)]
        if halved:
            convs.append(((2, 2, 2), 1, 1, after, size))
        elif before != after:
            convs.append((point, 1, 1, after, size))
        return convs

    expected = [((3, 3, 3), 1, 1, 32, 16)]
    for before, after, size in ((32, 128, 8), (128, 256, 4)):
        expected += unit(before, after, size, (1, 2, 3), halved=True) + 2 * unit(after, after, size, (1, 2, 3))
    expected += unit(256, 384, 2, (1,), halved=True) + unit(384, 384, 2, (1,)) + unit(384, 256, 2, (1,))
    expected += unit(512, 256, 4, (1,)) + unit(384, 128, 8, (1,)) + unit(160, 32, 16, (1,))
    assert order == [*expected, ((1, 1, 1), 1, 1, 4, 32)]


def plain_unit(unit: nn.Module, x: torch.Tensor) -> torch.Tensor:
    def step(block, y):
        norm, _, conv = block
        return conv(F.relu(norm(y)))

    y = step(unit.squeeze[1], step(unit.squeeze[0], x))
    if len(unit.branches) == 1:
        z = step(unit.branches[0], y)
    else:
        a, b, c = unit.branches
        z = unit.scales[0] * step(a, y) + unit.scales[1] * step(b, y) + unit.scales[2] * step(c, y)
    z = step(unit.last, z)
    return z + (x if isinstance(unit.shortcut, nn.Identity) else step(unit.shortcut, x))


@pytest.mark.parametrize("shape", [(2, 2, 32, 16), (1, 2, 16, 32, 16)])
def test_equals_a_plain_forward_pass(shape):
    model = narrow(len(shape) - 2).eval()
    scales = [unit.scales for stage in model.encoder for unit in stage if unit.scales is not None]
    assert len(scales) == 6
    mode = "bilinear" if len(shape) == 4 else "trilinear"
    x = torch.randn(shape)
    with torch.no_grad():
        for scale in scales:
            assert torch.equal(scale, torch.ones(3))
            scale.copy_(torch.tensor([1.0, -2.0, 0.5]))
        y = model.first(x)
        skips = []
        for stage in model.encoder:
            skips.append(y)
            for unit in stage:
                y = plain_unit(unit, y)
        for unit in model.decoder:
            y = F.interpolate(y, scale_factor=2, mode=mode)
            y = plain_unit(unit, torch.cat([skips.pop(), y], 1))
        expected = model.classifier(F.interpolate(y, scale_factor=2, mode=mode))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_bad_width_is_explained():
    with pytest.raises(BadInput, match="'dmfnet' needs a width that is a multiple of 4, not 6"):
        build_model({"name": "dmfnet", "width": 6}, 1, 2, 3)
