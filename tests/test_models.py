"""Architectures: the published tables, an independent forward pass, odd sizes, determinism, gradients."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.errors import BadInput
from lib.models import MODELS, available, build_model
from lib.models.layers import max_unpool, resize_by_matrices, upsample_linear

MINIMUM = {
    "attention_unet": 16,
    "dmfnet": 16,
    "nas_unet": 32,
    "pcnet": 6,
    "pnet": 17,
    "segnet": 32,
    "segnet_basic": 16,
    "shallow_segnet": 8,
    "ts_unet": 16,
    "unet": 16,
    "unet_plus_plus": 16,
    "vnet": 16,
}
RECIPES = [{"name": name} for name in available()] + [{"name": "shallow_segnet", "upsampling": "unpool"}]


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def narrow(recipe: dict, spatial_dims: int = 2, channels: tuple[int, int] = (2, 3), seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model({"width": 4, **recipe}, *channels, spatial_dims)


def label(recipe: dict) -> str:
    return "-".join(str(value) for value in recipe.values())


# The published tables


@pytest.mark.parametrize(
    ("recipe", "inputs", "outputs", "parameters"),
    [
        ({"name": "segnet"}, 1, 4, 29_444_164),
        ({"name": "segnet"}, 3, 12, 29_449_932),
        ({"name": "segnet"}, 1, 2, 29_443_010),
        ({"name": "shallow_segnet", "stages": 2}, 1, 4, 520_900),
        ({"name": "shallow_segnet"}, 1, 4, 3_474_244),
        ({"name": "shallow_segnet", "upsampling": "unpool"}, 1, 4, 3_474_244),
        ({"name": "shallow_segnet", "stages": 4}, 1, 4, 15_279_172),
        ({"name": "shallow_segnet", "stages": 5}, 1, 4, 29_444_164),
        ({"name": "unet"}, 1, 4, 31_036_676),
        ({"name": "unet", "width": 32}, 1, 4, 7_762_564),
    ],
)
def test_parameter_counts_of_the_papers(recipe, inputs, outputs, parameters):
    with torch.device("meta"):
        model = build_model(recipe, inputs, outputs, 2)
    assert sum(p.numel() for p in model.parameters()) == parameters


def executed(model: nn.Module, x: torch.Tensor) -> list[tuple[str, int, int]]:
    """(layer type, output channels, height) in the order of execution."""
    order = []
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda layer, _, y: order.append((type(layer).__name__, y.shape[1], y.shape[2]))
            )
    model(x)
    return order


def test_segnet_runs_the_layers_of_its_table_in_order():
    encoder = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    decoder = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 11]
    heights = [64] * 2 + [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3
    order = executed(build_model({"name": "segnet"}, 3, 11, 2).eval(), torch.rand(1, 3, 64, 64))
    expected = []
    for channels, height in zip(encoder + decoder, heights + heights[::-1], strict=True):
        expected += [(kind, channels, height) for kind in ("Conv2d", "BatchNorm2d", "ReLU")]
    assert order == expected[:-2]  # the last convolution is bare


def test_every_segnet_convolution_is_3x3_with_bias_and_he_weights():
    torch.manual_seed(0)
    convolutions = [m for m in build_model({"name": "segnet"}, 1, 4, 2).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 26
    for conv in convolutions:
        assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        assert torch.equal(conv.bias, torch.zeros_like(conv.bias))
    for conv in convolutions[1:-1]:  # enough weights for a standard deviation to 3 %
        assert conv.weight.std().item() == pytest.approx((2 / (9 * conv.in_channels)) ** 0.5, rel=0.03)


def test_unet_runs_the_layers_of_its_table_in_order():
    order = executed(build_model({"name": "unet"}, 1, 4, 2).eval(), torch.rand(1, 1, 32, 32))
    assert all(
        a[0] == "Conv2d" and b[0] == "BatchNorm2d" and c[0] == "ReLU"
        for a, b, c in zip(*[iter([o for o in order[:-1] if o[0] != "ConvTranspose2d"])] * 3, strict=True)
    )
    weighted = [o for o in order if o[0].startswith("Conv")]
    double = [[("Conv2d", 64 * 2**k, 32 >> k)] * 2 for k in range(5)]
    expected = [layer for level in double for layer in level]
    for k in (3, 2, 1, 0):
        expected += [("ConvTranspose2d", 64 * 2**k, 32 >> k), *double[k]]
    assert weighted == [*expected, ("Conv2d", 4, 32)]


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
    ids=label,
)
def test_segnets_equal_a_plain_forward_pass(recipe, shape):
    model = narrow(recipe, len(shape) - 2).eval()
    x = torch.rand(shape)
    with torch.no_grad():
        expected = reference_segnet(model, x, recipe.get("stages", 5), recipe.get("upsampling", "unpool") == "unpool")
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_unet_equals_a_plain_forward_pass():
    model = narrow({"name": "unet"}).eval()
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
    model = narrow({"name": "unet"}).eval()
    x = torch.rand(1, 2, 35, 50)
    padded = torch.cat([x, x[..., -1:, :].expand(-1, -1, 13, -1)], 2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 14)], 3)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(padded)[..., :35, :50])


# The whole registry


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_shapes_and_gradients_at_the_minimum_and_at_odd_sizes(recipe, spatial_dims):
    minimum = MINIMUM[recipe["name"]]
    for size in ([minimum] * spatial_dims, [minimum + 1, minimum + 7, minimum + 4][:spatial_dims]):
        model = narrow(recipe, spatial_dims)
        logits = model(torch.rand(2, 2, *size))
        assert logits.shape == (2, 3, *size)
        assert logits.isfinite().all()
        (logits * torch.rand_like(logits)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), name
            # Batch normalisation takes the bias before it off again, so only rounding is left of its gradient.
            negligible = name.endswith("bias") and parameter.grad.abs().max() < 1e-4
            assert parameter.grad.any() or negligible, f"no gradient reaches {name}"


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_too_small_an_input_names_the_minimum(recipe):
    minimum = MINIMUM[recipe["name"]]
    with pytest.raises(BadInput, match=rf"'{recipe['name']}' needs at least {minimum} pixels .* 64 × {minimum - 1}"):
        narrow(recipe)(torch.rand(1, 2, 64, minimum - 1))


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_cases_of_a_batch_are_independent_in_eval_mode(recipe):
    model = narrow(recipe).eval()
    x = torch.rand(3, 2, 40, 33)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_channels_last_throughout(recipe):
    logits = narrow(recipe)(torch.rand(2, 2, 48, 48))  # a contiguous input
    assert logits.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("recipe", RECIPES, ids=label)
def test_same_seed_same_weights(recipe):
    one, same, other = (narrow(recipe, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


# Deterministic resampling


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [(8, 6), (9, 7), (2, 2), (8, 6, 4), (9, 7, 5)])
def test_max_unpool_is_bit_equal_to_torch(size, channels_last, request):
    dims = len(size)
    pool, unpool = {2: (F.max_pool2d, F.max_unpool2d), 3: (F.max_pool3d, F.max_unpool3d)}[dims]
    x = torch.randn(2, 3, *size).relu()  # zeros: ties inside windows
    if channels_last:
        x = x.to(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[dims])
    _, indices = pool(x, 2, 2, return_indices=True)
    ours = torch.randn(indices.shape, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    expected = unpool(theirs, indices, 2, 2, output_size=size)
    upstream = torch.randn(2, 3, *size)
    expected.backward(upstream)

    request.getfixturevalue("deterministic")
    result = max_unpool(ours, indices, size)
    result.backward(upstream)
    assert torch.equal(result, expected)
    assert torch.equal(ours.grad, theirs.grad)


def test_torch_unpooling_still_raises_in_deterministic_mode(deterministic):
    """The reason for our own; once this fails, torch's may come back."""
    y, indices = F.max_pool2d(torch.rand(1, 1, 4, 4), 2, 2, return_indices=True)
    with pytest.raises(RuntimeError, match="deterministic"):
        F.max_unpool2d(y, indices, 2, 2)


@pytest.mark.parametrize("resize", [resize_by_matrices, upsample_linear])
@pytest.mark.parametrize(
    ("old", "new"),
    [((4, 5), (8, 10)), ((4, 5), (9, 11)), ((1, 3), (2, 7)), ((3, 2, 4), (6, 5, 9)), ((5, 1, 2), (10, 3, 4))],
)
def test_linear_upsampling_equals_interpolate_with_its_gradient(old, new, resize):
    ours = torch.randn(2, 3, *old, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    expected = F.interpolate(theirs, size=new, mode={2: "bilinear", 3: "trilinear"}[len(old)], align_corners=False)
    upstream = torch.randn(expected.shape)
    expected.backward(upstream)
    result = resize(ours, new)
    result.backward(upstream)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=2e-6)


def test_linear_upsampling_by_hand():
    row = torch.tensor([[[[0.0, 4.0]]]])
    expected = torch.tensor([[[[0.0, 1.0, 3.0, 4.0]] * 2]])
    assert torch.equal(resize_by_matrices(row, (2, 4)), expected)
    assert torch.equal(upsample_linear(row, (2, 4)), expected)


# Bad recipes


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "segnett"}, "'segnett'.* Did you mean 'segnet'"),
        ({"name": "unet", "widht": 8}, "'unet'.* has no parameter 'widht'.* Did you mean 'width'"),
        ({"name": "segnet", "stages": 3}, "'segnet'.* has no parameter 'stages'"),
        ({"name": "unet", "in_channels": 3}, "'unet'.* has no parameter 'in_channels'"),
        ({"width": 8}, "needs 'name'"),
        (
            {"name": "shallow_segnet", "upsampling": "bilinaer"},
            "no upsampling 'bilinaer'.* Did you mean 'bilinear'",
        ),
        ({"name": "shallow_segnet", "stages": 6}, "at most 5 stages .* not 6"),
        ({"name": "shallow_segnet", "stages": 0}, "integer stages of at least 1, not 0"),
        ({"name": "unet", "width": 1.5}, "integer width of at least 1, not 1.5"),
        ({"name": "segnet", "width": "64"}, "integer width of at least 1, not '64'"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_model(recipe, 1, 4, 2)


def test_bad_surroundings_are_explained():
    with pytest.raises(BadInput, match="spatial_dims is 4"):
        build_model({"name": "unet"}, 1, 4, 4)
    with pytest.raises(BadInput, match="in_channels is 0"):
        build_model({"name": "unet"}, 0, 4, 2)


def test_names_and_parameters_without_torch():
    code = (
        "import sys, lib.models, lib.losses; lib.models.available(); lib.losses.available();"
        "lib.models.MODELS.parameters('unet'); sys.exit('torch' in sys.modules)"
    )
    path = MODELS.module("unet").parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=path).returncode == 0
    assert {"segnet", "shallow_segnet", "unet"} <= set(available())
