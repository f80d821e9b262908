"""3D U²-Net: a U-Net for several domains, which share the pointwise half of separable convolutions.

Source: Huang, Han, Yao, Zhu, Zhou, 3D U²-Net, MICCAI 2019, in the authors' code (huangmozhilv/u2net_torch,
u2net_torch_src/models/u2net3d.py, module `separable_adapter`), written anew from a description of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop, upsample_nearest
from lib.models.layers import CONV, INSTANCE_NORM, check_flags, check_positive, he_init
from lib.models.sizes import pad_to_factors
from lib.registry import register


@register("u2net_3d")
class U2Net3D(nn.Module):
    """3D U²-Net: a residual U-Net whose 3×3×3 convolutions are depthwise per domain, then pointwise for all domains.

    Source: see the module. Entrance: 3×3×3 convolution to `width` channels, normalisation, activation. Unit: 3×3×3
    depthwise convolution, normalisation, activation; 1×1×1 convolution; normalisation. Level of the encoder: unit,
    activation, unit, plus its input, activation. Down: 3×3×3 convolution with stride 2 to twice the channels,
    normalisation, activation. Up: nearest ×2, unit to half the channels, activation; concatenation with the skip, two
    units with activation. Deep supervision inside the network: the levels at 1/4 and 1/2 of the size each give
    1×1×1 convolution, normalisation, activation; nearest ×2 from one to the next, added up, and added to the
    1×1×1 classifier. Each convolution has a bias, normalisation is that of instances (affine), activation a leaky
    ReLU 0.01. Of each domain alone: entrance, depthwise convolutions, normalisations, deep supervision, classifier.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 2^pools along each axis (padded
    with edge values at its end to a multiple of 2^pools, twice that where one pixel would be left at the bottom, which
    has no standard deviation; cropped back).
    Parameters: width; pools = halvings, one number or one per axis (slice axis first; the source has 3 to 5, [2, 5, 5]
    for thick slices); domains, of which `forward(x, domain=0)` takes one: one is what one data set needs;
    separable = false gives the source's independent network of plain 3×3×3 convolutions (1×1×1 in the second
    unit of a decoder level). At width 16, 1 → 2
    channels in 3-D, one domain: 395,742, 1,531,486, 5,998,430 for 3, 4, 5 pools; 2,055,166, 8,268,158, 33,113,214
    if not separable (published: 0.396, 1.531, 5.998; 2.055, 8.268, 33.113 M).
    Known: every layer; strided convolutions see a zero at the end of an axis, none before. Ours: He weights; the
    domains have equal channels; spatial_dims = 2. The pipeline trains one data set per cell, so domain 0; several
    domains need a training of their own.
    Cite: huang2019
    """

    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int = 16,
        pools: int | list[int] = 5,
        domains: int = 1,
        separable: bool = True,
    ):
        super().__init__()
        check_positive("u2net_3d", width=width, domains=domains)
        check_flags("u2net_3d", separable=separable)
        pools = pools if isinstance(pools, list | tuple) else [pools] * spatial_dims
        for number in pools:
            check_positive("u2net_3d", pools=number)
        if len(pools) != spatial_dims:
            raise BadInput(
                f"The architecture 'u2net_3d' needs one number of pools for each of {spatial_dims} axes, "
                f"or one for all, not {list(pools)}."
            )
        self.factors = [2**number for number in pools]
        depth = max(pools)
        strides = [tuple(1 + (level < number) for number in pools) for level in range(depth)]
        widths = [width * 2**level for level in range(depth + 1)]

        def unit(before: int, after: int, kernel: int = 3) -> nn.Module:
            return _Unit(spatial_dims, before, after, domains, separable, kernel)

        self.entrance = _PerDomain(
            domains, lambda: _conv_norm(spatial_dims, in_channels, width, 3, nn.LeakyReLU(0.01, inplace=True))
        )
        self.encoder = nn.ModuleList(nn.ModuleList([unit(c, c), unit(c, c)]) for c in widths)
        self.down, self.down_norm = nn.ModuleList(), nn.ModuleList()
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for stride, fine, coarse in zip(strides, widths, widths[1:], strict=False):
            self.down.append(CONV[spatial_dims](fine, coarse, 3, stride=stride))
            self.down_norm.append(_norms(spatial_dims, coarse, domains))
            self.up.insert(0, unit(coarse, fine))
            self.decoder.insert(0, nn.ModuleList([unit(2 * fine, fine), unit(fine, fine, kernel=1)]))
        self.deep = nn.ModuleDict(  # per level
            {
                str(level): _PerDomain(
                    domains, lambda c=widths[level]: _conv_norm(spatial_dims, c, out_channels, 1, nn.LeakyReLU(0.01))
                )
                for level in (2, 1)
                if level < depth
            }
        )
        self.classifier = _PerDomain(domains, lambda: CONV[spatial_dims](width, out_channels, 1))
        he_init(self)

    def forward(self, x: Tensor, domain: int = 0) -> Tensor:
        size = x.shape[2:]
        x = pad_to_factors("u2net_3d", x, self.factors)
        x = self.entrance(x, domain)
        skips = []
        for level, (first, second) in enumerate(self.encoder):
            x = F.leaky_relu(x + second(F.leaky_relu(first(x, domain)), domain))
            if level < len(self.down):
                skips.append(x)
                down = self.down[level]
                border = [p for stride in reversed(down.stride) for p in (2 - stride, 1)]
                x = F.leaky_relu(self.down_norm[level](down(F.pad(x, border)), domain))
        deep = None
        for up, (first, second) in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            x = F.leaky_relu(up(upsample_nearest(x, skip.shape[2:]), domain))
            x = F.leaky_relu(second(F.leaky_relu(first(torch.cat([x, skip], dim=1), domain)), domain))
            if str(len(skips)) in self.deep:
                here = self.deep[str(len(skips))](x, domain)
                deep = upsample_nearest(here if deep is None else here + deep, skips[-1].shape[2:])
        logits = self.classifier(x, domain)
        return crop(logits if deep is None else logits + deep, size)


class _PerDomain(nn.ModuleList):
    """One module per domain, called with the number of the domain."""

    def __init__(self, domains: int, make):
        super().__init__(make() for _ in range(domains))

    def forward(self, x: Tensor, domain: int) -> Tensor:
        return self[domain](x)


class _Unit(nn.Module):
    """(B, before, *s) to (B, after, *s), normalised, not activated; `kernel` is that of a plain convolution."""

    def __init__(self, spatial_dims: int, before: int, after: int, domains: int, separable: bool, kernel: int):
        super().__init__()
        conv = CONV[spatial_dims]
        self.depthwise = None
        if separable:
            activation = nn.LeakyReLU(0.01, inplace=True)
            self.depthwise = _PerDomain(
                domains, lambda: _conv_norm(spatial_dims, before, before, 3, activation, groups=before)
            )
        self.conv = conv(before, after, 1) if separable else conv(before, after, kernel, padding=kernel // 2)
        self.norm = _norms(spatial_dims, after, domains)

    def forward(self, x: Tensor, domain: int) -> Tensor:
        if self.depthwise is not None:
            x = self.depthwise(x, domain)
        return self.norm(self.conv(x), domain)


def _conv_norm(
    spatial_dims: int, before: int, after: int, kernel: int, activation: nn.Module, groups: int = 1
) -> nn.Sequential:
    conv = CONV[spatial_dims](before, after, kernel, padding=kernel // 2, groups=groups)
    return nn.Sequential(conv, INSTANCE_NORM[spatial_dims](after, affine=True), activation)


def _norms(spatial_dims: int, channels: int, domains: int) -> _PerDomain:
    return _PerDomain(domains, lambda: INSTANCE_NORM[spatial_dims](channels, affine=True))
