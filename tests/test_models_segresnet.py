"""SegResNet: its count and MONAI's own forward pass."""

from __future__ import annotations

import pytest
import torch
from model_variants import build, parameters

from lib.errors import BadInput
from lib.models import build_model


def test_parameter_count():
    assert parameters({"name": "segresnet"}, 4, 3, 3) == 18_798_627


@pytest.mark.parametrize("size", [(24, 40), (16, 24, 8)])
def test_equals_monai(size):
    from monai.networks.nets import SegResNet

    model = build({"name": "segresnet", "width": 8}, len(size)).eval()
    network = SegResNet(len(size), init_filters=8, in_channels=2, out_channels=3).eval()
    network.load_state_dict(model.network.state_dict())
    x = torch.rand(2, 2, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(x), network(x), rtol=1e-4, atol=1e-5)


def test_bad_width_is_explained():
    with pytest.raises(BadInput, match="'segresnet' needs a width that is a multiple of 8, not 4"):
        build_model({"name": "segresnet", "width": 4}, 1, 2, 2)
