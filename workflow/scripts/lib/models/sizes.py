"""Sizes of networks whose strides differ by axis, or that normalise each image by itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lib.errors import BadInput
from lib.models.blocks import pad_to_multiples


def pad_to_factors(architecture: str, x: Tensor, factors: Sequence[int]) -> Tensor:
    """Continue the border pixels of x (B, C, *S) at the end of each axis, up to a multiple of its factor.

    At least two positions are left at the bottom, because one has no standard deviation and nothing to attend to: an
    image whose size is exactly `factors` grows to twice the last. Raises BadInput where an axis is shorter than its
    factor.
    """
    size = x.shape[2:]
    if any(n < factor for n, factor in zip(size, factors, strict=True)):
        raise BadInput(
            f"The architecture '{architecture}' needs at least {_sizes(factors)} pixels along every axis, but its "
            f"input has {' × '.join(map(str, size))}. Use larger patches (or fewer stages or strides, if it has them)."
        )
    if tuple(size) == tuple(factors):
        factors = (*factors[:-1], 2 * factors[-1])
    return pad_to_multiples(x, factors)


def _sizes(factors: Sequence[int]) -> str:
    return str(factors[0]) if len(set(factors)) == 1 else " × ".join(map(str, factors))
