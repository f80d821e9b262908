"""Holistic decomposition convolution and dense upsampling convolution around any architecture.

Source: Zeng, Zheng, Holistic decomposition convolution for effective semantic segmentation of medical volume
images, Medical Image Analysis 57, 2019; its upsampling: Wang et al., Understanding Convolution for Semantic
Segmentation, 2018. Known from abstracts and a formula.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from lib.errors import BadInput
from lib.models import build_model
from lib.models.blocks import crop, pad_to_multiples
from lib.models.layers import CONV, check_positive, he_init
from lib.registry import register


@register("hdc_duc")
class HDCDUC(nn.Module):
    """Another architecture on a grid `factor` times as coarse, without loss of information at either end.

    Source: see the module. HDC: the pixels of each block of `factor` along each axis become channels (periodic
    down-shuffling), then a 3×3(×3) convolution with bias; that is one convolution with a kernel of 3 · factor and a
    stride of `factor`. The network `of` takes its result and gives one logit per class and pixel of a block, which
    return to their places (DUC; its convolution is the classifier of that network).
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least `factor` times what `of` needs
    (padded with edge values at its end to a multiple of `factor`, cropped back). A list of logits (deep supervision
    of `of`) stays a list.
    Parameters: of = the recipe of the other architecture, e.g. {name: unet, width: 16}; factor = one number or one per
    axis (slice axis first; 1 leaves an axis as it is); width = channels of HDC (0 = as many as the down-shuffling
    gives: in_channels times the product of the factors).
    Known: both operators, and that they go around any network. Unknown, ours: the factor 2, the kernel 3, the
    number of channels, that nothing stands between HDC and the network. He weights.
    Cite: zeng2019, wang2018duc
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        of: dict,
        factor: int | list[int] = 2,
        width: int = 0,
    ):
        super().__init__()
        if not isinstance(of, dict):
            raise BadInput(f"The architecture 'hdc_duc' needs a recipe as `of`, such as {{name: unet}}, not {of!r}.")
        self.factors = list(factor) if isinstance(factor, list | tuple) else [factor] * spatial_dims
        for number in self.factors:
            check_positive("hdc_duc", factor=number)
        if len(self.factors) != spatial_dims:
            raise BadInput(
                f"The architecture 'hdc_duc' needs one factor for each of {spatial_dims} axes, or one for all, "
                f"not {self.factors}."
            )
        block = math.prod(self.factors)
        width = width or in_channels * block
        check_positive("hdc_duc", width=width)
        self.hdc = CONV[spatial_dims](in_channels * block, width, 3, padding=1)
        he_init(self)
        self.network = build_model(of, width, out_channels * block, spatial_dims)
        if hasattr(self.network, "deepest"):
            self.deepest = f"network.{self.network.deepest}"

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = x.shape[2:]
        x = self.hdc(unshuffle(pad_to_multiples(x, self.factors), self.factors))
        try:
            logits = self.network(x)
        except BadInput as error:
            factors = " × ".join(map(str, self.factors))
            raise BadInput(f"{error} It stands inside 'hdc_duc', which divided the size by {factors}.") from None
        if isinstance(logits, Tensor):
            return crop(shuffle(logits, self.factors), size)
        coarse = [shuffle(y, self.factors) for y in logits]
        # A level's size, rounded up, in proportion to the finest.
        full = coarse[0].shape[2:]
        return [crop(y, [-(-n * m // f) for n, m, f in zip(size, y.shape[2:], full, strict=True)]) for y in coarse]


def unshuffle(x: Tensor, factors: list[int]) -> Tensor:
    """Periodic down-shuffling: (B, C, *S) to (B, C · Π factors, *S / factors), channel c · Π factors + place in block.

    `torch.nn.PixelUnshuffle` for any number of axes, each with its own factor.
    """
    axes = len(factors)
    blocks = [part for n, f in zip(x.shape[2:], factors, strict=True) for part in (n // f, f)]
    order = [0, 1, *range(3, 3 + 2 * axes, 2), *range(2, 2 + 2 * axes, 2)]
    sizes = (n // f for n, f in zip(x.shape[2:], factors, strict=True))
    return x.reshape(*x.shape[:2], *blocks).permute(order).reshape(len(x), -1, *sizes)


def shuffle(x: Tensor, factors: list[int]) -> Tensor:
    """The inverse of `unshuffle`: (B, C · Π factors, *s) to (B, C, *s · factors)."""
    axes = len(factors)
    sizes = (n * f for n, f in zip(x.shape[2:], factors, strict=True))
    order = [0, 1, *(axis for k in range(axes) for axis in (2 + axes + k, 2 + k))]
    return x.reshape(len(x), -1, *factors, *x.shape[2:]).permute(order).reshape(len(x), -1, *sizes)
