"""UNet++: the published count, the graph of nodes written out, and upsampling with align_corners=True."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, on_meta

from lib.models.unet_plus_plus import resize_corners, upsample_corners


def narrow(spatial_dims: int = 2) -> torch.nn.Module:
    return build({"name": "unet_plus_plus", "width": 4}, spatial_dims)


@pytest.mark.parametrize(("inputs", "outputs", "parameters"), [(1, 2, 9_162_786), (3, 1, 9_163_329)])
def test_parameter_counts(inputs, outputs, parameters):
    model = on_meta({"name": "unet_plus_plus"}, inputs, outputs, 2)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("shape", [(2, 2, 32, 48), (1, 2, 16, 32, 16)])
def test_equals_the_graph_written_out(shape):
    model = narrow(len(shape) - 2).eval()
    pool, mode = (F.max_pool2d, "bilinear") if len(shape) == 4 else (F.max_pool3d, "trilinear")
    x = torch.rand(shape)

    def node(name, *inputs):
        return model.nodes[name](torch.cat(inputs, 1))

    def up(y):
        return F.interpolate(y, scale_factor=2, mode=mode, align_corners=True)

    with torch.no_grad():
        x00 = node("0_0", x)
        x10 = node("1_0", pool(x00, 2))
        x20 = node("2_0", pool(x10, 2))
        x30 = node("3_0", pool(x20, 2))
        x40 = node("4_0", pool(x30, 2))
        x01, x11 = node("0_1", x00, up(x10)), node("1_1", x10, up(x20))
        x21, x31 = node("2_1", x20, up(x30)), node("3_1", x30, up(x40))
        x02, x12 = node("0_2", x00, x01, up(x11)), node("1_2", x10, x11, up(x21))
        x22 = node("2_2", x20, x21, up(x31))
        x03, x13 = node("0_3", x00, x01, x02, up(x12)), node("1_3", x10, x11, x12, up(x22))
        x04 = node("0_4", x00, x01, x02, x03, up(x13))
        torch.testing.assert_close(model(x), model.classifier(x04), rtol=1e-4, atol=1e-5)


def test_deep_supervision():
    """In training the logits of X(0, 4), X(0, 3), X(0, 2), X(0, 1); in evaluation those of X(0, 4)."""
    recipe = {"name": "unet_plus_plus", "width": 4, "deep_supervision": True}
    model, plain = build(recipe), narrow()
    plain.load_state_dict({name: t for name, t in model.state_dict().items() if not name.startswith("earlier")})
    nodes = {}
    for position in (1, 2, 3):
        model.nodes[f"0_{position}"].register_forward_hook(
            lambda _, __, y, position=position: nodes.update({position: y})
        )
    x = torch.rand(2, 2, 35, 50)
    logits = model(x)
    assert len(logits) == 4
    torch.testing.assert_close(logits[0], plain(x))
    for k, position in enumerate((3, 2, 1)):
        torch.testing.assert_close(logits[1 + k], model.earlier[k](nodes[position])[..., :35, :50])
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("resize", [resize_corners, upsample_corners])
@pytest.mark.parametrize(("old", "new"), [((4, 5), (8, 10)), ((1, 3), (2, 6)), ((3, 2, 4), (6, 4, 8))])
def test_upsampling_equals_interpolate_with_its_gradient(old, new, resize):
    mode = {2: "bilinear", 3: "trilinear"}[len(old)]
    ours = torch.randn(2, 3, *old, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    expected = F.interpolate(theirs, size=new, mode=mode, align_corners=True)
    upstream = torch.randn(expected.shape)
    expected.backward(upstream)
    result = resize(ours, new)
    result.backward(upstream)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=2e-6)


def test_upsampling_by_hand():
    row = torch.tensor([[[[0.0, 3.0]]]])
    torch.testing.assert_close(resize_corners(row, (2, 4)), torch.tensor([[[[0.0, 1.0, 2.0, 3.0]] * 2]]))
