"""MedNeXt: an encoder-decoder of ConvNeXt blocks; MONAI's layers."""

from __future__ import annotations

from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop
from lib.models.layers import check_flags, check_positive
from lib.models.sizes import pad_to_factors
from lib.registry import did_you_mean, register

FACTOR = 16  # the input shrinks by this much
SIZES = {  # of the paper: blocks and expansion ratios down, at the bottom, up
    "S": ((2, 2, 2, 2), 2, (2, 2, 2, 2), (2, 2, 2, 2), 2, (2, 2, 2, 2)),
    "B": ((2, 2, 2, 2), 2, (2, 2, 2, 2), (2, 3, 4, 4), 4, (4, 4, 3, 2)),
    "M": ((3, 4, 4, 4), 4, (4, 4, 4, 3), (2, 3, 4, 4), 4, (4, 4, 3, 2)),
    "L": ((3, 4, 8, 8), 8, (8, 8, 4, 3), (3, 4, 8, 8), 8, (8, 8, 4, 3)),
}


@register("mednext")
class MedNeXt(nn.Module):
    """MedNeXt: blocks of depthwise convolution, normalisation, 1×1 expansion, GELU, 1×1 compression, added input.

    Source: Roy, Koehler, Ulrich et al., MICCAI 2023, in the layers of MONAI (monai.networks.nets.MedNeXt, after the
    authors' code). 4 levels and a bottom of 32-64-128-256-512 channels; downsampling and upsampling are such blocks
    with stride 2, plus a strided 1×1 shortcut; skips are added; normalisation per channel and image.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded with
    edge values to a multiple of 16, and to 32 along the last axis where all axes have 16; cropped back).
    Parameters: size = S, B, M or L, the paper's depths and expansion ratios; kernel = 3 or 5 (or larger, odd) of the
    depthwise convolutions; width = channels of the first level (the paper: 32). deep_supervision: in training the
    result is a list of logits, finest first, with 1×1 classifiers at 1/2, 1/4, 1/8, 1/16 of the size, as in the paper.
    For 1 → 2 channels in 3-D, millions (the authors' table): kernel 3: S 5.55 (5.6), B 10.51 (10.5), M 17.53 (17.6),
    L 61.73 (61.8); kernel 5: S 5.98 (5.9), B 10.94 (11.0), M 18.25 (18.3), L 62.94 (63.0).
    Differs from the paper: kernel 5 starts from freshly drawn weights, not from an enlarged kernel-3 network (UpKern).
    spatial_dims = 2 is untested by the authors.
    Cite: roy2023
    """

    deepest = "network.bottleneck"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        size: str = "S",
        kernel: int = 3,
        width: int = 32,
        deep_supervision: bool = False,
    ):
        super().__init__()
        check_positive("mednext", kernel=kernel, width=width)
        check_flags("mednext", deep_supervision=deep_supervision)
        if size not in SIZES:
            raise BadInput(f"The architecture 'mednext' has no size '{size}'.{did_you_mean(str(size), SIZES)}")
        if kernel % 2 == 0:
            raise BadInput(f"The architecture 'mednext' needs an odd kernel, not {kernel}.")
        from monai.networks.nets import MedNeXt as MonaiMedNeXt  # takes seconds, so only where it is used

        down, bottom, up, down_ratios, bottom_ratio, up_ratios = SIZES[size]
        self.network = MonaiMedNeXt(
            spatial_dims,
            init_filters=width,
            in_channels=in_channels,
            out_channels=out_channels,
            encoder_expansion_ratio=down_ratios,
            bottleneck_expansion_ratio=bottom_ratio,
            decoder_expansion_ratio=up_ratios,
            kernel_size=kernel,
            deep_supervision=deep_supervision,
            use_residual_connection=True,
            blocks_down=down,
            blocks_bottleneck=bottom,
            blocks_up=up,
        )
        for block in self.network.down_blocks:
            # Equal to its stride 2, whose backward corrupts memory on CPUs (torch 2.13, channels last, few channels).
            block.res_conv.stride = (1,) * spatial_dims
            block.res_conv.register_forward_pre_hook(_every_second)
        self.factors = (FACTOR,) * spatial_dims

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = x.shape[2:]
        outputs = self.network(pad_to_factors("mednext", x, self.factors))
        if isinstance(outputs, Tensor):
            return crop(outputs, size)
        return [crop(y, [-(-n // 2**level) for n in size]) for level, y in enumerate(outputs)]


def _every_second(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    x = inputs[0]
    return x[(..., *(slice(None, None, 2),) * (x.dim() - 2))]
