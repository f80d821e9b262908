"""What the U-Nets beyond the first share: padding to a multiple, double convolutions, nearest upsampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.layers import BATCH_NORM, CONV


def pad_to_multiple(x: Tensor, factor: int) -> Tensor:
    """Continue the border pixels of an image x (B, C, *S) at the end of each axis, up to a multiple of `factor`."""
    return pad_to_multiples(x, [factor] * (x.dim() - 2))


def pad_to_multiples(x: Tensor, factors: Sequence[int]) -> Tensor:
    """`pad_to_multiple` with a factor of its own for each axis."""
    rest = [-n % factor for n, factor in zip(x.shape[2:], factors, strict=True)]
    return F.pad(x, [p for n in reversed(rest) for p in (0, n)], mode="replicate") if any(rest) else x


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` pixels of x (B, C, *S): undoes the padding."""
    return x[(..., *(slice(n) for n in size))]


def double_conv(spatial_dims: int, before: int, after: int) -> nn.Sequential:
    """Twice (3×3 convolution with bias, batch normalisation, ReLU)."""
    return nn.Sequential(*conv_norm_relu(spatial_dims, before, after), *conv_norm_relu(spatial_dims, after, after))


def conv_norm_relu(spatial_dims: int, before: int, after: int) -> list[nn.Module]:
    return [
        CONV[spatial_dims](before, after, 3, padding=1),
        BATCH_NORM[spatial_dims](after),
        nn.ReLU(inplace=True),
    ]


def upsample_nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    """x (B, C, *s) at (B, C, *size): each pixel takes its nearest neighbour, that is pixel floor(i · s / size).

    Equal to `F.interpolate`, which runs on CPUs; other devices select by index, whose backward is deterministic.
    """
    if x.shape[2:] == torch.Size(size):
        return x
    if x.device.type == "cpu":
        return F.interpolate(x, size=tuple(size), mode="nearest")
    return select_nearest(x, size)


def select_nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    """The form of `upsample_nearest` for devices other than CPUs: one selection by index per axis."""
    x = x.movedim(1, -1)  # (B, *s, C): rows of channels are copied whole, and stay channels last
    for axis, new in enumerate(size, start=1):
        old = x.shape[axis]
        x = x.index_select(axis, torch.arange(new, device=x.device) * old // new)
    return x.movedim(-1, 1)
