"""TS-U-Net (reconstruction): its count from that of its parts, and the fusion written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lib.models import build_model


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def narrow(spatial_dims: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model({"name": "ts_unet", "width": 4}, 2, 3, spatial_dims)


@pytest.mark.parametrize(("spatial_dims", "total"), [(2, 2_185_912), (3, 6_500_152)])
def test_parameter_count(spatial_dims, total):
    with torch.device("meta"):
        model = build_model({"name": "ts_unet"}, 4, 4, spatial_dims)
        gated = build_model({"name": "attention_unet", "width": 16}, 4, 4, spatial_dims)
    count = sum(p.numel() for p in model.parameters())
    heads = sum(channels * 4 + 4 for channels in (16, 32, 64, 128))
    assert count == sum(p.numel() for p in gated.parameters()) - (16 * 4 + 4) + heads + (16 * 4 + 4)
    assert count == total


@pytest.mark.parametrize("shape", [(2, 2, 32, 48), (1, 2, 16, 32, 16)])
def test_fusion_written_out(shape):
    model = narrow(len(shape) - 2).eval()
    mode = "bilinear" if len(shape) == 4 else "trilinear"
    x = torch.randn(shape)
    with torch.no_grad():
        levels = model.trunk(x)
        assert [level.shape[1] for level in levels] == [4, 8, 16, 32]
        assert [level.shape[2] for level in levels] == [shape[2] // 2**k for k in range(4)]
        maps = [model.heads[0](levels[0])]
        for k in (1, 2, 3):
            maps.append(F.interpolate(model.heads[k](levels[k]), scale_factor=2**k, mode=mode))
        torch.testing.assert_close(model(x), model.fuse(torch.cat(maps, 1)))


@pytest.mark.parametrize("size", [(16, 16), (35, 50), (17, 16, 20)])
def test_deterministic_at_any_size(size, deterministic):
    gradients = []
    for _ in range(2):
        model = narrow(len(size))
        torch.manual_seed(1)
        logits = model(torch.rand(2, 2, *size))
        assert logits.shape == (2, 3, *size)
        logits.square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
