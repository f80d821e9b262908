"""SegResNet: a residual encoder-decoder with group normalisation; MONAI's layers, deterministic on GPUs."""

from __future__ import annotations

from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop, pad_to_multiple
from lib.models.layers import check_positive, check_size, upsample_linear
from lib.registry import register

FACTOR = 8  # the input shrinks by this much
GROUPS = 8


@register("segresnet")
class SegResNet(nn.Module):
    """SegResNet: pre-activated residual blocks, 1, 2, 2, 4 downwards and 1, 1, 1 upwards, added skips.

    Source: Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, BrainLes 2018 (winner of
    BraTS 2018), in the layers of MONAI (monai.networks.nets.SegResNet, by the author). Channels 32-64-128-256,
    strided 3×3×3 convolutions downwards, 1×1×1 convolution and trilinear ×2 upwards, groups of 8 in normalisation.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 8 along each axis (padded with
    edge values to a multiple of 8, cropped back).
    Parameters: width = channels of the first level, a multiple of 8. At width 32 in 3-D: 18,798,627 for 4 → 3
    channels. (The paper prints no count.)
    Differs from the paper: without the variational autoencoder branch, whose loss regularises the training; no dropout
    after the first convolution (0.2 there); logits instead of sigmoids; `width` 32 as in the paper, where MONAI's
    default is 8. Upsampling is replaced by an equal one that is deterministic on GPUs. spatial_dims = 2 is MONAI's.
    Cite: myronenko2019
    """

    deepest = "network.down_layers"  # whose (last) output a loss may look at

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 32):
        super().__init__()
        check_positive("segresnet", width=width)
        if width % GROUPS:
            raise BadInput(f"The architecture 'segresnet' needs a width that is a multiple of {GROUPS}, not {width}.")
        from monai.networks.nets import SegResNet as MonaiSegResNet  # takes seconds, so only where it is used

        self.network = MonaiSegResNet(
            spatial_dims,
            init_filters=width,
            in_channels=in_channels,
            out_channels=out_channels,
            norm=("group", {"num_groups": GROUPS}),
        )
        for step in self.network.up_samples:
            step[1] = _Double()

    def forward(self, x: Tensor) -> Tensor:
        check_size("segresnet", x, FACTOR)
        return crop(self.network(pad_to_multiple(x, FACTOR)), x.shape[2:])


class _Double(nn.Module):
    """Bilinear or trilinear ×2: (B, C, *s) to (B, C, *2s)."""

    def forward(self, x: Tensor) -> Tensor:
        return upsample_linear(x, [2 * n for n in x.shape[2:]])
