"""HDC and DUC: the shuffles against torch, HDC against one strided convolution, the wrapper around other networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import UNET, build

from lib.errors import BadInput
from lib.models.hdc_duc import shuffle, unshuffle

RECIPE = {"name": "hdc_duc", "of": UNET}


def test_shuffles_are_those_of_torch_in_2d():
    x = torch.randn(2, 3, 6, 9)
    assert torch.equal(unshuffle(x, [3, 3]), F.pixel_unshuffle(x, 3))
    y = torch.randn(2, 18, 2, 5)
    assert torch.equal(shuffle(y, [3, 3]), F.pixel_shuffle(y, 3))


@pytest.mark.parametrize(("size", "factors"), [((4, 9), [2, 3]), ((4, 6, 5), [2, 3, 1]), ((3, 4, 2), [1, 2, 2])])
def test_shuffles_of_any_factors(size, factors):
    x = torch.randn(2, 3, *size)
    y = unshuffle(x, factors)
    assert y.shape[2:] == tuple(n // f for n, f in zip(size, factors, strict=True))
    assert torch.equal(shuffle(y, factors), x)
    blocks = x  # the definition: each place in a block is a strided view of the image
    offsets = torch.cartesian_prod(*[torch.arange(f) for f in factors]).tolist()
    views = [blocks[(..., *(slice(o, None, f) for o, f in zip(offset, factors, strict=True)))] for offset in offsets]
    assert torch.equal(y, torch.stack(views, dim=2).flatten(1, 2))


@pytest.mark.parametrize(("size", "factors"), [((12, 18), [2, 3]), ((4, 12, 8), [1, 3, 2])])
def test_hdc_is_one_strided_convolution(size, factors):
    """Kernel 3 · factor, stride factor, padding factor, with the same weights at their places."""
    dims = len(size)
    model = build({"name": "hdc_duc", "of": {"name": "pnet", "width": 4}, "factor": factors, "width": 5}, dims)
    weight = model.hdc.weight  # (5, 2 · block, 3, 3)
    big = shuffle(weight.flatten(0, 1).view(5, -1, *weight.shape[2:]), factors)
    x = torch.randn(2, 2, *size)
    conv = F.conv2d if dims == 2 else F.conv3d
    expected = conv(x, big, model.hdc.bias, stride=factors, padding=factors)
    torch.testing.assert_close(model.hdc(unshuffle(x, factors)), expected, rtol=1e-4, atol=1e-5)


def test_the_network_inside_sees_a_coarser_grid():
    model = build({**RECIPE, "factor": [2, 3]}).eval()
    seen = []
    model.network.register_forward_hook(lambda _, args, y: seen.extend([args[0].shape, y.shape]))
    x = torch.randn(2, 2, 35, 50)  # padded to 36 × 51
    logits = model(x)
    assert seen == [(2, 2 * 6, 18, 17), (2, 3 * 6, 18, 17)]
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    inside = model.network(model.hdc(unshuffle(padded, [2, 3])))
    torch.testing.assert_close(logits, shuffle(inside, [2, 3])[..., :35, :50])


def test_it_goes_around_itself():
    twice = build({"name": "hdc_duc", "of": {"name": "hdc_duc", "of": {"name": "pnet", "width": 4}}}).eval()
    assert twice.network.network.classifier[-1].out_channels == 3 * 4 * 4
    assert twice(torch.rand(1, 2, 70, 71)).shape == (1, 3, 70, 71)


def test_levels_of_deep_supervision_keep_their_proportions():
    model = build({"name": "hdc_duc", "of": {**UNET, "deep_supervision": True}})
    logits = model(torch.rand(2, 2, 70, 67))  # padded to 70 × 68, then to 96 × 96 inside
    assert [tuple(y.shape) for y in logits] == [(2, 3, 70, 67), (2, 3, 36, 34), (2, 3, 18, 18), (2, 3, 10, 10)]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "hdc_duc"}, "'hdc_duc' of lib.models needs the parameter 'of'"),
        ({**RECIPE, "of": "unet"}, "needs a recipe as `of`, such as {name: unet}, not 'unet'"),
        ({**RECIPE, "of": {"name": "unett"}}, "no 'unett'.* Did you mean 'unet'"),
        ({**RECIPE, "of": {"name": "unet", "stages": 2}}, "'unet' of lib.models has no parameter 'stages'"),
        ({**RECIPE, "factor": 0}, "integer factor of at least 1, not 0"),
        ({**RECIPE, "factor": [1, 2, 2]}, r"one factor for each of 2 axes, or one for all, not \[1, 2, 2\]"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build(recipe)


def test_too_small_an_input_says_where():
    with pytest.raises(
        BadInput, match=r"'unet' needs at least 16 pixels .* 15 × 20.* inside 'hdc_duc', which .* by 2 × 2"
    ):
        build(RECIPE)(torch.rand(1, 2, 30, 40))
