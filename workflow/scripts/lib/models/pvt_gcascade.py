"""PVT-GCASCADE: a pyramid vision transformer (PVTv2) as the encoder, a cascade of graph convolutions as the decoder.

Source: Rahman and Marculescu, G-CASCADE, WACV 2024 (decoder), Wang et al., PVT v2, Computational Visual Media 2022
(encoder), and Han et al., Vision GNN, NeurIPS 2022 (graph convolution). Written anew from the papers and from the
facts of the authors' code (SLDGroup/G-CASCADE, lib/decoders.py and lib/gcn_lib; whai362/PVT, pvt_v2.py).
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop, upsample_nearest
from lib.models.layers import BATCH_NORM, CONV, check_flags, check_positive, upsample_linear
from lib.models.pretrained import load_encoder
from lib.models.sizes import pad_to_factors
from lib.registry import did_you_mean, register

FACTOR = 32  # the input shrinks by this much
MULTIPLES = (1, 2, 5, 8)  # channels per stage, in multiples of `width`; also the heads
REDUCTIONS = (8, 4, 2, 1)  # of keys and values, per stage
VARIANTS = {  # width, layers per stage, MLP ratios
    "b0": (32, (2, 2, 2, 2), (8, 8, 4, 4)),
    "b1": (64, (2, 2, 2, 2), (8, 8, 4, 4)),
    "b2": (64, (3, 4, 6, 3), (8, 8, 4, 4)),
    "b3": (64, (3, 4, 18, 3), (8, 8, 4, 4)),
    "b4": (64, (3, 8, 27, 3), (8, 8, 4, 4)),
    "b5": (64, (3, 6, 40, 3), (4, 4, 4, 4)),
}
NEIGHBOURS = 11  # k of the graph
NODE_REDUCTIONS = (2, 4, 1, 1)  # of the nodes that can be neighbours, per level, finest first
GROUPS = 4  # of the graph convolution's 1×1 convolution
IMAGE = 3  # channels that a single-channel image is turned into, those of a photograph


@register("pvt_gcascade")
class PVTGCascade(nn.Module):
    """PVT-GCASCADE: PVTv2 encoder; decoder of graph convolutions, spatial attention and light upsampling; 4 heads.

    Source: see the module. Encoder at 1/4, 1/8, 1/16, 1/32 of the size with 64-128-320-512 channels (b2). Decoder,
    from coarse to fine: graph convolution block, spatial attention; ×2 nearest, depthwise 3×3, batch normalisation,
    ReLU, 1×1; plus the encoder's features. Graph convolution block: 1×1 convolution and normalisation; each pixel
    with its 11 nearest in feature space (cosine, plus a fixed 2-D sine embedding of the positions; from average-pooled
    pixels where the map is fine) takes the largest difference per channel, interleaved with the pixel itself, grouped
    1×1 to twice the channels, normalisation, GELU; 1×1 back; plus its input. Spatial attention: sigmoid of a 7×7
    convolution of mean and maximum over channels, shared by all levels. Each level has a 1×1 classifier; the result
    is the sum of the four, upsampled (bilinear). An image of one or two channels passes 1×1 convolution to 3 channels,
    batch normalisation and ReLU first, as in the authors' code for one; more go to the encoder as they are.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 32 along each axis (padded with
    edge values to a multiple of 32, and to 64 along the last axis where all axes have 32; cropped back). Where a level
    has fewer pixels than neighbours, all are neighbours.
    Parameters: variant = b0 … b5 of PVTv2; width = channels of the first stage (null = the variant's); stages have
    1, 2, 5, 8 times as many and 1, 2, 5, 8 heads. deep_supervision: in training the result is a list of logits, that
    sum first, then the four upsampled heads, finest first. weights, weights_sha256 = a PVTv2
    encoder, in the authors' format (pvt_v2_b2.pth).
    For 1 → 9 channels, b2: 26,636,626, of which the decoder without classifiers has 1,777,506 (the abstract: 80.8 %
    fewer than CASCADE's, which has 9,269,899). Encoders, with ImageNet's classifier: b0 3.7, b1 14.0, b2 25.4, b3 45.2,
    b4 62.6, b5 82.0 M, as published.
    Differs from the paper, which starts from ImageNet weights and trains on the sums of all subsets of the four
    heads: here from scratch unless weights are given, and on the sum of all four (and each, with deep_supervision).
    The neighbours are chosen in float32. Stochastic depth is 0 and dilation 1, as in the authors' code.
    spatial_dims = 3 (sine embedding of 3-D positions, cubic kernels) is ours.
    Cite: rahman2024, wang2022
    """

    deepest = "graphs"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        variant: str = "b2",
        width: int | None = None,
        deep_supervision: bool = False,
        weights: str | None = None,
        weights_sha256: str | None = None,
    ):
        super().__init__()
        if variant not in VARIANTS:
            raise BadInput(
                f"The architecture 'pvt_gcascade' has no variant '{variant}'.{did_you_mean(str(variant), VARIANTS)}"
            )
        width = VARIANTS[variant][0] if width is None else width
        check_positive("pvt_gcascade", width=width)
        check_flags("pvt_gcascade", deep_supervision=deep_supervision)
        if width % 4:
            raise BadInput(
                f"The architecture 'pvt_gcascade' needs a width that is a multiple of {GROUPS}, not {width}."
            )
        self.deep_supervision = deep_supervision
        self.to_three = nn.Identity()
        if in_channels < IMAGE:
            self.to_three = nn.Sequential(
                CONV[spatial_dims](in_channels, IMAGE, 1), BATCH_NORM[spatial_dims](IMAGE), nn.ReLU(inplace=True)
            )
        self.encoder = PVTv2(max(in_channels, IMAGE), spatial_dims, width, *VARIANTS[variant][1:])
        channels = [width * multiple for multiple in MULTIPLES]
        self.graphs = nn.ModuleList(
            GraphBlock(spatial_dims, c, reduction) for c, reduction in zip(channels, NODE_REDUCTIONS, strict=True)
        )
        self.up = nn.ModuleList(  # to the level above
            _Up(spatial_dims, below, above) for above, below in itertools.pairwise(channels)
        )
        self.attention = CONV[spatial_dims](2, 1, 7, padding=3, bias=False)
        self.classifiers = nn.ModuleList(CONV[spatial_dims](c, out_channels, 1) for c in channels)
        load_encoder("pvt_gcascade", self.encoder, weights, weights_sha256, "backbone.", ignored=("head.",))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = x.shape[2:]
        x = pad_to_factors("pvt_gcascade", x, (FACTOR,) * len(size))
        full = x.shape[2:]
        features = self.encoder(self.to_three(x))

        y, logits = None, []  # finest first
        for level in reversed(range(len(features))):
            y = features[level] if y is None else self.up[level](y) + features[level]
            y = self.graphs[level](y)
            y = y * torch.sigmoid(self.attention(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)))
            logits.insert(0, self.classifiers[level](y))
        logits = [crop(upsample_linear(z, full), size) for z in logits]
        return [sum(logits), *logits] if self.training and self.deep_supervision else sum(logits)


class PVTv2(nn.Module):
    """Features (B, width · (1, 2, 5, 8), *S / (4, 8, 16, 32)) of an image (B, channels, *S); names as the authors'."""

    def __init__(self, channels: int, spatial_dims: int, width: int, depths: tuple[int, ...], ratios: tuple[int, ...]):
        super().__init__()
        before = channels
        for stage, (multiple, depth, ratio, reduction) in enumerate(
            zip(MULTIPLES, depths, ratios, REDUCTIONS, strict=True), start=1
        ):
            after = width * multiple
            self.add_module(f"patch_embed{stage}", _Embedding(spatial_dims, before, after, first=stage == 1))
            blocks = [_Layer(spatial_dims, after, multiple, ratio, reduction) for _ in range(depth)]
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(after, eps=1e-6))
            before = after
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, CONV[spatial_dims]):
                outputs = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, std=math.sqrt(2 / outputs))
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in range(1, 5):
            tokens, size = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"block{stage}"):
                tokens = block(tokens, size)
            x = _to_map(getattr(self, f"norm{stage}")(tokens), size)
            features.append(x)
        return features


class _Embedding(nn.Module):
    """Overlapping patches: (B, before, *s) to tokens (B, N, after) and their grid, 1/4 (first) or 1/2 of s."""

    def __init__(self, spatial_dims: int, before: int, after: int, first: bool):
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.proj = CONV[spatial_dims](before, after, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(after)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        x = self.proj(x)
        return self.norm(_to_tokens(x)), tuple(x.shape[2:])


class _Layer(nn.Module):
    def __init__(self, spatial_dims: int, channels: int, heads: int, ratio: int, reduction: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = _Attention(spatial_dims, channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = _MLP(spatial_dims, channels, ratio * channels)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        x = x + self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x), size)


class _Attention(nn.Module):
    """Attention of tokens (B, N, C) to tokens of a grid that is `reduction` times smaller along each axis."""

    def __init__(self, spatial_dims: int, channels: int, heads: int, reduction: int):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = CONV[spatial_dims](channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        source = x
        if self.reduction > 1:
            source = self.norm(_to_tokens(self.sr(_to_map(x, size))))
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, C / heads)
        key, value = self.kv(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).softmax(dim=3)
        return self.proj((attention @ value).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    def __init__(self, spatial_dims: int, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.ModuleDict({"dwconv": CONV[spatial_dims](hidden, hidden, 3, padding=1, groups=hidden)})
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        x = _to_tokens(self.dwconv["dwconv"](_to_map(self.fc1(x), size)))
        return self.fc2(F.gelu(x))


class GraphBlock(nn.Module):
    """Max-relative graph convolution between two 1×1 convolutions, plus the input: (B, C, *s) to (B, C, *s)."""

    def __init__(self, spatial_dims: int, channels: int, reduction: int):
        super().__init__()
        conv, norm = CONV[spatial_dims], BATCH_NORM[spatial_dims]
        self.reduction = reduction
        self.before = nn.Sequential(conv(channels, channels, 1), norm(channels))
        self.graph = nn.Sequential(conv(2 * channels, 2 * channels, 1, groups=GROUPS), norm(2 * channels), nn.GELU())
        self.after = nn.Sequential(conv(2 * channels, channels, 1), norm(channels))
        nn.init.kaiming_normal_(self.graph[0].weight)
        nn.init.zeros_(self.graph[0].bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        pooled = _average_pool(y, self.reduction)
        nodes, others = _to_tokens(y), _to_tokens(pooled)  # (B, N, C), (B, M, C)
        index = neighbours(nodes, others, y.shape[2:], pooled.shape[2:])  # (B, N, k)
        largest = None
        for k in range(index.shape[2]):
            found = others.gather(1, index[:, :, k, None].expand(-1, -1, others.shape[2]))
            largest = found if largest is None else torch.maximum(largest, found)
        pairs = torch.stack([nodes, largest - nodes], dim=3).flatten(2)  # channels: 0, difference 0, 1, difference 1, …
        return self.after(self.graph(_to_map(pairs, y.shape[2:]))) + x


@torch.no_grad()
def neighbours(nodes: Tensor, others: Tensor, grid: torch.Size, other_grid: torch.Size) -> Tensor:
    """Which of `others` (B, M, C) are nearest to each of `nodes` (B, N, C): indices (B, N, k), k = 11 or M if fewer.

    Squared distance of the normalised features, minus twice the mean product of the positions' sine embeddings.
    """
    nodes, others = (F.normalize(t.float(), dim=2) for t in (nodes, others))
    with torch.autocast(nodes.device.type, enabled=False):
        similarity = 2 * nodes @ others.transpose(1, 2)  # the squared norms are 1
        places = sine_embedding(grid, grid, nodes.shape[2], nodes.device)
        other_places = sine_embedding(other_grid, grid, nodes.shape[2], nodes.device)
        similarity += 2 * places @ other_places.T / places.shape[1]
        return similarity.topk(min(NEIGHBOURS, others.shape[1]), dim=2).indices


def sine_embedding(grid: torch.Size, of: torch.Size, channels: int, device: torch.device) -> Tensor:
    """Fixed embeddings (positions, D) of the centres of a grid, in pixels of the grid `of`.

    Each axis has an equal share of the channels, half sines and half cosines of frequencies from 1 to 1/10,000; D is
    `channels` rounded up to a multiple of twice the number of axes.
    """
    half = math.ceil(channels / (2 * len(grid)))
    frequencies = 10_000 ** -(torch.arange(half, device=device) / half)
    parts = []
    for n, full in zip(grid, of, strict=True):
        centre = (torch.arange(n, device=device) + 0.5) * (full / n) - 0.5
        angle = centre[:, None] * frequencies
        parts.append(torch.cat([angle.sin(), angle.cos()], dim=1))
    index = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    return torch.cat([part[i.flatten()] for part, i in zip(parts, index, strict=True)], dim=1)


class _Up(nn.Module):
    """×2 nearest, depthwise 3×3, batch normalisation, ReLU, 1×1: (B, before, *s) to (B, after, *2s)."""

    def __init__(self, spatial_dims: int, before: int, after: int):
        super().__init__()
        conv = CONV[spatial_dims]
        self.layers = nn.Sequential(
            conv(before, before, 3, padding=1, groups=before),
            BATCH_NORM[spatial_dims](before),
            nn.ReLU(inplace=True),
            conv(before, after, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(upsample_nearest(x, [2 * n for n in x.shape[2:]]))


def _average_pool(x: Tensor, window: int) -> Tensor:
    for axis in range(2, x.dim() if window > 1 else 2):
        x = x.unflatten(axis, (-1, window)).mean(axis + 1)
    return x


def _to_tokens(x: Tensor) -> Tensor:
    """(B, C, *s) as (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """(B, N, C) as (B, C, *size)."""
    return tokens.transpose(1, 2).unflatten(2, size)
