"""Attention U-Net: a U-Net whose skips pass additive attention gates.

Source: Oktay et al., Attention U-Net, MIDL 2018, in the widespread 2-D form of the table of
LeeJunHyun/Image_Segmentation (network.py, AttU_Net), written anew from the description.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.models.blocks import conv_norm_relu, crop, double_conv, pad_to_multiple, upsample_nearest
from lib.models.layers import BATCH_NORM, CONV, MAX_POOL, check_positive, check_size, he_init
from lib.registry import register

WIDTHS = (1, 2, 4, 8, 16)  # channels per level, in multiples of `width`
FACTOR = 2 ** (len(WIDTHS) - 1)  # the input shrinks by this much


@register("attention_unet")
class AttentionUNet(nn.Module):
    """Attention U-Net: a U-Net with an additive attention gate on each of its 4 skips.

    Source: see the module. Channels 64-128-256-512-1024, two 3×3 convolutions per level, max-pooling 2×2;
    upsampling = nearest ×2, then a 3×3 convolution; all with bias, batch normalisation and ReLU. Gate: x · psi,
    psi = sigmoid(BN(conv(ReLU(BN(conv(g)) + BN(conv(x)))))), 1×1 convolutions, half as many channels inside,
    g = the upsampled decoder feature. 1×1 classifier, He weights.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded
    with edge values to a multiple of 16, cropped back).
    Parameters: width = channels of the first level. At width 64: 34,877,486 for 1 → 2 channels (the table's
    34.877 M), 34,878,573 for 3 → 1.
    Known: every layer of the 2-D table. The paper's own gate differs: its gating signal comes from the coarser
    level, before upsampling, and psi is resized back. He weights (the table's code draws N(0, 0.02²) by an
    option) and spatial_dims = 3 are ours.
    Cite: oktay2018
    """

    deepest = "trunk.encoder"  # whose (last) output a loss may look at

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 64):
        super().__init__()
        check_positive("attention_unet", width=width)
        self.trunk = GatedTrunk(in_channels, spatial_dims, width)
        self.classifier = CONV[spatial_dims](width, out_channels, 1)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        check_size("attention_unet", x, FACTOR, batch_norm_at_bottom=self.training)
        finest = self.trunk(pad_to_multiple(x, FACTOR))[0]
        return crop(self.classifier(finest), x.shape[2:])


class GatedTrunk(nn.Module):
    """The network but its classifier: (B, in_channels, *S), S in multiples of 16, to the features of the 4
    decoder levels, finest first: (B, width · 2^k, *S / 2^k)."""

    def __init__(self, in_channels: int, spatial_dims: int, width: int):
        super().__init__()
        widths = [width * multiple for multiple in WIDTHS]
        self.pool = MAX_POOL[spatial_dims]
        self.encoder = nn.ModuleList(
            double_conv(spatial_dims, before, after)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.up, self.gates, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for channels in reversed(widths[:-1]):
            self.up.append(nn.Sequential(*conv_norm_relu(spatial_dims, 2 * channels, channels)))
            self.gates.append(AttentionGate(spatial_dims, channels))
            self.decoder.append(double_conv(spatial_dims, 2 * channels, channels))

    def forward(self, x: Tensor) -> list[Tensor]:
        skips = []
        for level in self.encoder[:-1]:
            skips.append(level(x))
            x = self.pool(skips[-1], 2)
        x = self.encoder[-1](x)
        levels = []
        for up, gate, level in zip(self.up, self.gates, self.decoder, strict=True):
            skip = skips.pop()
            x = up(upsample_nearest(x, skip.shape[2:]))
            x = level(torch.cat([gate(skip, x), x], dim=1))
            levels.insert(0, x)
        return levels


class AttentionGate(nn.Module):
    """Scale the skip x by psi(x, g) in (0, 1), one value per pixel; x and g are (B, channels, *S)."""

    def __init__(self, spatial_dims: int, channels: int):
        super().__init__()
        inside = max(channels // 2, 1)
        self.of_gating = _conv_norm(spatial_dims, channels, inside)
        self.of_skip = _conv_norm(spatial_dims, channels, inside)
        self.psi = _conv_norm(spatial_dims, inside, 1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return x * torch.sigmoid(self.psi(torch.relu(self.of_gating(g) + self.of_skip(x))))


def _conv_norm(spatial_dims: int, before: int, after: int) -> nn.Sequential:
    return nn.Sequential(CONV[spatial_dims](before, after, 1), BATCH_NORM[spatial_dims](after))
