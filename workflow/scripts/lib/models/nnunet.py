"""nnU-Net's two networks: a plain convolutional U-Net, and one with a residual encoder.

Source: Isensee, Jaeger, Kohl, Petersen, Maier-Hein, Nature Methods 2021, and (residual encoder) Isensee, Wald,
Ulrich et al., nnU-Net Revisited, MICCAI 2024. Written anew from the papers and from the facts of the authors' package
dynamic-network-architectures 0.4.4; that package is not used, because it asks for timm and so for torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop
from lib.models.layers import CONV, CONV_TRANSPOSE, INSTANCE_NORM, check_flags, check_positive
from lib.models.sizes import pad_to_factors
from lib.registry import register

WIDEST = {2: 512, 3: 320}  # channels at most
RESIDUAL_BLOCKS = (1, 3, 4, 6)  # of the first stages; 6 in each later one
SLOPE = 0.01  # of the leaky ReLU


@register("nnunet")
class PlainUNet(nn.Module):
    """nnU-Net's plain U-Net: strided convolutions downwards, transposed ones upwards, instance norm, leaky ReLU.

    Source: see the module. Two 3×3 convolutions per stage and direction, each followed by affine instance
    normalisation and leaky ReLU (0.01); the first of a stage has the stride; transposed convolutions with kernel =
    stride; concatenated skips; 1×1 classifier; channels double from 32 to at most 512 (2-D) or 320 (3-D); all
    convolutions with bias; He weights for the leaky ReLU.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least the product of the strides along
    each axis, 32 by default (padded with edge values to a multiple of it, and to twice it along the last axis where
    all axes have just that; cropped back).
    Parameters: what nnU-Net plans from the data is given here. stages: nnU-Net takes as many as leave at least 4
    pixels of the patch at the bottom: 6 for 128 to 255 pixels, 7 up to 511, 8 from 512. width = channels of the first
    stage. strides, kernels: a list with one entry per stage, a number or one number per axis, for anisotropic voxels
    (`strides: [1, [1, 2, 2], 2, 2, 2, 2]`, `kernels: [[1, 3, 3], 3, …]`, as in nnUNetPlans.json); null = 2 (1 in the
    first stage) and 3. deep_supervision: in training the result is a list of logits, finest first, with 1×1
    classifiers of every stage upwards but the coarsest, whose weight in nnU-Net is 0.
    In 3-D with 6 stages, 1 → 4 channels: 31,194,116; with deep supervision 31,195,920, to which nnU-Net adds an idle
    classifier (31,197,204; published: 31.2 M). nnU-Net trains with deep supervision.
    Cite: isensee2021
    """

    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        stages: int = 6,
        width: int = 32,
        strides: list | None = None,
        kernels: list | None = None,
        deep_supervision: bool = False,
    ):
        super().__init__()
        plan = _Plan("nnunet", spatial_dims, stages, width, strides, kernels)
        check_flags("nnunet", deep_supervision=deep_supervision)
        self.encoder = nn.ModuleList()
        for before, after, stride, kernel in plan.steps(in_channels):
            self.encoder.append(
                nn.Sequential(
                    *_conv_norm_relu(spatial_dims, before, after, kernel, stride),
                    *_conv_norm_relu(spatial_dims, after, after, kernel),
                )
            )
        self.decoder = _Decoder("nnunet", plan, out_channels, 2, deep_supervision)
        _init(self)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.encoder, x)


@register("nnunet_resenc")
class ResidualEncoderUNet(nn.Module):
    """nnU-Net's U-Net with a residual encoder ("ResEnc"): 1, 3, 4, 6, 6, … blocks downwards, one convolution upwards.

    Source: see the module. Stem of one 3×3 convolution; a block is two 3×3 convolutions with instance normalisation,
    leaky ReLU between, plus the shortcut (average pooling where the block has a stride, 1×1 convolution without bias
    and normalisation where the channels change), then leaky ReLU; the last normalisation of a block starts at 0, so
    that every block starts as its shortcut. The rest as `nnunet`, with one 3×3 convolution per stage upwards.
    Shapes, parameters: as `nnunet`. In 3-D with 6 stages, 1 → 4 channels: 102,348,292 (nnU-Net's own network, with
    all its classifiers: 102,351,380).
    Average pooling is written so that it is deterministic on GPUs.
    Cite: isensee2021, isensee2024
    """

    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        stages: int = 6,
        width: int = 32,
        strides: list | None = None,
        kernels: list | None = None,
        deep_supervision: bool = False,
    ):
        super().__init__()
        plan = _Plan("nnunet_resenc", spatial_dims, stages, width, strides, kernels)
        check_flags("nnunet_resenc", deep_supervision=deep_supervision)
        self.stem = nn.Sequential(*_conv_norm_relu(spatial_dims, in_channels, width, plan.kernels[0]))
        self.encoder = nn.ModuleList()
        for stage, (before, after, stride, kernel) in enumerate(plan.steps(width)):
            depth = RESIDUAL_BLOCKS[min(stage, len(RESIDUAL_BLOCKS) - 1)]
            blocks = [_Block(spatial_dims, before, after, kernel, stride)]
            blocks += [_Block(spatial_dims, after, after, kernel, (1,) * spatial_dims) for _ in range(depth - 1)]
            self.encoder.append(nn.Sequential(*blocks))
        self.decoder = _Decoder("nnunet_resenc", plan, out_channels, 1, deep_supervision)
        _init(self)
        for layer in self.modules():
            if isinstance(layer, _Block):
                nn.init.zeros_(layer.second[1].weight)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.encoder, x, self.stem)


class _Plan:
    """Channels, strides and kernels of every stage, checked."""

    def __init__(
        self,
        architecture: str,
        spatial_dims: int,
        stages: int,
        width: int,
        strides: list | None,
        kernels: list | None,
    ):
        check_positive(architecture, stages=stages, width=width)
        if stages < 2:
            raise BadInput(f"The architecture '{architecture}' needs at least 2 stages, not {stages}.")
        self.spatial_dims = spatial_dims
        self.widths = [min(width * 2**stage, max(width, WIDEST[spatial_dims])) for stage in range(stages)]
        default = [1] + [2] * (stages - 1)
        self.strides = _per_stage(
            architecture, "strides", default if strides is None else strides, stages, spatial_dims
        )
        self.kernels = _per_stage(
            architecture, "kernels", [3] * stages if kernels is None else kernels, stages, spatial_dims
        )
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise BadInput(f"The architecture '{architecture}' needs odd kernels, not {kernels}.")
        if set(self.strides[0]) != {1}:
            raise BadInput(f"The architecture '{architecture}' needs stride 1 in its first stage, not {strides[0]}.")

    def steps(self, in_channels: int) -> list[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
        """(channels before, channels after, stride, kernel) of every stage."""
        before = [in_channels, *self.widths[:-1]]
        return list(zip(before, self.widths, self.strides, self.kernels, strict=True))

    def factors(self, stage: int) -> tuple[int, ...]:
        """How much smaller than the input a stage is, per axis."""
        factors = [1] * self.spatial_dims
        for stride in self.strides[: stage + 1]:
            factors = [f * s for f, s in zip(factors, stride, strict=True)]
        return tuple(factors)


def _per_stage(architecture: str, name: str, values: list, stages: int, spatial_dims: int) -> list[tuple[int, ...]]:
    """One tuple per stage from a list of numbers or lists; raises BadInput."""
    if not isinstance(values, list) or len(values) != stages:
        raise BadInput(
            f"The architecture '{architecture}' with {stages} stages needs a list of {stages} {name}, not {values!r}."
        )
    result = []
    for value in values:
        axes = tuple(value) if isinstance(value, list) else (value,) * spatial_dims
        if len(axes) != spatial_dims or not all(type(n) is int and n > 0 for n in axes):
            raise BadInput(
                f"The architecture '{architecture}' needs {name} that are a whole number of at least 1 or one per axis "
                f"({spatial_dims}), not {value!r}."
            )
        result.append(axes)
    return result


class _Decoder(nn.Module):
    """Runs the encoder and comes back up: (B, in_channels, *S) to logits, a list of them with deep supervision."""

    def __init__(self, architecture: str, plan: _Plan, out_channels: int, depth: int, deep_supervision: bool):
        super().__init__()
        self.architecture, self.plan = architecture, plan
        dims = plan.spatial_dims
        self.up, self.stages, self.classifiers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in reversed(range(len(plan.widths) - 1)):
            below, width, stride = plan.widths[stage + 1], plan.widths[stage], plan.strides[stage + 1]
            self.up.append(CONV_TRANSPOSE[dims](below, width, stride, stride=stride))
            layers = _conv_norm_relu(dims, 2 * width, width, plan.kernels[stage])
            for _ in range(depth - 1):
                layers += _conv_norm_relu(dims, width, width, plan.kernels[stage])
            self.stages.append(nn.Sequential(*layers))
        supervised = range(len(plan.widths) - 2) if deep_supervision else range(1)
        for stage in supervised or range(1):
            self.classifiers.append(CONV[dims](plan.widths[stage], out_channels, 1))  # finest first

    def forward(self, encoder: nn.ModuleList, x: Tensor, stem: nn.Module | None = None) -> Tensor | list[Tensor]:
        size = x.shape[2:]
        x = pad_to_factors(self.architecture, x, self.plan.factors(len(encoder) - 1))
        x = stem(x) if stem is not None else x
        skips = []
        for stage in encoder:
            x = stage(x)
            skips.append(x)
        levels = []
        x = skips.pop()
        for up, stage in zip(self.up, self.stages, strict=True):
            x = stage(torch.cat([up(x), skips.pop()], dim=1))
            levels.insert(0, x)
        logits = []
        for level, classifier in enumerate(self.classifiers if self.training else self.classifiers[:1]):
            small = [-(-n // factor) for n, factor in zip(size, self.plan.factors(level), strict=True)]
            logits.append(crop(classifier(levels[level]), small))
        return logits if len(logits) > 1 else logits[0]


class _Block(nn.Module):
    """Residual block: (B, before, *s) to (B, after, *s / stride)."""

    def __init__(self, spatial_dims: int, before: int, after: int, kernel: tuple[int, ...], stride: tuple[int, ...]):
        super().__init__()
        self.stride = stride
        self.first = nn.Sequential(*_conv_norm_relu(spatial_dims, before, after, kernel, stride))
        self.second = nn.Sequential(*_conv_norm_relu(spatial_dims, after, after, kernel)[:-1])
        self.project = nn.Identity()
        if before != after:
            self.project = nn.Sequential(
                CONV[spatial_dims](before, after, 1, bias=False), INSTANCE_NORM[spatial_dims](after, affine=True)
            )
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.second(self.first(x)) + self.project(average_pool(x, self.stride)))


def average_pool(x: Tensor, window: Sequence[int]) -> Tensor:
    """Means over disjoint windows of x (B, C, *s), s in multiples of them.

    Equal to `F.avg_pool{2,3}d`, whose 3-D backward is not deterministic on GPUs.
    """
    for axis, n in enumerate(window, start=2):
        if n > 1:
            x = x.unflatten(axis, (-1, n)).mean(axis + 1)
    return x


def _conv_norm_relu(
    spatial_dims: int, before: int, after: int, kernel: Sequence[int], stride: Sequence[int] | int = 1
) -> list[nn.Module]:
    padding = tuple(k // 2 for k in kernel)
    return [
        CONV[spatial_dims](before, after, tuple(kernel), stride=stride, padding=padding),
        INSTANCE_NORM[spatial_dims](after, affine=True),
        nn.LeakyReLU(SLOPE, inplace=True),
    ]


def _init(network: nn.Module) -> None:
    """He weights for the leaky ReLU, biases 0."""
    for layer in network.modules():
        if isinstance(layer, (*CONV.values(), *CONV_TRANSPOSE.values())):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
