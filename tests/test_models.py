"""All architectures: sizes, gradients, determinism, limits, bad recipes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from model_variants import CHANNELS, CLASSES, VARIANTS, Variant, assert_same, build, step

from lib.errors import BadInput
from lib.models import MODELS, available, build_model

CASES = [pytest.param(variant, dims, id=f"{variant}-{dims}d") for variant in VARIANTS for dims in variant.dims]


def test_every_architecture_has_a_variant():
    assert {variant.name for variant in VARIANTS} == set(available())


@pytest.mark.parametrize(("variant", "dims"), CASES)
def test_a_step(variant: Variant, dims: int, deterministic):
    """At an odd, anisotropic size: shapes, a gradient for every parameter, the same bits twice, other weights for another seed."""
    size = variant.odd(dims)
    one = step(variant.recipe, size)
    assert_same(one, step(variant.recipe, size))
    drawn = {name: p for name, p in build(variant.recipe, dims, seed=1).named_parameters() if p.dim() > 2}
    assert drawn and not any(torch.equal(one.weights[name], p) for name, p in drawn.items())
    assert len(one.logits) == variant.outputs
    assert one.logits[0].shape == (2, CLASSES, *size)
    if dims == 2 and variant.name != "hdc_duc":  # torch 2.13 drops the format in volumes, DUC shuffles
        assert one.logits[0].stride(1) == 1  # channels last
    assert all(y.isfinite().all() for y in one.logits)
    for name, gradient in one.gradients.items():
        assert gradient is not None and gradient.isfinite().all(), name
        # Normalisation takes the bias before it off again, so only rounding is left of its gradient.
        negligible = name.endswith("bias") and gradient.abs().max() < 1e-4
        assert gradient.any() or negligible, f"no gradient reaches {name}"


@pytest.mark.parametrize(("variant", "dims"), CASES)
def test_evaluation_and_the_smallest_input(variant: Variant, dims: int):
    """One tensor, cases of a batch independent of each other, down to the stated limit and not below."""
    model = build(variant.recipe, dims, seed=1).eval().double()
    size = variant.smallest(dims)
    x = torch.rand(2, CHANNELS, *size, dtype=torch.double)
    with torch.no_grad():
        logits = model(x)
        torch.testing.assert_close(model(x[1:]), logits[1:])
        assert logits.shape == (2, CLASSES, *size)
        with pytest.raises(BadInput) as error:
            model(x[..., : variant.minimum - 1])
    limit = variant.minimum
    if variant.name == "hdc_duc":  # halves the size, rounded up; the message is that of the network inside
        limit = limit // 2 + 1
    assert f"'{variant.name}'" in str(error.value)
    assert f"needs at least {limit} " in str(error.value)
    assert f" × {limit - 1}" in str(error.value)


@pytest.mark.parametrize(("variant", "dims"), CASES)
def test_the_smallest_single_image_trains_or_says_why_not(variant: Variant, dims: int):
    model = build(variant.recipe, dims)
    x = torch.rand(1, CHANNELS, *variant.smallest(dims))
    try:
        logits = model(x)
    except BadInput as error:
        assert f"'{variant.name}'" in str(error) and "batch of 1" in str(error)
        logits = model(torch.cat([x, x]))
    assert all(y.isfinite().all() for y in (logits if isinstance(logits, list) else [logits]))


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
