"""NAS-Unet: the published counts, operations by hand, the cell written out, genotypes good and bad."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import assert_same, build, on_meta, step

from lib.errors import BadInput
from lib.models.nas_unet import _Strided, operation
from lib.search.space import NONE, OPERATIONS, PUBLISHED

OTHER = {  # every operation, in both cells; the nodes of UpSC differ in size for even inputs
    "down": [
        ["max_pool", 0],
        ["avg_pool", 1],
        ["down_dep_conv", 0],
        ["down_conv", 1],
        ["identity", 2],
        ["dep_conv", 3],
    ],
    "up": [
        ["up_dep_conv", 1],
        ["up_dil_conv", 1],
        ["identity", 0],
        ["up_conv", 1],
        ["shuffle_conv", 2],
        ["dil_conv", 3],
    ],
}


def narrow(spatial_dims: int = 2, **recipe) -> torch.nn.Module:
    return build({"name": "nas_unet", "width": 4, "depth": 3, **recipe}, spatial_dims)


@pytest.mark.parametrize(
    ("genotype", "width", "depth", "millions"),
    [
        *(("v3", *row) for row in ((16, 4, 0.179), (32, 5, 0.863), (64, 6, 4.059))),
        *(("v2", *row) for row in ((16, 4, 0.101), (32, 5, 0.486), (48, 6, 1.285))),
    ],
)
def test_parameter_counts(genotype, width, depth, millions):
    model = on_meta({"name": "nas_unet", "width": width, "depth": depth, "genotype": genotype}, 1, 2, 2)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == millions


def test_default_is_the_published_cell_and_lists_build_the_same():
    default = on_meta({"name": "nas_unet"}, 1, 2, 2)
    assert sum(p.numel() for p in default.parameters()) == 863_438
    lists = narrow(genotype=PUBLISHED["v3"]).state_dict()
    named = narrow().state_dict()
    assert all(torch.equal(named[key], lists[key]) for key in named | lists)


@pytest.mark.parametrize("name", [name for names in OPERATIONS.values() for name in names if name != NONE])
@pytest.mark.parametrize("size", [(1, 1), (6, 7), (5, 1, 4)])
def test_sizes_of_operations(name, size):
    expected = {"d": [-(-n // 2) for n in size], "u": [2 * n - 1 for n in size]}
    kind = "d" if name in OPERATIONS["down"] else "u" if name in OPERATIONS["up"] else ""
    result = operation(name, len(size), 16)(torch.rand(2, 16, *size))
    assert list(result.shape) == [2, 16, *expected.get(kind, size)]


def test_operations_equal_their_definitions():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 6, 7)
    conv, norm, _ = made = operation("down_dil_conv", 2, 32)
    expected = F.conv2d(x, conv.conv.weight, stride=2, padding=2, dilation=2)
    torch.testing.assert_close(made(x), F.relu(F.group_norm(expected, 2, norm.weight, norm.bias)))

    weigh, conv, norm = made = operation("up_cweight", 2, 32)
    first, _, second, _ = weigh.weight
    assert (first.out_features, second.in_features) == (2, 2)  # 32 / 16
    y = torch.sigmoid(second(F.relu(first(F.adaptive_avg_pool2d(x, 1)[..., 0, 0]))))
    expected = F.conv_transpose2d(x * y[..., None, None], conv.conv.weight, stride=2, padding=1)
    torch.testing.assert_close(made(x), F.group_norm(expected, 2, norm.weight, norm.bias))

    depth, point, norm, _ = made = operation("dep_conv", 2, 32)
    expected = F.conv2d(F.conv2d(x, depth.weight, padding=1, groups=32), point.weight)
    torch.testing.assert_close(made(x), F.relu(F.group_norm(expected, 2, norm.weight, norm.bias)))

    for size in ((6, 7), (5, 6, 3)):
        x = torch.randn(2, 4, *size)
        average = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
        expected = average(x, 2, ceil_mode=True, count_include_pad=False)
        torch.testing.assert_close(operation("avg_pool", len(size), 4)(x), expected)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (4, 5)])
def test_one_pixel_through_a_strided_convolution(size, transposed):
    conv = (torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d)(3, 3, 3, stride=2, padding=1, bias=False)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(_Strided(conv)(x), conv(x))


def test_cells_of_v3_written_out():
    model = narrow(width=16).eval()
    x = torch.randn(2, 2, 24, 21)
    with torch.no_grad():
        outputs = [model.stem0(x), model.stem1(x)]
        for cell in model.down:
            f = cell.operations
            a, b = cell.preprocess0(outputs[-2]), cell.preprocess1(outputs[-1])
            n2 = f[0](b) + f[1](a)
            n3 = f[2](a) + f[3](b)
            n4 = f[4](a) + f[5](n3)
            n5 = f[6](a) + f[7](n4)
            outputs.append(torch.cat([n2, n3, n4, n5], 1))
        assert [tuple(y.shape[2:]) for y in outputs] == [(24, 21), (12, 11), (6, 6), (3, 3), (2, 2)]
        y = outputs.pop()
        for cell in model.up:
            skip = outputs.pop()
            f = cell.operations
            a, b = cell.preprocess0(skip), cell.preprocess1(y)

            def fit(z, size=skip.shape[2:]):
                return F.interpolate(z, size=size, mode="nearest")

            n2 = f[0](a) + fit(f[1](b))
            n3 = f[2](n2) + fit(f[3](b))
            n4 = fit(f[4](b)) + f[5](n3)
            n5 = fit(f[6](b)) + f[7](n4)
            y = torch.cat([n2, n3, n4, n5], 1)
        assert not outputs
        torch.testing.assert_close(model(x), model.classifier(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("genotype", "size", "precision"),
    [
        # One pixel at the bottom. In volumes, oneDNN's bfloat16 weight gradients (torch 2.13) fail every network.
        *((genotype, (8, 8), torch.bfloat16) for genotype in ("v3", "v2", OTHER)),
        *((OTHER, size, torch.float32) for size in ((13, 22), (9, 8, 10))),
    ],
    ids=lambda value: "other" if value is OTHER else str(value),
)
def test_deterministic(genotype, size, precision, deterministic):
    recipe = {"name": "nas_unet", "width": 4, "depth": 3, "genotype": genotype}
    one = step(recipe, size, precision)
    assert one.logits[0].shape == (2, 3, *size)
    assert all(gradient.isfinite().all() for gradient in one.gradients.values())
    assert_same(one, step(recipe, size, precision))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genotype": "v4"}, "no genotype 'v4'. Known: v2, v3"),
        ({"genotype": {"down": []}}, "needs a name .* or the two lists"),
        ({"genotype": {**OTHER, "up": []}}, r"two \[operation, state\] per node in 'up', not \[\]"),
        ({"genotype": {**OTHER, "up": [["identity", 0]]}}, "two .* per node in 'up'"),
        ({"genotype": {**OTHER, "up": ["identity", 0]}}, "'identity' in 'up', not"),
        ({"genotype": {**OTHER, "up": [["identity", 0], ["conv", 2]]}}, "node 2 of 'up', which can take states 0 to 1"),
        (
            {"genotype": {**OTHER, "down": [["down_conv", 0], ["conv", 1]]}},
            "for node 2 of 'down', but state 1 cannot take it.* Did you mean 'down_conv'",
        ),
        ({"genotype": {**OTHER, "up": [["conv", 0], ["identity", 1]]}}, "state 1 cannot take it.* Known: up_conv, up_"),
        ({"depth": 0}, "integer depth of at least 1, not 0"),
    ],
)
def test_bad_recipes_are_explained(change, message):
    with pytest.raises(BadInput, match=message):
        narrow(**change)


def test_too_small_an_input_names_the_minimum():
    with pytest.raises(BadInput, match=r"'nas_unet' needs at least 8 pixels .* 64 × 7"):
        narrow()(torch.rand(1, 2, 64, 7))
