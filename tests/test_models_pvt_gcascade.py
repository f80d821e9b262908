"""PVT-GCASCADE: the published counts, neighbours and graph convolution by brute force, heads, names of the encoder."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, on_meta

from lib.errors import BadInput
from lib.models import build_model

SMALL = {"name": "pvt_gcascade", "variant": "b0", "width": 4}


def count(*modules) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("variant", "published"),  # millions, of PVT v2 with its classifier of 1,000 classes
    [("b0", 3.7), ("b1", 14.0), ("b2", 25.4), ("b3", 45.2), ("b4", 62.6), ("b5", 82.0)],
)
def test_parameter_counts_of_the_encoders(variant, published):
    from lib.models.pvt_gcascade import VARIANTS, PVTv2

    with torch.device("meta"):
        encoder = PVTv2(3, 2, *VARIANTS[variant])
    classifier = 1000 * (8 * VARIANTS[variant][0] + 1)
    assert round((count(encoder) + classifier) / 1e6, 1) == published


def cascade_decoder(a, b, c, d) -> int:
    """Parameters of the decoder that the abstract compares with (CASCADE), from its description."""

    def conv(before, after, kernel, bias=True):
        return before * after * kernel**2 + bias * after

    def block(n):  # twice 3×3 and batch normalisation
        return 2 * (conv(n, n, 3) + 2 * n)

    total = conv(a, a, 1) + block(a)
    for before, n in ((a, b), (b, c), (c, d)):
        inside = {b: c, c: d, d: d // 2}[n]
        gate = 2 * (conv(n, inside, 1) + 2 * inside) + conv(inside, 1, 1) + 2
        total += conv(before, n, 3) + 2 * n + gate + block(n)
    channel_attention = sum(2 * n * (n // 16) for n in (a, b, c, d))
    return total + channel_attention + conv(2, 1, 7, bias=False)


def test_parameter_count_of_the_decoder():
    """The abstract: 80.8 % fewer than CASCADE."""
    with torch.device("meta"):
        model = build_model({"name": "pvt_gcascade"}, 1, 9, 2)
    decoder = count(model.graphs, model.up, model.attention)
    assert decoder == 1_777_506
    assert round(100 * (1 - decoder / cascade_decoder(512, 320, 128, 64)), 1) == 80.8
    assert count(model) == 26_636_626


def test_neighbours_by_brute_force():
    from lib.models.pvt_gcascade import neighbours, sine_embedding

    torch.manual_seed(0)
    grid, small = torch.Size((6, 8)), torch.Size((3, 4))
    nodes, others = torch.randn(2, 48, 12), torch.randn(2, 12, 12)
    places = sine_embedding(grid, grid, 12, nodes.device)
    centres = sine_embedding(small, grid, 12, nodes.device)
    found = neighbours(nodes, others, grid, small)
    assert found.shape == (2, 48, 11)
    for case, node in ((0, 0), (1, 17), (1, 47)):
        a = nodes[case, node] / nodes[case, node].norm()
        distances = []
        for other in range(12):
            b = others[case, other] / others[case, other].norm()
            distances.append(float((a - b).square().sum() - 2 * (places[node] * centres[other]).mean()))
        expected = sorted(range(12), key=distances.__getitem__)[:11]
        assert found[case, node].tolist() == expected


def test_embedding_of_positions_by_hand():
    """8 channels on 2 axes: sines and cosines of two frequencies per axis; coarse positions lie between fine ones."""
    from lib.models.pvt_gcascade import sine_embedding

    grid = torch.Size((2, 4))
    fine = sine_embedding(grid, grid, 8, torch.device("cpu"))
    y, x = 1, 2
    expected = [f(p * w) for p in (y, x) for f in (math.sin, math.cos) for w in (1, 0.01)]
    torch.testing.assert_close(fine[y * 4 + x], torch.tensor(expected))
    coarse = sine_embedding(torch.Size((1, 2)), grid, 8, torch.device("cpu"))
    expected = [f(p * w) for p in (0.5, 2.5) for f in (math.sin, math.cos) for w in (1, 0.01)]
    torch.testing.assert_close(coarse[1], torch.tensor(expected))


@pytest.mark.parametrize(("reduction", "grid"), [(1, (5, 6)), (2, (4, 8))])
def test_graph_block_by_brute_force(reduction, grid):
    from lib.models.pvt_gcascade import GraphBlock, neighbours

    torch.manual_seed(0)
    block = GraphBlock(2, 8, reduction).eval()
    x = torch.randn(1, 8, *grid)
    with torch.no_grad():
        y = block.before(x)
        pooled = F.avg_pool2d(y, reduction)
        index = neighbours(y.flatten(2).mT, pooled.flatten(2).mT, y.shape[2:], pooled.shape[2:])
        pairs = torch.empty(1, 16, y[0, 0].numel())
        for node in range(pairs.shape[2]):
            own = y.flatten(2)[0, :, node]
            relative = pooled.flatten(2)[0][:, index[0, node]] - own[:, None]
            pairs[0, 0::2, node], pairs[0, 1::2, node] = own, relative.max(1).values
        torch.testing.assert_close(block(x), x + block.after(block.graph(pairs.view(1, 16, *grid))))


def test_attention_equals_that_of_torch():
    from lib.models.pvt_gcascade import PVTv2

    torch.manual_seed(0)
    attention = PVTv2(3, 2, 4, (1, 1, 1, 1), (1, 1, 1, 1)).block2[0].attn  # 8 channels, 2 heads, reduction 4
    tokens = torch.randn(2, 8 * 12, 8)
    with torch.no_grad():
        maps = tokens.transpose(1, 2).reshape(2, 8, 8, 12)
        small = attention.norm(attention.sr(maps).flatten(2).transpose(1, 2))
        assert small.shape == (2, 6, 8)
        q = attention.q(tokens).reshape(2, 96, 2, 4).transpose(1, 2)
        k, v = (t.reshape(2, 6, 2, 4).transpose(1, 2) for t in attention.kv(small).chunk(2, dim=2))
        expected = attention.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 96, 8))
        torch.testing.assert_close(attention(tokens, (8, 12)), expected)


def test_the_result_is_the_sum_of_four_heads():
    model = build(SMALL | {"deep_supervision": True})
    coarse = []
    for classifier in model.classifiers:
        classifier.register_forward_hook(lambda _, __, y: coarse.insert(0, y))  # the coarsest runs first
    x = torch.rand(2, 2, 64, 96)
    with torch.no_grad():
        total, *heads = model(x)
    assert [tuple(y.shape[2:]) for y in coarse] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for head, y in zip(heads, coarse, strict=True):
        torch.testing.assert_close(head, F.interpolate(y, size=(64, 96), mode="bilinear"))
    torch.testing.assert_close(total, sum(heads))
    assert model.eval()(x).shape == (2, 3, 64, 96)


def test_grey_images_become_three_channels_first():
    assert build(SMALL, channels=(1, 2)).encoder.patch_embed1.proj.in_channels == 3
    assert build(SMALL, channels=(4, 2)).encoder.patch_embed1.proj.in_channels == 4


def test_the_encoder_has_the_names_of_the_published_weights():
    keys = on_meta({"name": "pvt_gcascade"}, 1, 2, 2).encoder.state_dict().keys()
    assert {
        "patch_embed1.proj.weight",
        "patch_embed4.norm.bias",
        "block1.0.attn.sr.weight",
        "block1.2.attn.norm.bias",
        "block3.5.mlp.dwconv.dwconv.bias",
        "block4.2.attn.kv.weight",
        "norm4.weight",
    } <= keys
    assert not any(key.startswith(("block4.0.attn.sr", "head")) for key in keys)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"variant": "b9"}, "no variant 'b9'"),
        ({"width": 6}, "multiple of 4, not 6"),
        ({"deep_supervision": "yes"}, "true or false"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_model(SMALL | recipe, 1, 2, 2)
