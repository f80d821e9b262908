"""3D U²-Net: the published counts, the forward pass written out, domains that share and do not share."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, parameters

from lib.errors import BadInput
from lib.models.u2net_3d import _PerDomain

RECIPE = {"name": "u2net_3d", "width": 4, "pools": 3}


@pytest.mark.parametrize(
    ("pools", "separable", "count"),
    [
        *((pools, True, count) for pools, count in ((3, 395_742), (4, 1_531_486), (5, 5_998_430))),
        *((pools, False, count) for pools, count in ((3, 2_055_166), (4, 8_268_158), (5, 33_113_214))),
    ],
)
def test_parameter_counts(pools, separable, count):
    assert parameters({"name": "u2net_3d", "pools": pools, "separable": separable}, 1, 2, 3) == count


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize(("pools", "size"), [([3, 3], (24, 16)), ([1, 3, 3], (4, 16, 24)), ([1, 2, 1], (4, 8, 6))])
def test_equals_a_plain_forward_pass(pools, size, separable):
    """Every convolution and normalisation of torch, in the source's order, with the weights of the network."""
    dims = len(size)
    model = build({**RECIPE, "pools": pools, "separable": separable}, dims)
    conv = F.conv2d if dims == 2 else F.conv3d

    def norm(layer, y):
        return F.instance_norm(y, weight=layer.weight, bias=layer.bias)

    def plain(layers, y, padding=1, groups=1):
        y = conv(y, layers[0].weight, layers[0].bias, padding=padding, groups=groups)
        return F.leaky_relu(norm(layers[1], y), 0.01)

    def unit(part, y, kernel=3):
        if separable:
            y = plain(part.depthwise[0], y, groups=y.shape[1])
            y = conv(y, part.conv.weight, part.conv.bias)
        else:
            y = conv(y, part.conv.weight, part.conv.bias, padding=kernel // 2)
        return norm(part.norm[0], y)

    def act(y):
        return F.leaky_relu(y, 0.01)

    x = torch.randn(2, 2, *size)
    y = plain(model.entrance[0], x)
    skips = []
    depth = max(pools)
    for level in range(depth + 1):
        a, b = model.encoder[level]
        y = act(y + unit(b, act(unit(a, y))))
        if level < depth:
            skips.append(y)
            stride = [2 if level < number else 1 for number in pools]
            border = [p for s in reversed(stride) for p in ((0, 1) if s == 2 else (1, 1))]
            down = model.down[level]
            y = act(norm(model.down_norm[level][0], conv(F.pad(y, border), down.weight, down.bias, stride=stride)))
    assert y.shape[1] == 4 * 2**depth
    deep = None
    for level in reversed(range(depth)):
        skip = skips.pop()
        up, (a, b) = model.up[depth - 1 - level], model.decoder[depth - 1 - level]
        y = act(unit(up, F.interpolate(y, size=skip.shape[2:])))
        y = act(unit(b, act(unit(a, torch.cat([y, skip], 1))), kernel=1))
        if level in (1, 2):
            head = plain(model.deep[str(level)][0], y, padding=0)
            deep = F.interpolate(head if deep is None else head + deep, size=skips[-1].shape[2:])
    logits = model.classifier[0](y)
    torch.testing.assert_close(model(x), logits if deep is None else logits + deep, rtol=1e-3, atol=1e-4)


def test_domains_share_pointwise_and_strided_convolutions_alone():
    model = build({**RECIPE, "domains": 2})
    model(torch.rand(2, 2, 16, 16), domain=1).square().sum().backward()
    names = {p: name for name, p in model.named_parameters()}
    lists = [part for part in model.modules() if isinstance(part, _PerDomain)]
    of_one, of_two = ({p for part in lists for p in part[domain].parameters()} for domain in (0, 1))
    shared = set(names) - of_one - of_two
    assert not of_one & of_two
    assert {p for p in names if p.grad is not None} == shared | of_two
    kinds = {re.sub(r"[\d.]+", " ", names[p]) for p in shared}
    assert kinds == {
        f"{part} {kind}" for part in ("encoder conv", "decoder conv", "up conv", "down") for kind in ("weight", "bias")
    }
    assert sum(p.numel() for p in names) == sum(p.numel() for p in [*build(RECIPE).parameters(), *of_one])


def test_domains_differ_and_one_out_of_range_raises():
    model = build({**RECIPE, "domains": 2})
    x = torch.rand(1, 2, 16, 16)
    assert torch.equal(model(x), model(x, domain=0))
    assert not torch.allclose(model(x), model(x, domain=1))
    with pytest.raises(IndexError):
        model(x, domain=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pools": [3, 3, 3]}, r"one number of pools for each of 2 axes, or one for all, not \[3, 3, 3\]"),
        ({"pools": 0}, "integer pools of at least 1, not 0"),
        ({"domains": 0}, "integer domains of at least 1, not 0"),
    ],
)
def test_bad_recipes_are_explained(options, message):
    with pytest.raises(BadInput, match=message):
        build({**RECIPE, **options})
