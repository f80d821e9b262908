"""Attention U-Net: the published table, the gate by hand, and the forward pass written out; nearest upsampling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, on_meta

from lib.models.attention_unet import AttentionGate
from lib.models.blocks import crop, pad_to_multiple, select_nearest, upsample_nearest


def narrow(spatial_dims: int = 2) -> torch.nn.Module:
    return build({"name": "attention_unet", "width": 4}, spatial_dims)


@pytest.mark.parametrize(("inputs", "outputs", "parameters"), [(1, 2, 34_877_486), (3, 1, 34_878_573)])
def test_parameter_counts(inputs, outputs, parameters):
    model = on_meta({"name": "attention_unet"}, inputs, outputs, 2)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_gate_by_hand():
    gate = AttentionGate(2, 2).eval()  # 2 channels, 1 inside; fresh normalisation divides by sqrt(1 + 1e-5)
    with torch.no_grad():
        for part, weights in ((gate.of_gating, [1.0, 2.0]), (gate.of_skip, [3.0, -1.0]), (gate.psi, [0.5])):
            part[0].weight.copy_(torch.tensor(weights).view_as(part[0].weight))
            part[0].bias.zero_()
        g = torch.tensor([[1.0, 1.0], [1.0, -3.0]])  # (channel, pixel)
        x = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
        result = gate(x.view(1, 2, 1, 2), g.view(1, 2, 1, 2))
    # Pixel 0: relu(1 + 2 + 3 - 2) = 4, half is 2; pixel 1: relu(1 - 6 + 3) = 0.
    psi = torch.sigmoid(torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(result.view(2, 2), x * psi, rtol=1e-4, atol=1e-4)


def test_equals_a_plain_forward_pass():
    model = narrow().eval()
    trunk = model.trunk
    x = torch.rand(2, 2, 32, 48)
    with torch.no_grad():
        skips = [trunk.encoder[0](x)]
        for level in trunk.encoder[1:]:
            skips.append(level(F.max_pool2d(skips[-1], 2)))
        y = skips.pop()
        for k in range(4):
            d = trunk.up[k](F.interpolate(y, scale_factor=2))
            gate = trunk.gates[k]
            s = skips.pop()
            hidden = gate.of_gating[1](gate.of_gating[0](d)) + gate.of_skip[1](gate.of_skip[0](s))
            psi = gate.psi[1](gate.psi[0](F.relu(hidden))).sigmoid()
            assert psi.shape[1] == 1
            y = trunk.decoder[k](torch.cat([s * psi, d], 1))
        torch.testing.assert_close(model(x), model.classifier(y))


def test_padding_continues_the_border():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(x, 4)
    assert padded[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert torch.equal(crop(padded, (2, 3)), x)
    assert pad_to_multiple(padded, 4) is padded


@pytest.mark.parametrize("resize", [upsample_nearest, select_nearest])
@pytest.mark.parametrize(
    ("old", "new"), [((4, 5), (8, 10)), ((7, 9), (8, 10)), ((1, 3), (2, 7)), ((3, 2, 5), (6, 5, 9)), ((3, 4), (3, 4))]
)
def test_nearest_upsampling_equals_interpolate_with_its_gradient(old, new, resize, deterministic):
    ours = torch.randn(2, 3, *old, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    expected = F.interpolate(theirs, size=new, mode="nearest")
    upstream = torch.randn(expected.shape)
    expected.backward(upstream)
    result = resize(ours, new)
    result.backward(upstream)
    assert torch.equal(result, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
