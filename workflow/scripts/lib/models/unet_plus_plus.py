"""UNet++: a U-Net whose skips are dense chains of convolutions.

Source: Zhou et al., UNet++, DLMIA 2018 and TMI 2020, in the table of 4uiiurz1/pytorch-nested-unet (archs.py,
NestedUNet).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.blocks import crop, double_conv, pad_to_multiple
from lib.models.layers import CONV, MAX_POOL, check_flags, check_positive, check_size, he_init
from lib.registry import register

WIDTHS = (1, 2, 4, 8, 16)  # channels per level, in multiples of `width`
FACTOR = 2 ** (len(WIDTHS) - 1)  # the input shrinks by this much


@register("unet_plus_plus")
class UNetPlusPlus(nn.Module):
    """UNet++: nodes X(i, j), level i, position j along the skip; the output is that of the last node, X(0, 4).

    Source: see the module. X(i, 0) = the encoder; X(i, j) = block(X(i, 0), …, X(i, j-1), up(X(i+1, j-1))),
    concatenated; block = twice (3×3 convolution with bias, batch normalisation, ReLU); 32-64-128-256-512
    channels; max-pooling 2×2, bilinear upsampling with align_corners=True; 1×1 classifier, He weights.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded
    with edge values to a multiple of 16, cropped back).
    Parameters: width = channels of level 0. At width 32: 9,162,786 for 1 → 2 channels (published: 9.163 M),
    9,162,984 with deep_supervision: a 1×1 classifier on each of X(0, 1..4); in training the result is the list of
    their logits, that of X(0, 4) first, all of full size (the paper averages their losses); in evaluation that of
    X(0, 4) alone (the paper's "pruned" networks, which stop at an earlier one, are not built).
    Known: every layer. The paper's own code has a VGG16 encoder and transposed convolutions. He weights and
    spatial_dims = 3 are ours.
    Cite: zhou2020
    """

    deepest = "nodes.4_0"  # whose (last) output a loss may look at

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 32, deep_supervision: bool = False
    ):
        super().__init__()
        check_positive("unet_plus_plus", width=width)
        check_flags("unet_plus_plus", deep_supervision=deep_supervision)
        widths = [width * multiple for multiple in WIDTHS]
        self.pool = MAX_POOL[spatial_dims]
        self.nodes = nn.ModuleDict()
        for level, channels in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            self.nodes[f"{level}_0"] = double_conv(spatial_dims, before, channels)
        for position in range(1, len(widths)):
            for level, channels in enumerate(widths[:-position]):
                before = position * channels + widths[level + 1]
                self.nodes[f"{level}_{position}"] = double_conv(spatial_dims, before, channels)
        self.classifier = CONV[spatial_dims](width, out_channels, 1)  # of X(0, 4)
        self.earlier = nn.ModuleList(  # of X(0, 3), X(0, 2), X(0, 1)
            CONV[spatial_dims](width, out_channels, 1) for _ in WIDTHS[2:] if deep_supervision
        )
        he_init(self)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        check_size("unet_plus_plus", x, FACTOR, batch_norm_at_bottom=self.training)
        size = x.shape[2:]
        x = pad_to_multiple(x, FACTOR)
        rows: list[list[Tensor]] = []  # rows[i] = X(i, 0), X(i, 1), …
        for level in range(len(WIDTHS)):
            rows.append([self.nodes[f"{level}_0"](self.pool(x, 2) if level else x)])
            x = rows[level][0]
            for position in range(1, level + 1):  # the nodes which X(level, 0) makes possible: the anti-diagonal
                row, below = rows[level - position], rows[level - position + 1][position - 1]
                up = upsample_corners(below, row[0].shape[2:])
                row.append(self.nodes[f"{level - position}_{position}"](torch.cat([*row, up], dim=1)))
        logits = crop(self.classifier(rows[0][-1]), size)
        if not (self.training and self.earlier):
            return logits
        nodes = reversed(rows[0][1:-1])
        return [logits, *(crop(head(node), size) for head, node in zip(self.earlier, nodes, strict=True))]


def upsample_corners(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear or trilinear interpolation of x (B, C, *s) to (B, C, *size), align_corners=True.

    Equal to `F.interpolate`, which runs on CPUs; its backward raises on CUDA under deterministic algorithms, so
    other devices take `resize_corners`. As `lib.models.layers.upsample_linear`, which has align_corners=False.
    """
    if x.device.type == "cpu":
        mode = {2: "bilinear", 3: "trilinear"}[len(size)]
        return F.interpolate(x, size=tuple(size), mode=mode, align_corners=True)
    return resize_corners(x, size)


def resize_corners(x: Tensor, size: Sequence[int]) -> Tensor:
    """The separable form of `upsample_corners`: a product with a fixed (new, old) matrix per spatial axis."""
    x = x.movedim(1, -1)  # (B, *s, C), no copy where x is channels last
    for axis, new in enumerate(size, start=1):
        before, old, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        identity = torch.eye(old, device=x.device)[None]
        weights = F.interpolate(identity, size=new, mode="linear", align_corners=True)[0].T
        x = (weights.to(x.dtype) @ x.reshape(before.numel(), old, -1)).reshape(*before, new, *after)
    return x.movedim(-1, 1)
