"""Swin UNETR: a transformer of shifted windows as the encoder of a U-Net; MONAI's layers, for inputs of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop
from lib.models.layers import check_positive
from lib.models.pretrained import load_encoder
from lib.models.sizes import pad_to_factors
from lib.registry import register

FACTOR = 32  # the input shrinks by this much
HEADS = (3, 6, 12, 24)  # per stage


@register("swin_unetr")
class SwinUNETR(nn.Module):
    """Swin UNETR: tokens of 2 pixels per axis, 4 stages of window attention, a residual convolutional decoder.

    Source: Hatamizadeh, Nath, Tang, Yang, Roth, Xu, BrainLes 2021, in the layers of MONAI
    (monai.networks.nets.SwinUNETR, by the authors). Two transformer layers per stage, the second with windows shifted
    by half; windows of 7 tokens per axis; 3, 6, 12, 24 heads; channels 48-96-192-384-768; patch merging halves the
    size; instance normalisation in the decoder.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 32 along each axis (padded with
    edge values to a multiple of 32, and to 64 along the last axis where all axes have 32; cropped back).
    Parameters: width = channels of the first stage, a multiple of 12; window = tokens per axis; weights,
    weights_sha256 = a Swin encoder to start from (names as in MONAI, also of a whole SwinUNETR: `swinViT.…`).
    At the defaults in 3-D: 62,187,296 for 1 → 14 channels (the paper: 61.98 M).
    Differs from MONAI: where a feature map is smaller than the window, MONAI takes the position biases of the first
    tokens of a full window, which belong to other offsets; here each pair of tokens gets that of its own offset, so
    that patches and larger images agree. Weights trained by MONAI on patches below 112 pixels per axis have learned the
    other assignment in their last stages. spatial_dims = 2 is MONAI's.
    Cite: hatamizadeh2022swin
    """

    deepest = "network.encoder10"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int = 48,
        window: int = 7,
        weights: str | None = None,
        weights_sha256: str | None = None,
    ):
        super().__init__()
        check_positive("swin_unetr", width=width, window=window)
        if width % 12:
            raise BadInput(f"The architecture 'swin_unetr' needs a width that is a multiple of 12, not {width}.")
        from monai.networks.nets import SwinUNETR as MonaiSwinUNETR  # takes seconds, so only where it is used

        self.network = MonaiSwinUNETR(
            in_channels,
            out_channels,
            feature_size=width,
            num_heads=HEADS,
            window_size=window,
            spatial_dims=spatial_dims,
        )
        self.factors = (FACTOR,) * spatial_dims
        for stage in self._stages():
            for block in stage.blocks:
                del block.attn.relative_position_index  # a buffer; from here on set for each input
            stage.register_forward_pre_hook(_index_positions)
        encoder = self.network.swinViT
        load_encoder("swin_unetr", encoder, weights, weights_sha256, "swinViT.", ignored=("relative_position_index",))

    def forward(self, x: Tensor) -> Tensor:
        return crop(self.network(pad_to_factors("swin_unetr", x, self.factors)), x.shape[2:])

    def _stages(self) -> list[nn.Module]:
        encoder = self.network.swinViT
        return [
            stage for layers in (encoder.layers1, encoder.layers2, encoder.layers3, encoder.layers4) for stage in layers
        ]


def _index_positions(stage: nn.Module, inputs: tuple[Tensor]) -> None:
    """Give the attention of a stage the position biases that belong to the windows of this input (B, C, *s)."""
    x = inputs[0]
    window = [min(n, full) for n, full in zip(x.shape[2:], stage.window_size, strict=True)]
    index = relative_position_index(window, stage.window_size, x.device)
    for block in stage.blocks:
        block.attn.relative_position_index = index


def relative_position_index(window: Sequence[int], full: Sequence[int], device: torch.device) -> Tensor:
    """Rows of the table of position biases for each pair of tokens of a window, (tokens, tokens) int64.

    The table has one row per offset between two tokens of a full window, row-major from -(full - 1).
    """
    axes = [torch.arange(n, device=device) for n in window]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (axes, tokens)
    row = torch.zeros((), dtype=torch.int64, device=device)
    for p, n in zip(position, full, strict=True):
        row = row * (2 * n - 1) + (p[:, None] - p[None, :] + n - 1)
    return row
