"""SegNet and its shallow variants: the published table, and the forward pass from torch's own layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, executed, parameters
from torch import nn


@pytest.mark.parametrize(
    ("recipe", "inputs", "outputs", "count"),
    [
        ({"name": "segnet"}, 1, 4, 29_444_164),
        ({"name": "segnet"}, 3, 12, 29_449_932),
        ({"name": "segnet"}, 1, 2, 29_443_010),
        ({"name": "shallow_segnet", "stages": 2}, 1, 4, 520_900),
        ({"name": "shallow_segnet"}, 1, 4, 3_474_244),
        ({"name": "shallow_segnet", "upsampling": "unpool"}, 1, 4, 3_474_244),
        ({"name": "shallow_segnet", "stages": 4}, 1, 4, 15_279_172),
        ({"name": "shallow_segnet", "stages": 5}, 1, 4, 29_444_164),
    ],
)
def test_parameter_counts(recipe, inputs, outputs, count):
    assert parameters(recipe, inputs, outputs, 2) == count


def test_segnet_runs_the_layers_of_its_table_in_order():
    encoder = [8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64]  # an eighth of the published widths
    decoder = [64, 64, 64, 64, 64, 32, 32, 32, 16, 16, 8, 8, 11]
    heights = [64] * 2 + [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3
    order = executed(build({"name": "segnet", "width": 8}, channels=(3, 11)).eval(), torch.rand(1, 3, 64, 64))
    expected = []
    for channels, height in zip(encoder + decoder, heights + heights[::-1], strict=True):
        expected += [(kind, channels, height) for kind in ("Conv2d", "BatchNorm2d", "ReLU")]
    assert order == expected[:-2]  # the last convolution is bare


def test_every_segnet_convolution_is_3x3_with_bias_and_he_weights():
    convolutions = [m for m in build({"name": "segnet", "width": 32}).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 26
    for conv in convolutions:
        assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        assert torch.equal(conv.bias, torch.zeros_like(conv.bias))
    for conv in convolutions[1:-1]:  # enough weights for a standard deviation to 3 %
        assert conv.weight.std().item() == pytest.approx((2 / (9 * conv.in_channels)) ** 0.5, rel=0.03)


def reference_segnet(model: nn.Module, x: torch.Tensor, stages: int, unpool: bool) -> torch.Tensor:
    """The network again, from torch's own layers and the prototxt's order, with the weights of `model`."""
    pool, unpool_op = (F.max_pool2d, F.max_unpool2d) if x.dim() == 4 else (F.max_pool3d, F.max_unpool3d)
    kinds = nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d
    layers = iter([layer for layer in model.modules() if isinstance(layer, kinds)])
    depths = [2, 2, 3, 3, 3][:stages]
    memory = []
    for depth in depths:
        for _ in range(depth):
            conv, norm = next(layers), next(layers)
            x = torch.relu(norm(conv(x)))
        memory.append(x.shape[2:])
        x, indices = pool(x, 2, 2, return_indices=True)
        memory.append(indices)
    for stage in reversed(range(stages)):
        indices, size = memory.pop(), memory.pop()
        mode = "bilinear" if x.dim() == 4 else "trilinear"
        x = unpool_op(x, indices, 2, 2, output_size=size) if unpool else F.interpolate(x, size=size, mode=mode)
        for position in range(depths[stage]):
            x = next(layers)(x)
            if (stage, position) != (0, depths[0] - 1):
                x = torch.relu(next(layers)(x))
    assert next(layers, None) is None
    return x


@pytest.mark.parametrize("shape", [(2, 2, 37, 50), (1, 2, 34, 33, 32)])
@pytest.mark.parametrize(
    "recipe",
    [
        {"name": "segnet"},
        *({"name": "shallow_segnet", "stages": s, "upsampling": u} for s in (1, 3, 5) for u in ("bilinear", "unpool")),
    ],
    ids=lambda recipe: "-".join(map(str, recipe.values())),
)
def test_segnets_equal_a_plain_forward_pass(recipe, shape):
    model = build({"width": 4, **recipe}, len(shape) - 2).eval()
    x = torch.rand(shape)
    with torch.no_grad():
        expected = reference_segnet(model, x, recipe.get("stages", 5), recipe.get("upsampling", "unpool") == "unpool")
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
