"""MedNeXt: the published counts, MONAI's own forward pass, deep supervision."""

from __future__ import annotations

import pytest
import torch
from model_variants import build, parameters

from lib.errors import BadInput
from lib.models import build_model


@pytest.mark.parametrize(
    ("size", "kernel", "count", "published"),  # millions, in the authors' table
    [
        ("S", 3, 5_550_914, 5.6),
        ("B", 3, 10_510_850, 10.5),
        ("M", 3, 17_533_506, 17.6),
        ("L", 3, 61_726_754, 61.8),
        ("S", 5, 5_980_546, 5.9),
        ("B", 5, 10_940_482, 11.0),
        ("M", 5, 18_245_378, 18.3),
        ("L", 5, 62_940_386, 63.0),
    ],
)
def test_parameter_counts(size, kernel, count, published):
    assert parameters({"name": "mednext", "size": size, "kernel": kernel}, 1, 2, 3) == count
    assert count / 1e6 == pytest.approx(published, abs=0.09)


@pytest.mark.parametrize("size", [(32, 48), (16, 32, 16)])
def test_equals_monai(size):
    """Whose strided 1×1 convolutions the wrapper replaces by one of every second pixel."""
    from monai.networks.nets.mednext import create_mednext

    model = build({"name": "mednext", "size": "B"}, len(size)).eval().double()
    network = create_mednext("B", len(size), 2, 3).eval().double()
    network.load_state_dict(model.network.state_dict())
    x = torch.rand(1, 2, *size, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(model(x), network(x), rtol=1e-8, atol=1e-10)


def test_sizes_of_deep_supervision():
    model = build({"name": "mednext", "width": 4, "deep_supervision": True})
    x = torch.rand(1, 2, 35, 50)
    assert [tuple(y.shape[2:]) for y in model(x)] == [(35, 50), (18, 25), (9, 13), (5, 7), (3, 4)]
    assert model.eval()(x).shape == (1, 3, 35, 50)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"size": "XL"}, "no size 'XL'"),
        ({"kernel": 4}, "odd kernel, not 4"),
        ({"deep_supervision": 1}, "true or false"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_model({"name": "mednext", **recipe}, 1, 2, 2)
