"""What several architecture families share: layers by number of spatial axes, and deterministic resampling.

Under `torch.use_deterministic_algorithms(True)` (torch 2.13) some layers of these papers raise. Replaced:

- `MaxUnpool2d/3d`, which raise on every device, by a scatter (the indices of disjoint windows are unique):
  `max_unpool`;
- `interpolate` (bilinear, trilinear), whose backward raises on CUDA, by products with fixed matrices:
  `upsample_linear`.

The backward of `max_pool2d` gathers, so it has no race; `max_pool3d`, convolutions, transposed convolutions and
scatter switch to deterministic kernels by themselves; edge padding is applied to images, which need no gradient.
Matrix products on CUDA need CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before CUDA starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import BadInput
from lib.registry import did_you_mean

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
CONV_TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
NORMALISATIONS = ("batch", "instance", "group", "none")


def norm(architecture: str, kind: str, spatial_dims: int, channels: int) -> list[nn.Module]:
    """The normalisation `kind` of a recipe: a list of one layer, or of none; raises BadInput for another kind."""
    if kind == "batch":
        return [BATCH_NORM[spatial_dims](channels)]
    if kind == "instance":
        return [INSTANCE_NORM[spatial_dims](channels, affine=True)]
    if kind == "group":
        return [group_norm(channels)]
    if kind == "none":
        return []
    raise BadInput(
        f"The architecture '{architecture}' has no normalisation '{kind}'.{did_you_mean(str(kind), NORMALISATIONS)}"
    )


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation of 16 channels per group, of all channels together where 16 does not divide them."""
    return nn.GroupNorm(1 if channels % 16 else channels // 16, channels)


def max_unpool(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    """Put pooled values back where they were the maximum, zeros elsewhere; bit-equal to `F.max_unpool{2,3}d`.

    x (B, C, *s) and indices (B, C, *s) int64 as `F.max_pool{2,3}d(…, return_indices=True)` returns them for
    non-overlapping windows; size = the spatial size before the pooling. Returns (B, C, *size), channels last.
    """
    batch, channels = x.shape[:2]
    x, indices = (t.movedim(1, -1).reshape(batch, -1, channels) for t in (x, indices))
    unpooled = x.new_zeros(batch, math.prod(size), channels).scatter_(1, indices, x)
    return unpooled.view(batch, *size, channels).movedim(-1, 1)


def upsample_linear(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (2-D) or trilinear (3-D) interpolation of x (B, C, *s) to (B, C, *size), align_corners=False.

    Equal to `F.interpolate`, which runs on CPUs, where its backward is deterministic and 2 to 7 times faster
    than matrices; other devices take `resize_by_matrices`.
    """
    if x.device.type == "cpu":
        return F.interpolate(x, size=tuple(size), mode={2: "bilinear", 3: "trilinear"}[len(size)])
    return resize_by_matrices(x, size)


def resize_by_matrices(x: Tensor, size: Sequence[int]) -> Tensor:
    """The separable form of `upsample_linear`: a product with a fixed (new, old) matrix per spatial axis."""
    x = x.movedim(1, -1)  # (B, *s, C), no copy where x is channels last
    for axis, new in enumerate(size, start=1):
        before, old, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        identity = torch.eye(old, device=x.device)[None]
        weights = F.interpolate(identity, size=new, mode="linear")[0].T  # row i: what output i takes from where
        x = (weights.to(x.dtype) @ x.reshape(math.prod(before), old, -1)).reshape(*before, new, *after)
    return x.movedim(-1, 1)


def he_init(network: nn.Module) -> None:
    """Draw all convolution weights from N(0, 2/n), n = inputs of one output value (He 2015); biases 0."""
    for layer in network.modules():
        if isinstance(layer, tuple(CONV.values())):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, tuple(CONV_TRANSPOSE.values())):
            # Where the kernel equals the stride, an output value has one tap per input channel.
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_channels))
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def check_positive(architecture: str, **parameters: int) -> None:
    """Raise BadInput for a recipe parameter that is no integer of at least 1."""
    for name, value in parameters.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput(f"The architecture '{architecture}' needs an integer {name} of at least 1, not {value!r}.")


def check_flags(architecture: str, **parameters: bool) -> None:
    """Raise BadInput for a recipe parameter that is neither true nor false."""
    for name, value in parameters.items():
        if not isinstance(value, bool):
            raise BadInput(f"The architecture '{architecture}' needs {name} to be true or false, not {value!r}.")


def check_size(architecture: str, x: Tensor, minimum: int, batch_norm_at_bottom: bool = False) -> None:
    """Raise BadInput where the input (B, C, *S) has fewer than `minimum` pixels along an axis.

    With `batch_norm_at_bottom` a single image of exactly that size raises too: shrunk by `minimum` it would be one
    value per channel, which has no standard deviation in training.
    """
    if min(x.shape[2:]) < minimum:
        raise BadInput(
            f"The architecture '{architecture}' needs at least {minimum} pixels along every axis, but its "
            f"input has {_times(x)}. Use larger patches (or fewer stages, if it has them)."
        )
    if batch_norm_at_bottom and len(x) == 1 and max(x.shape[2:]) == minimum:
        raise BadInput(
            f"The architecture '{architecture}' cannot train on a batch of 1 with {_times(x)} pixels: one value per "
            "channel would be left for its batch normalisation. Use larger patches or batches."
        )


def _times(x: Tensor) -> str:
    return " × ".join(map(str, x.shape[2:]))
