"""Partially reversible U-Net: blocks whose input is computed again from their output, and so need not be kept.

Source: Brügger, Baumgartner, Konukoglu, A Partially Reversible U-Net for Memory-Efficient Volumetric Image
Segmentation, MICCAI 2019, in the authors' code (RobinBruegger/PartiallyReversibleUnet:
experiments/noNewReversible.py), written anew; reversible blocks: Gomez et al., The Reversible Residual Network, 2017.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from lib.errors import BadInput
from lib.models.blocks import crop, pad_to_multiple
from lib.models.layers import CONV, MAX_POOL, check_flags, check_positive, check_size, upsample_linear
from lib.registry import register

WIDTHS = (1, 2, 4, 6, 8)  # channels per level, in multiples of `width`
FACTOR = 2 ** (len(WIDTHS) - 1)  # the input shrinks by this much


@register("reversible_unet")
class ReversibleUNet(nn.Module):
    """Partially reversible U-Net: one sequence of reversible blocks per encoder and decoder level.

    Source: see the module. 3×3×3 convolution without bias to `width` channels; 5 levels of 60-120-240-360-480
    channels. A reversible block splits the channels in halves: y1 = x1 + F(x2), y2 = x2 + G(y1), F and G = group
    normalisation, leaky ReLU 0.01, 3×3×3 convolution without bias. Down: max-pooling 2, 1×1×1 convolution; up:
    1×1×1 convolution, trilinear ×2, skips added; 1×1×1 classifier. Weights as torch draws them.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded
    with edge values to a multiple of 16, cropped back).
    Parameters: width = channels of the first level, even (width / 2 groups in every normalisation, 30 at the published
    width); blocks = reversible blocks per level and direction; reversible = false keeps all activations as
    other networks do, for the same numbers (but for rounding in the gradients) from more memory in less time. At
    width 60 in 3-D: 12,365,283 for 4 → 3 channels (published: 12.365 M).
    Memory: a training step keeps one activation per level and direction, whatever the number of blocks; ordinary
    autograd keeps 2.5 more per block. The backward pass computes each block once more. Measured at width 24 for a patch
    of 64³ in float32, on a CPU: 76 MiB of activations kept instead of 235; all tensors of a step at most 184 MiB
    instead of 286, with 3 blocks per level 208 instead of 540 (a backward pass needs gradients and one block besides).
    The two halves stay in float32 under autocast: in bfloat16 the input computed back would not be the input.
    Known: every layer. spatial_dims = 2 and more than one block per level are options of ours.
    Cite: bruegger2019
    """

    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int = 60,
        blocks: int = 1,
        reversible: bool = True,
    ):
        super().__init__()
        check_positive("reversible_unet", width=width, blocks=blocks)
        check_flags("reversible_unet", reversible=reversible)
        if width % 2:
            raise BadInput(f"The architecture 'reversible_unet' needs an even width, which it halves, not {width}.")
        conv = CONV[spatial_dims]
        widths = [width * multiple for multiple in WIDTHS]

        def sequence(channels: int) -> nn.Module:
            return ReversibleSequence(spatial_dims, channels, width // 2, blocks, reversible)

        self.pool = MAX_POOL[spatial_dims]
        self.first = conv(in_channels, width, 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(sequence(channels) for channels in widths)
        self.decoder = nn.ModuleList(sequence(channels) for channels in reversed(widths))
        self.down = nn.ModuleList(conv(widths[k], widths[k + 1], 1) for k in range(len(widths) - 1))
        self.up = nn.ModuleList(conv(widths[k + 1], widths[k], 1) for k in reversed(range(len(widths) - 1)))
        self.classifier = conv(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        check_size("reversible_unet", x, FACTOR)
        size = x.shape[2:]
        x = self.encoder[0](self.first(pad_to_multiple(x, FACTOR)))
        skips = []
        for down, sequence in zip(self.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = sequence(down(self.pool(x, 2)))
        x = self.decoder[0](x)
        for up, sequence in zip(self.up, self.decoder[1:], strict=True):
            skip = skips.pop()
            x = sequence(upsample_linear(up(x), skip.shape[2:]) + skip)
        return crop(self.classifier(x), size)


class ReversibleSequence(nn.Module):
    """Reversible blocks in a row: (B, channels, *s) to the same shape, in float32 (or float64)."""

    def __init__(self, spatial_dims: int, channels: int, groups: int, blocks: int, reversible: bool):
        super().__init__()
        self.blocks = nn.ModuleList(_Block(spatial_dims, channels // 2, groups) for _ in range(blocks))
        self.reversible = reversible

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.dtype == torch.float64 else x.float()
        if self.reversible and torch.is_grad_enabled():
            return _Reversible.apply(self.blocks, x, *(p for p in self.parameters() if p.requires_grad))
        return _through(self.blocks, x)


class _Block(nn.Module):
    def __init__(self, spatial_dims: int, channels: int, groups: int):
        super().__init__()
        self.f, self.g = (_Half(spatial_dims, channels, groups) for _ in range(2))


class _Half(nn.Module):
    def __init__(self, spatial_dims: int, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.conv = CONV[spatial_dims](channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.leaky_relu(self.norm(x), inplace=True))


def _through(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    x1, x2 = x.chunk(2, dim=1)
    for block in blocks:
        x1 = x1 + block.f(x2)
        x2 = x2 + block.g(x1)
    return torch.cat([x1, x2], dim=1)


class _Reversible(torch.autograd.Function):
    """`_through` that keeps its output alone; the backward pass goes from block to block, last first."""

    @staticmethod
    def forward(ctx: FunctionCtx, blocks: nn.ModuleList, x: Tensor, *parameters: Tensor) -> Tensor:
        kind = x.device.type
        ctx.blocks, ctx.parameters = blocks, parameters
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
            "cache_enabled": False,  # the forward pass cached casts of the weights, which have no gradient
        }
        y = _through(blocks, x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y1, y2 = ctx.saved_tensors[0].chunk(2, dim=1)
        d1, d2 = gradient.chunk(2, dim=1)
        found: dict[Tensor, Tensor] = {}
        for block in reversed(ctx.blocks):
            y2, d1 = _undo(block.g, y1, y2, d1, d2, found, ctx.autocast)
            y1, d2 = _undo(block.f, y2, y1, d2, d1, found, ctx.autocast)
        return None, torch.cat([d1, d2], dim=1), *(found[p] for p in ctx.parameters)


def _undo(
    half: nn.Module, a: Tensor, b: Tensor, da: Tensor, db: Tensor, found: dict[Tensor, Tensor], autocast: dict
) -> tuple[Tensor, Tensor]:
    """For b = c + half(a): c, and the gradient of a with that through `half`; adds those of the weights to `found`."""
    parameters = [p for p in half.parameters() if p.requires_grad]
    with torch.enable_grad(), torch.autocast(**autocast):
        a = a.detach().requires_grad_()
        change = half(a)
    through, *of_parameters = torch.autograd.grad(change, [a, *parameters], db.to(change.dtype))
    found |= dict(zip(parameters, of_parameters, strict=True))
    return b - change.detach(), da + through
