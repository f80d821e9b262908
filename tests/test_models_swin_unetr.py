"""Swin UNETR: the published count, MONAI's own forward pass, and windows smaller than full."""

from __future__ import annotations

import itertools

import pytest
import torch
from model_variants import SWIN, assert_same, build, step

from lib.errors import BadInput
from lib.models import build_model


def of_monai(model, window):
    from monai.networks.nets import SwinUNETR

    network = SwinUNETR(2, 3, feature_size=12, window_size=window, spatial_dims=2)
    state = network.state_dict() | model.network.state_dict()
    network.load_state_dict(state)  # the only keys that ours lacks are MONAI's indices
    assert all("position_index" in key for key in state.keys() - model.network.state_dict().keys())
    return network.eval()


def test_parameter_count():
    """The paper has 61.98 M."""
    model = build({"name": "swin_unetr"}, 3, channels=(1, 14))
    assert sum(p.numel() for p in model.parameters()) == 62_187_296


def test_equals_monai_where_every_feature_map_has_full_windows():
    model = build(SWIN | {"window": 2}).eval()
    x = torch.rand(1, 2, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(x), of_monai(model, 2)(x), rtol=1e-4, atol=1e-5)


def test_pads_to_a_multiple_of_32():
    model = build(SWIN).eval()
    x = torch.rand(1, 2, 33, 64)
    padded = torch.cat([x, x[..., -1:, :].expand(-1, -1, 31, -1)], 2)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(padded)[..., :33, :])


def offsets(window, full):
    """Rows of the table of position biases, written out: offset of token i from j, row-major from -(full - 1)."""
    tokens = list(itertools.product(*(range(n) for n in window)))
    table = list(itertools.product(*(range(-n + 1, n) for n in full)))
    return torch.tensor(
        [[table.index(tuple(a - b for a, b in zip(i, j, strict=True))) for j in tokens] for i in tokens]
    )


@pytest.mark.parametrize(("window", "full"), [((3, 3), (3, 3)), ((2, 3), (4, 4)), ((2, 2, 3), (3, 3, 3))])
def test_position_biases_belong_to_the_offsets(window, full):
    from lib.models.swin_unetr import relative_position_index

    assert torch.equal(relative_position_index(window, full, torch.device("cpu")), offsets(window, full))


def test_small_windows_take_the_biases_of_their_own_offsets():
    """MONAI takes those of the first tokens of a full window. (Once this fails, MONAI's index may come back.)"""
    model = build(SWIN | {"window": 4}).eval()
    seen = {}
    attention = model.network.swinViT.layers4[0].blocks[0].attn
    attention.register_forward_hook(lambda layer, *_: seen.update(index=layer.relative_position_index))
    with torch.no_grad():
        model(torch.rand(1, 2, 64, 32))  # stage 4 has 4 × 2 tokens
    assert torch.equal(seen["index"], offsets((4, 2), (4, 4)))
    theirs = of_monai(model, 4).swinViT.layers4[0].blocks[0].attn.relative_position_index
    assert not torch.equal(theirs[:8, :8], seen["index"])


@pytest.mark.slow
def test_a_step_in_volumes(deterministic):
    size = (32, 33, 40)
    one = step(SWIN, size)
    assert_same(one, step(SWIN, size))
    assert one.logits[0].shape == (2, 3, *size)
    assert all(g.any() for name, g in one.gradients.items() if not name.endswith("bias"))


def test_bad_width_is_explained():
    with pytest.raises(BadInput, match="'swin_unetr' needs a width that is a multiple of 12, not 8"):
        build_model({"name": "swin_unetr", "width": 8}, 1, 2, 2)
