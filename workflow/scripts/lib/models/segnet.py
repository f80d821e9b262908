"""SegNet and its shallow variants: a VGG16 encoder, and a decoder that mirrors it stage by stage.

Sources: Badrinarayanan, Kendall, Cipolla, SegNet, TPAMI 2017, in the authors' own definition
(alexgkendall/SegNet-Tutorial, Models/segnet_train.prototxt); "Shallow SegNet with bilinear interpolation and
weighted cross-entropy loss" (brain tissue in MRI), known from its abstract only.
Deterministic replacements of max-unpooling and of bilinear upsampling: see `lib.models.layers`.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.layers import (
    BATCH_NORM,
    CONV,
    MAX_POOL,
    check_positive,
    check_size,
    he_init,
    max_unpool,
    upsample_linear,
)
from lib.registry import did_you_mean, register

CONVOLUTIONS = (2, 2, 3, 3, 3)  # per stage of VGG16
WIDTHS = (1, 2, 4, 8, 8)  # channels per stage, in multiples of `width`
UPSAMPLING = ("unpool", "bilinear")


@register("segnet")
def segnet(in_channels: int, out_channels: int, spatial_dims: int, width: int = 64) -> nn.Module:
    """SegNet: VGG16 encoder, max-unpooling with the encoder's indices, mirrored decoder.

    Source: the authors' prototxt (see the module). 13 + 13 convolutions 3×3, padding 1, with bias; batch
    normalisation and ReLU after every one but the last; 5 max-poolings 2×2. He weights, BN shift 0.001.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 32 along each axis.
    Parameters: width = channels of the first stage (stages have 1, 2, 4, 8, 8 times as many). At width 64:
    29,444,164 for 1 → 4 channels, 29,449,932 for 3 → 12.
    Known: every layer. Not taken over: ImageNet weights and local contrast normalisation of RGB, which have
    no meaning here. Width other than 64 and spatial_dims = 3 (3×3×3, 2×2×2) are ours.
    Cite: badrinarayanan2017
    """
    return _SegNet("segnet", in_channels, out_channels, spatial_dims, width, stages=5, upsampling="unpool")


@register("shallow_segnet")
def shallow_segnet(
    in_channels: int,
    out_channels: int,
    spatial_dims: int,
    stages: int = 3,
    width: int = 64,
    upsampling: str = "bilinear",
) -> nn.Module:
    """The first stages of SegNet, with bilinear interpolation in the decoder in place of max-unpooling.

    Source: the abstract of "Shallow SegNet with bilinear interpolation …" (see the module).
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 2^stages along each axis.
    Parameters: stages 1 to 5; width = channels of the first stage; upsampling `bilinear` (trilinear in 3-D,
    to the size of the matching encoder stage, align_corners=False) or `unpool`, so that the paper's two
    changes can be separated. Counts at width 64 for 1 → 4 channels, either upsampling: 520,900 (2 stages),
    3,474,244 (3), 15,279,172 (4), 29,444,164 (5; with `unpool` this is SegNet).
    Known: derived from SegNet, shallower, bilinear upsampling. Reconstruction: everything else. The paper's
    number of stages and widths are unknown; we cut SegNet's own table after `stages` stages.
    Cite: shallowsegnet, badrinarayanan2017
    """
    return _SegNet("shallow_segnet", in_channels, out_channels, spatial_dims, width, stages, upsampling)


class _SegNet(nn.Module):
    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(
        self,
        name: str,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int,
        stages: int,
        upsampling: str,
    ):
        super().__init__()
        check_positive(name, width=width, stages=stages)
        if stages > len(WIDTHS):
            raise BadInput(f"The architecture '{name}' has at most {len(WIDTHS)} stages (VGG16), not {stages}.")
        if upsampling not in UPSAMPLING:
            raise BadInput(
                f"The architecture '{name}' has no upsampling '{upsampling}'."
                f"{did_you_mean(str(upsampling), UPSAMPLING)}"
            )
        self.name, self.upsampling = name, upsampling
        self.minimum = 2**stages
        self.pool = MAX_POOL[spatial_dims]

        widths = [width * multiple for multiple in WIDTHS[:stages]]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for before, channels, depth in zip([in_channels, *widths], widths, CONVOLUTIONS, strict=False):
            self.encoder.append(_stage(spatial_dims, [before] + [channels] * depth))
        for after, channels, depth in zip([out_channels, *widths], widths, CONVOLUTIONS, strict=False):
            self.decoder.insert(0, _stage(spatial_dims, [channels] * depth + [after]))
        del self.decoder[-1][-2:]  # the classifier: no normalisation, no ReLU

        he_init(self)
        for layer in self.modules():
            if isinstance(layer, BATCH_NORM[spatial_dims]):
                nn.init.constant_(layer.bias, 0.001)

    def forward(self, x: Tensor) -> Tensor:
        check_size(self.name, x, self.minimum)
        pooled = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, indices = self.pool(x, 2, 2, return_indices=True)  # an odd last row is dropped, and comes back below
            pooled.append((indices, size))
        for stage in self.decoder:
            indices, size = pooled.pop()
            x = max_unpool(x, indices, size) if self.upsampling == "unpool" else upsample_linear(x, size)
            x = stage(x)
        return x


def _stage(spatial_dims: int, channels: list[int]) -> nn.Sequential:
    layers = []
    for before, after in pairwise(channels):
        layers += [
            CONV[spatial_dims](before, after, 3, padding=1),
            BATCH_NORM[spatial_dims](after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
