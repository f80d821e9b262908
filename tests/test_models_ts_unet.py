"""TS-U-Net (reconstruction): its count from that of its parts, and the fusion written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build, on_meta


def narrow(spatial_dims: int = 2) -> torch.nn.Module:
    return build({"name": "ts_unet", "width": 4}, spatial_dims)


@pytest.mark.parametrize(("spatial_dims", "total"), [(2, 2_185_912), (3, 6_500_152)])
def test_parameter_count(spatial_dims, total):
    model = on_meta({"name": "ts_unet"}, 4, 4, spatial_dims)
    gated = on_meta({"name": "attention_unet", "width": 16}, 4, 4, spatial_dims)
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
