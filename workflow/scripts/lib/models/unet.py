"""U-Net (Ronneberger, Fischer, Brox, MICCAI 2015), with padded convolutions and batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.models.blocks import crop, pad_to_multiple
from lib.models.layers import CONV, CONV_TRANSPOSE, MAX_POOL, check_flags, check_positive, check_size, he_init, norm
from lib.models.sizes import pad_to_factors
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
    residual: each level adds its input, through a 1×1 convolution and normalisation where the channels change,
    to its second normalisation, before the ReLU (He 2016; Zhang, Road Extraction by Deep Residual U-Net, 2018).
    normalisation: `batch`; `instance` (affine; inputs of 16 pixels along every axis are padded to 32 along the
    last, because one pixel at the bottom has no standard deviation); `group` (16 channels per group, one group where
    16 does not divide them); `none` (then with bias).
    deep_supervision: in training the result is a list of logits, finest first: those of the tensor, and 1×1
    classifiers of the decoder's levels at 1/2, 1/4, 1/8 of its size, rounded up (Dou 2017). In evaluation the
    tensor alone.
    Differs from the paper, as today's implementations do: convolutions are padded (the paper's are valid, its
    output smaller than its input); each is followed by batch normalisation, hence without bias; no dropout;
    no border weights (a matter of the loss). spatial_dims = 3 uses 3×3×3 and 2×2×2. The options are ours.
    Cite: ronneberger2015
    """

    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int = 64,
        residual: bool = False,
        normalisation: str = "batch",
        deep_supervision: bool = False,
    ):
        super().__init__()
        check_positive("unet", width=width)
        check_flags("unet", residual=residual, deep_supervision=deep_supervision)
        widths = [width * multiple for multiple in WIDTHS]
        self.normalisation = normalisation
        self.pool = MAX_POOL[spatial_dims]
        self.encoder = nn.ModuleList(
            _level(spatial_dims, before, after, normalisation, residual)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for channels in reversed(widths[:-1]):
            self.up.append(CONV_TRANSPOSE[spatial_dims](2 * channels, channels, 2, stride=2))
            self.decoder.append(_level(spatial_dims, 2 * channels, channels, normalisation, residual))
        self.classifier = CONV[spatial_dims](width, out_channels, 1)
        self.coarse = nn.ModuleList(  # finest first
            CONV[spatial_dims](channels, out_channels, 1) for channels in widths[1:-1] if deep_supervision
        )
        he_init(self)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        check_size("unet", x, FACTOR, batch_norm_at_bottom=self.training and self.normalisation == "batch")
        size = x.shape[2:]
        if self.normalisation == "instance":  # keeps more than one pixel at the bottom
            x = pad_to_factors("unet", x, [FACTOR] * len(size))
        x = pad_to_multiple(x, FACTOR)

        skips = []
        for level in self.encoder[:-1]:
            skips.append(level(x))
            x = self.pool(skips[-1], 2)
        x = self.encoder[-1](x)
        levels = []
        for up, level in zip(self.up, self.decoder, strict=True):
            x = level(torch.cat([skips.pop(), up(x)], dim=1))
            levels.insert(0, x)
        logits = crop(self.classifier(x), size)
        if not (self.training and self.coarse):
            return logits
        coarse = (head(level) for head, level in zip(self.coarse, levels[1:], strict=True))
        return [logits, *(crop(y, [-(-n // 2**k) for n in size]) for k, y in enumerate(coarse, start=1))]


def _level(spatial_dims: int, before: int, after: int, normalisation: str, residual: bool) -> nn.Module:
    """Twice (3×3 convolution, normalisation, ReLU): (B, before, *s) to (B, after, *s)."""
    layers = [
        *_conv_norm(spatial_dims, before, after, 3, normalisation),
        nn.ReLU(inplace=True),
        *_conv_norm(spatial_dims, after, after, 3, normalisation),
        nn.ReLU(inplace=True),
    ]
    if not residual:
        return nn.Sequential(*layers)
    shortcut = [] if before == after else _conv_norm(spatial_dims, before, after, 1, normalisation)
    return _Residual(nn.Sequential(*layers[:-1]), nn.Sequential(*shortcut))


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _conv_norm(spatial_dims: int, before: int, after: int, kernel: int, normalisation: str) -> list[nn.Module]:
    conv = CONV[spatial_dims](before, after, kernel, padding=kernel // 2, bias=normalisation == "none")
    return [conv, *norm("unet", normalisation, spatial_dims, after)]
