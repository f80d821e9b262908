"""U-Net: the published table, the forward pass written out, its options."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import UNET, build, executed, parameters
from torch import nn

from lib.errors import BadInput


@pytest.mark.parametrize(
    ("options", "spatial_dims", "count"),
    [
        ({}, 2, 31_036_676),
        ({"width": 32}, 2, 7_762_564),
        # The published network without normalisation has a bias per convolution: 5,888 of them in 18 convolutions.
        ({"normalisation": "none"}, 2, 31_030_788),
        ({"normalisation": "instance"}, 2, 31_036_676),
        ({"normalisation": "group"}, 2, 31_036_676),
        ({"deep_supervision": True}, 2, 31_036_676 + 4 * (128 + 256 + 512) + 3 * 4),
    ],
    ids=str,
)
def test_parameter_counts(options, spatial_dims, count):
    assert parameters({"name": "unet", **options}, 1, 4, spatial_dims) == count


def test_the_published_count_without_normalisation():
    assert parameters({"name": "unet", "normalisation": "none"}, 1, 2, 2) == 31_030_658


def test_unet_runs_the_layers_of_its_table_in_order():
    order = executed(build({"name": "unet", "width": 4}, channels=(1, 4)).eval(), torch.rand(1, 1, 32, 32))
    assert all(
        a[0] == "Conv2d" and b[0] == "BatchNorm2d" and c[0] == "ReLU"
        for a, b, c in zip(*[iter([o for o in order[:-1] if o[0] != "ConvTranspose2d"])] * 3, strict=True)
    )
    weighted = [o for o in order if o[0].startswith("Conv")]
    double = [[("Conv2d", 4 * 2**k, 32 >> k)] * 2 for k in range(5)]
    expected = [layer for level in double for layer in level]
    for k in (3, 2, 1, 0):
        expected += [("ConvTranspose2d", 4 * 2**k, 32 >> k), *double[k]]
    assert weighted == [*expected, ("Conv2d", 4, 32)]


def test_unet_equals_a_plain_forward_pass():
    model = build(UNET).eval()
    x = torch.rand(2, 2, 32, 48)
    with torch.no_grad():
        a = model.encoder[0](x)
        b = model.encoder[1](F.max_pool2d(a, 2))
        c = model.encoder[2](F.max_pool2d(b, 2))
        d = model.encoder[3](F.max_pool2d(c, 2))
        y = model.encoder[4](F.max_pool2d(d, 2))
        for skip, up, level in zip((d, c, b, a), model.up, model.decoder, strict=True):
            y = level(torch.cat([skip, up(y)], 1))
        torch.testing.assert_close(model(x), model.classifier(y))


def test_unet_pads_odd_sizes_by_edge_values_and_crops():
    model = build(UNET).eval()
    x = torch.rand(1, 2, 35, 50)
    padded = torch.cat([x, x[..., -1:, :].expand(-1, -1, 13, -1)], 2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 14)], 3)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(padded)[..., :35, :50])


@pytest.mark.parametrize("kind", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize("residual", [False, True])
def test_options_of_a_level_written_out(kind, residual):
    model = build({"name": "unet", "width": 16, "residual": residual, "normalisation": kind}, 3)

    def normalise(y):
        if kind == "none":
            return y
        weight, bias = next(parameters), next(parameters)
        if kind == "batch":
            return F.batch_norm(y, None, None, weight, bias, training=True)
        groups = y.shape[1] if kind == "instance" else y.shape[1] // 16
        return F.group_norm(y, groups, weight, bias)

    def conv(y, padding):
        return normalise(F.conv3d(y, next(parameters), next(parameters) if kind == "none" else None, padding=padding))

    for level, channels in ((model.encoder[0], 2), (model.encoder[1], 16), (model.decoder[-1], 32)):
        parameters = iter(level.parameters())
        x = torch.randn(2, channels, 6, 5, 4)
        y = conv(F.relu(conv(x, 1)), 1)
        y = F.relu(y + conv(x, 0) if residual else y)
        assert next(parameters, None) is None
        torch.testing.assert_close(level(x), y, rtol=1e-4, atol=1e-5)


def test_a_residual_level_of_equal_widths_adds_its_input_itself():
    level = build({**UNET, "residual": True}, channels=(4, 3)).encoder[0]
    x = torch.randn(2, 4, 6, 5)
    nn.init.zeros_(level.body[-1].weight)
    torch.testing.assert_close(level(x), F.relu(x))


@pytest.mark.parametrize("size", [(35, 50), (17, 16, 20)])
def test_deep_supervision(size):
    """Logits of the decoder's levels, finest first, rounded up; in evaluation those of the plain network."""
    plain, deep = (build({**UNET, "deep_supervision": flag}, len(size)) for flag in (False, True))
    plain.load_state_dict({name: t for name, t in deep.state_dict().items() if not name.startswith("coarse")})
    x = torch.randn(2, 2, *size)
    levels = []
    for level in deep.decoder:
        level.register_forward_hook(lambda _, __, y: levels.insert(0, y))
    logits = deep(x)
    assert [tuple(y.shape) for y in logits] == [(2, 3, *(-(-n // 2**k) for n in size)) for k in range(4)]
    torch.testing.assert_close(logits[0], plain(x))
    for head, level, y in zip(deep.coarse, levels[1:], logits[1:], strict=True):
        torch.testing.assert_close(y, head(level)[(..., *map(slice, y.shape[2:]))])
    torch.testing.assert_close(deep.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalisation": "layer"}, "no normalisation 'layer'.* Known: batch, group, instance, none"),
        ({"residual": 1}, "needs residual to be true or false, not 1"),
        ({"deep_supervision": "yes"}, "needs deep_supervision to be true or false, not 'yes'"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(BadInput, match=message):
        build({**UNET, **options})
