"""NAS-Unet: a U-Net of searched cells.

Source: Weng, Zhou, Li, Qiu, NAS-Unet, IEEE Access 2019, in the authors' code (tianbaochou/NasUnet:
models/nas_unet.py, util/prim_ops_set.py, models/geno_searched.py), written anew from a description of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.blocks import upsample_nearest
from lib.models.layers import CONV, CONV_TRANSPOSE, MAX_POOL, check_positive, check_size, group_norm, he_init
from lib.registry import register
from lib.search.space import cells_of

NO_MIXING: Mapping[str, tuple] = {"down": (), "up": ()}


class UOfCells(nn.Module):
    """What NAS-Unet and the supernet of its search share: two stems, `depth` DownSC, `depth` + 1 UpSC, a classifier.

    `build(cell, before_last, last)` makes a cell, `down` or `up`, that takes so many channels and has `channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        stem: int,
        depth: int,
        build: Callable[[str, int, int], nn.Module],
    ):
        super().__init__()
        self.minimum = 2**depth
        self.stem0 = nn.Sequential(CONV[spatial_dims](in_channels, stem, 1, bias=False), group_norm(stem))
        self.stem1 = nn.Sequential(
            CONV[spatial_dims](in_channels, stem, 3, stride=2, padding=1, bias=False), group_norm(stem)
        )
        channels = [stem, stem]  # of the stems, then of the DownSC cells
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for _ in range(depth):
            self.down.append(build("down", *channels[-2:]))
            channels.append(self.down[-1].channels)
        before = channels.pop()
        for skip in reversed(channels):
            self.up.append(build("up", skip, before))
            before = self.up[-1].channels
        self.classifier = CONV[spatial_dims](before, out_channels, 1, bias=False)
        he_init(self)

    def forward(self, x: Tensor, mixing: Mapping[str, tuple] = NO_MIXING) -> Tensor:
        """`mixing`: what else the cells of each kind are given."""
        check_size("nas_unet", x, self.minimum)
        outputs = [self.stem0(x), self.stem1(x)]
        for cell in self.down:
            outputs.append(cell(*outputs[-2:], *mixing["down"]))  # S/2, S/4 -> S/8, rounded up
        x = outputs.pop()
        for cell in self.up:
            x = cell(outputs.pop(), x, *mixing["up"])  # S, S/2 -> S
        return self.classifier(x)


@register("nas_unet")
class NASUNet(UOfCells):
    """NAS-Unet: `depth` DownSC cells, `depth` + 1 UpSC cells, all of one width, each a small searched graph.

    Source: see the module. Stems: 1×1 convolution at full size, 3×3 convolution with stride 2, both to 4 · width
    channels. A cell takes the outputs of the two cells before it (an UpSC: the skip of its size, and the cell
    before it), each through ReLU, 1×1 convolution and normalisation to `width` channels; each of its nodes is the
    sum of two operations on earlier states, the smaller one nearest-resized to the larger; its output is all nodes,
    concatenated. Convolutions are 3×3 without bias, then group normalisation (16 channels per group; one group
    where 16 does not divide them), then ReLU (not in down_cweight and up_cweight). 1×1 classifier without bias.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 2^depth along each axis.
    Parameters: width = channels of a node; depth; genotype = `v3` (the published cell), `v2` (the cell of the
    search's own alias), {random: seed, nodes: 3} (uniform over the search's space), {search: NAME} (of a search of the
    configuration), or {down: [[operation, state], …], up: […]} with two operations per node. Operations on
    nodes: identity, cweight, dil_conv, dep_conv, conv (shuffle_conv is the same: the source never shuffles). Down,
    on states 0 and 1: max_pool, avg_pool, down_cweight, down_dil_conv, down_dep_conv, down_conv. Up, on state 1:
    up_cweight, up_dep_conv, up_conv, up_dil_conv; state 0 of UpSC takes the operations of nodes.
    At width 32, depth 5: 863,438 for v3, 485,742 for v2 (1 → 2 channels).
    Known: every layer (0.863 M and 0.486 M). Ours: He weights, and bias 1 where cweight squeezes (with torch's
    default, a quarter of the cweights of width 32 start dead); pooling rounds odd sizes up, as the strided convolutions
    do (the source's rounds down, then resizes); below 16 channels cweight does not squeeze (the source cannot be
    built); the idle normalisation of the source's head is left out; spatial_dims = 3.
    Cite: weng2019
    """

    deepest = "down"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int = 32,
        depth: int = 5,
        genotype: str | dict[str, list] = "v3",
    ):
        check_positive("nas_unet", width=width, depth=depth)
        cells = cells_of(genotype)

        def build(cell: str, before_last: int, last: int) -> nn.Module:
            return _Cell(spatial_dims, before_last, last, width, cells[cell], stride=2 if cell == "down" else 1)

        super().__init__(in_channels, out_channels, spatial_dims, 4 * width, depth, build)


class _Cell(nn.Module):
    """Stride 2: DownSC, s0 (B, before_last, *2s), s1 (B, last, *s) to (B, channels, *s / 2).
    Stride 1: UpSC, s0 (B, before_last, *2s), s1 (B, last, *s) to (B, channels, *2s)."""

    def __init__(self, spatial_dims: int, before_last: int, last: int, width: int, cell: list, stride: int):
        super().__init__()
        self.stride = stride
        self.channels = len(cell) // 2 * width
        self.preprocess0 = preprocess(spatial_dims, before_last, width, stride)
        self.preprocess1 = preprocess(spatial_dims, last, width)
        self.sources = [state for _, state in cell]
        self.operations = nn.ModuleList(operation(name, spatial_dims, width) for name, _ in cell)

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for k in range(0, len(self.sources), 2):
            states.append(fitted_sum(self.operations[edge](states[self.sources[edge]]) for edge in (k, k + 1)))
        # A node that sees only state 1 of an UpSC has 2s - 1 pixels.
        size = states[-1].shape[2:] if self.stride == 2 else s0.shape[2:]
        return torch.cat([upsample_nearest(node, size) for node in states[2:]], dim=1)


def preprocess(spatial_dims: int, channels: int, width: int, stride: int = 1) -> nn.Module:
    """What a cell does with the output of an earlier one: ReLU, 1×1 convolution to `width` channels, normalisation."""
    return nn.Sequential(
        nn.ReLU(), CONV[spatial_dims](channels, width, 1, stride=stride, bias=False), group_norm(width)
    )


def fitted_sum(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors (B, C, *s), each nearest-resized to the largest along every axis."""
    parts = list(parts)
    size = [max(sizes) for sizes in zip(*(part.shape[2:] for part in parts), strict=True)]
    return reduce(add, (upsample_nearest(part, size) for part in parts))


def operation(name: str, spatial_dims: int, channels: int) -> nn.Module:
    """An operation of `lib.search.space.OPERATIONS` but `none`: (B, channels, *s) to as many at *s, s/2 or 2s - 1."""
    direction = next((d for d in ("down", "up") if name.startswith(f"{d}_")), "")
    kind = name.removeprefix(f"{direction}_")
    dilation = 2 if kind == "dil_conv" else 1
    conv = (CONV_TRANSPOSE if direction == "up" else CONV)[spatial_dims](
        channels,
        channels,
        3,
        stride=2 if direction else 1,  # up: 2s - 1 pixels
        padding=dilation,
        dilation=dilation,
        groups=channels if kind == "dep_conv" else 1,
        bias=False,
    )
    if kind == "identity":
        return nn.Identity()
    if kind in ("max_pool", "avg_pool"):
        return _Pool(kind)
    if direction:
        conv = _Strided(conv)
    if kind == "cweight":
        return nn.Sequential(_ChannelWeight(channels), *([conv, group_norm(channels)] if direction else []))
    point = [CONV[spatial_dims](channels, channels, 1, bias=False)] if kind == "dep_conv" else []
    return nn.Sequential(conv, *point, group_norm(channels), nn.ReLU(inplace=True))


class _Strided(nn.Module):
    """A strided convolution that stays deterministic at the bottom of the network.

    Where an axis has one pixel, the weight gradient of oneDNN in bfloat16 (torch 2.13, CPU) leaves the taps which
    see nothing but padding as it finds the memory. A zero beside the pixel changes no value and avoids that.
    """

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if min(size) > 1:
            return self.conv(x)
        x = self.conv(F.pad(x, [p for n in reversed(size) for p in (0, int(n == 1))]))
        return x[(..., *(slice(1 if n == 1 else None) for n in size))]


class _ChannelWeight(nn.Module):
    """Squeeze and excitation: x (B, C, *s) times one weight in (0, 1) per case and channel."""

    def __init__(self, channels: int):
        super().__init__()
        inside = channels // 16 or channels
        self.weight = nn.Sequential(
            nn.Linear(channels, inside), nn.ReLU(inplace=True), nn.Linear(inside, channels), nn.Sigmoid()
        )
        nn.init.ones_(self.weight[0].bias)  # with 1 or 2 units inside, many networks would start without a live one

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight(x.flatten(2).mean(2))
        return x * weight.view(*weight.shape, *[1] * (x.dim() - 2))


class _Pool(nn.Module):
    """Windows of 2, stride 2, an odd last one cut off: s to ceil(s / 2)."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "max_pool":
            return MAX_POOL[x.dim() - 2](x, 2, ceil_mode=True)
        for axis in range(2, x.dim()):  # the backward of avg_pool3d raises on CUDA under deterministic algorithms
            last = x.shape[axis] - 1
            first = torch.arange(0, last + 1, 2, device=x.device)
            x = (x.index_select(axis, first) + x.index_select(axis, (first + 1).clamp(max=last))) / 2
        return x
