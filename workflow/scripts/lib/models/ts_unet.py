"""TS-U-Net (reconstruction): an Attention U-Net whose decoder levels all contribute to the prediction.

Source: the abstract of Zhang et al., TS-U-net, Information Technology and Control 53(4), 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.models.attention_unet import FACTOR, WIDTHS, GatedTrunk
from lib.models.blocks import crop, pad_to_multiple
from lib.models.layers import CONV, check_positive, check_size, he_init, upsample_linear
from lib.registry import register


@register("ts_unet")
class TSUNet(nn.Module):
    """TS-U-Net (reconstruction): attention gates on every skip, multi-scale fusion of all decoder levels.

    Source: see the module. The trunk is that of `attention_unet`; a 1×1 convolution maps each of its 4 decoder
    levels to the classes, bilinear (trilinear) upsampling brings them to full size, and a 1×1 convolution maps
    their concatenation to the logits.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded
    with edge values to a multiple of 16, cropped back).
    Parameters: width = channels of the first level (levels have 1, 2, 4, 8, 16 times as many). At width 16, 4 → 4
    channels: 2,185,912 in 2-D, 6,500,152 in 3-D.
    Known, from the abstract: a U-Net with attention and multi-scale feature fusion. Reconstruction: everything
    else. The composition and the widths follow ozan-oktay/Attention-Gated-Networks (unet_CT_single_att_dsv_3D:
    64 … 1024 channels / 4), with the gates of `attention_unet` on all four skips. Unknown: what "TS" and
    "multiple branch" mean, the kind of attention, widths, 2-D or 3-D.
    Cite: zhang2024
    """

    deepest = "trunk.encoder"  # whose (last) output a loss may look at

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 16):
        super().__init__()
        check_positive("ts_unet", width=width)
        conv = CONV[spatial_dims]
        self.trunk = GatedTrunk(in_channels, spatial_dims, width)
        self.heads = nn.ModuleList(conv(multiple * width, out_channels, 1) for multiple in WIDTHS[:-1])
        self.fuse = conv(len(self.heads) * out_channels, out_channels, 1)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        check_size("ts_unet", x, FACTOR, batch_norm_at_bottom=self.training)
        size = x.shape[2:]
        x = pad_to_multiple(x, FACTOR)
        full = x.shape[2:]
        maps = [head(level) for head, level in zip(self.heads, self.trunk(x), strict=True)]  # finest first
        maps = [maps[0], *(upsample_linear(coarse, full) for coarse in maps[1:])]
        return crop(self.fuse(torch.cat(maps, dim=1)), size)
