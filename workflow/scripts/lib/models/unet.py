"""U-Net (Ronneberger, Fischer, Brox, MICCAI 2015), with padded convolutions and batch normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.layers import BATCH_NORM, CONV, CONV_TRANSPOSE, MAX_POOL, check_positive, check_size, he_init
from lib.registry import register

WIDTHS = (1, 2, 4, 8, 16)  # channels per level, in multiples of `width`
FACTOR = 2 ** (len(WIDTHS) - 1)  # the input shrinks by this much


@register("unet")
class UNet(nn.Module):
    """U-Net: two 3×3 convolutions per level, 4 max-poolings, 4 transposed convolutions, concatenated skips.

    Source: Ronneberger 2015: channels 64-128-256-512-1024, pooling and upsampling 2×2, 1×1 classifier, He weights.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis. A size
    that is no multiple of 16 is padded with edge values at its end, and the logits are cropped back, so that
    every level halves evenly and border pixels see ordinary context.
    Parameters: width = channels of the first level (levels have 1, 2, 4, 8, 16 times as many). For 1 → 4
    channels: 31,036,676 at width 64, 7,762,564 at width 32.
    Differs from the paper, as today's implementations do: convolutions are padded (the paper's are valid, its
    output smaller than its input); each is followed by batch normalisation, hence without bias; no dropout;
    no border weights (a matter of the loss). spatial_dims = 3 uses 3×3×3 and 2×2×2.
    """

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 64):
        super().__init__()
        check_positive("unet", width=width)
        widths = [width * multiple for multiple in WIDTHS]
        self.pool = MAX_POOL[spatial_dims]
        self.encoder = nn.ModuleList(
            _double(spatial_dims, before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for channels in reversed(widths[:-1]):
            self.up.append(CONV_TRANSPOSE[spatial_dims](2 * channels, channels, 2, stride=2))
            self.decoder.append(_double(spatial_dims, 2 * channels, channels))
        self.classifier = CONV[spatial_dims](width, out_channels, 1)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        check_size("unet", x, FACTOR)
        size = x.shape[2:]
        if any(n % FACTOR for n in size):
            x = F.pad(x, [p for n in reversed(size) for p in (0, -n % FACTOR)], mode="replicate")

        skips = []
        for level in self.encoder[:-1]:
            skips.append(level(x))
            x = self.pool(skips[-1], 2)
        x = self.encoder[-1](x)
        for up, level in zip(self.up, self.decoder, strict=True):
            x = level(torch.cat([skips.pop(), up(x)], dim=1))
        return self.classifier(x)[(..., *(slice(n) for n in size))]


def _double(spatial_dims: int, before: int, after: int) -> nn.Sequential:
    layers = []
    for channels in (before, after):
        layers += [
            CONV[spatial_dims](channels, after, 3, padding=1, bias=False),
            BATCH_NORM[spatial_dims](after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
