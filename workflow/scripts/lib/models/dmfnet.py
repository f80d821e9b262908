"""DMFNet: a light 3-D encoder-decoder of grouped convolutions with weighted dilated branches.

Source: Chen, Liu, Ding, Zheng, Li, 3D Dilated Multi-Fiber Network, MICCAI 2019, in the authors' code
(China-LiuXiaopeng/BraTS-DMFNet, models/DMFNet_16x.py), written anew from a description of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop, pad_to_multiple
from lib.models.layers import BATCH_NORM, CONV, check_positive, check_size, he_init, upsample_linear
from lib.registry import register

DILATIONS = (1, 2, 3)
FACTOR = 16  # the input shrinks by this much


@register("dmfnet")
class DMFNet(nn.Module):
    """DMFNet: a strided convolution, 3 stages of 3 multi-fiber units (dilated in the first two), 3 units upwards.

    Source: see the module. Every convolution but the first and the last follows batch normalisation and ReLU; none
    has a bias. Unit: 1×1×1 to a quarter of its input channels, 1×1×1 to the smaller of its input and output,
    grouped 3×3×3 (with the stride), grouped 3×3×1; plus its input, through 1×1×1 where the channels change and
    2×2×2 with stride 2 where the size does. Dilated unit: three grouped 3×3×3 of dilation 1, 2, 3, each times a
    learned scalar (initially 1), summed. Channels 32 (half size), 128, 256, 384 then 256 (1/16); upwards
    trilinear ×2, concatenation with the skip, a unit to 256, 128, 32 channels; trilinear ×2, 1×1×1 classifier.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded
    with edge values to a multiple of 16, cropped back).
    Parameters: width = channels of the first convolution, a multiple of 4 (stages have 4, 8, 12 times as many;
    width / 2 groups, so 16 at the published width). At width 32 in 3-D: 3,875,890 for 4 → 4 channels.
    Known: every layer; He weights. The 3×3×1 convolution leaves out the last axis of the source's (H, W, D), its
    slices; here that is the first, D. spatial_dims = 2 (3×3 throughout) is ours.
    Cite: chen2019
    """

    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 32):
        super().__init__()
        check_positive("dmfnet", width=width)
        if width % 4:
            raise BadInput(f"The architecture 'dmfnet' needs a width that is a multiple of 4, not {width}.")
        groups = width // 2
        self.first = CONV[spatial_dims](in_channels, width, 3, stride=2, padding=1, bias=False)
        self.encoder = nn.ModuleList()
        for before, after, last, dilations in (
            (width, 4 * width, 4 * width, DILATIONS),
            (4 * width, 8 * width, 8 * width, DILATIONS),
            (8 * width, 12 * width, 8 * width, (1,)),
        ):
            self.encoder.append(
                nn.Sequential(
                    _Unit(spatial_dims, before, after, groups, dilations, stride=2),
                    _Unit(spatial_dims, after, after, groups, dilations),
                    _Unit(spatial_dims, after, last, groups, dilations),
                )
            )
        self.decoder = nn.ModuleList(
            _Unit(spatial_dims, below + skip, skip, groups, (1,))
            for below, skip in ((8 * width, 8 * width), (8 * width, 4 * width), (4 * width, width))
        )
        self.classifier = CONV[spatial_dims](width, out_channels, 1, bias=False)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        check_size("dmfnet", x, FACTOR, batch_norm_at_bottom=self.training)
        size = x.shape[2:]
        x = pad_to_multiple(x, FACTOR)
        full = x.shape[2:]
        x = self.first(x)
        skips = []
        for stage in self.encoder:
            skips.append(x)
            x = stage(x)
        for unit in self.decoder:
            skip = skips.pop()
            x = unit(torch.cat([skip, upsample_linear(x, skip.shape[2:])], dim=1))
        return crop(self.classifier(upsample_linear(x, full)), size)


class _Unit(nn.Module):
    """Multi-fiber unit, dilated where there are several dilations: (B, before, *s) to (B, after, *s / stride)."""

    def __init__(
        self, spatial_dims: int, before: int, after: int, groups: int, dilations: tuple[int, ...], stride: int = 1
    ):
        super().__init__()
        middle = min(before, after)
        self.squeeze = nn.Sequential(
            _norm_relu_conv(spatial_dims, before, before // 4, 1), _norm_relu_conv(spatial_dims, before // 4, middle, 1)
        )
        self.branches = nn.ModuleList(
            _norm_relu_conv(
                spatial_dims, middle, after, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups
            )
            for dilation in dilations
        )
        self.scales = nn.Parameter(torch.ones(len(dilations))) if len(dilations) > 1 else None
        kernel, padding = (1, 3, 3)[-spatial_dims:], (0, 1, 1)[-spatial_dims:]
        self.last = _norm_relu_conv(spatial_dims, after, after, kernel, padding=padding, groups=groups)
        self.shortcut = nn.Identity()
        if stride > 1 or before != after:  # kernel = stride: 2×2×2, or 1×1×1
            self.shortcut = _norm_relu_conv(spatial_dims, before, after, stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.squeeze(x)
        branches = [branch(y) for branch in self.branches]
        if self.scales is not None:
            branches = [scale * branch for scale, branch in zip(self.scales, branches, strict=True)]
        return self.last(sum(branches)) + self.shortcut(x)


def _norm_relu_conv(
    spatial_dims: int,
    before: int,
    after: int,
    kernel: int | tuple[int, ...],
    stride: int = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    conv = CONV[spatial_dims](
        before, after, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    return nn.Sequential(BATCH_NORM[spatial_dims](before), nn.ReLU(inplace=True), conv)
