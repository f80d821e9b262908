"""UNETR: a vision transformer as the encoder of a U-Net; MONAI's layers, for inputs of any size."""

from __future__ import annotations

from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.blocks import crop
from lib.models.layers import check_positive, upsample_linear
from lib.models.pretrained import load_encoder
from lib.models.sizes import pad_to_factors
from lib.registry import register

PATCH = 16  # pixels per token along each axis
LAYERS = (4, 8, 12)  # skips leave the transformer after the layer that follows 1/4, 1/2, 3/4 of them


@register("unetr")
class UNETR(nn.Module):
    """UNETR: tokens of 16 pixels per axis, transformer layers, and a convolutional decoder with 3 skips of tokens.

    Source: Hatamizadeh, Tang, Nath et al., WACV 2022, in the layers of MONAI (monai.networks.nets.UNETR, by the
    authors). ViT-B/16: 12 layers, hidden size 768, 12 heads, MLP 4 × hidden; channels 16-32-64-128 of the decoder.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded with
    edge values to a multiple of 16, and to 32 along the last axis where all axes have 16; cropped back).
    Position embeddings are learned on the grid of an image of image_size pixels along each axis, and interpolated
    linearly to the grid of every other input, in training as in prediction (as Dosovitskiy 2021 does for other
    resolutions; the paper predicts by windows of the training size only). So one network takes patches and whole
    slices; set image_size to the training patch to learn one embedding per token.
    Parameters: width = channels of the decoder's finest level; hidden, heads, layers (4, 8 or 12) of the
    transformer; weights, weights_sha256 = a ViT to start from (names as in MONAI, also of a whole UNETR: `vit.…`).
    At the defaults in 3-D: 92,784,046 for 1 → 14 channels (the paper: 92.58 M).
    MONAI differs from the paper: skips leave after layers 4, 7 and 10, not 3, 6 and 9; queries, keys and values have
    no bias; instance normalisation without affine parameters. spatial_dims = 2 is MONAI's.
    Cite: hatamizadeh2022
    """

    deepest = "bottom"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int = 16,
        hidden: int = 768,
        heads: int = 12,
        layers: int = 12,
        image_size: int = 96,
        weights: str | None = None,
        weights_sha256: str | None = None,
    ):
        super().__init__()
        check_positive("unetr", width=width, hidden=hidden, heads=heads, layers=layers, image_size=image_size)
        if hidden % heads:
            raise BadInput(f"The architecture 'unetr' needs hidden ({hidden}) to be a multiple of heads ({heads}).")
        if layers not in LAYERS:
            raise BadInput(f"The architecture 'unetr' has {' or '.join(map(str, LAYERS))} layers, not {layers}.")
        if image_size % PATCH:
            raise BadInput(f"The architecture 'unetr' needs image_size to be a multiple of {PATCH}, not {image_size}.")
        from monai.networks.nets import UNETR as MonaiUNETR  # takes seconds, so only where it is used

        self.network = MonaiUNETR(
            in_channels,
            out_channels,
            img_size=image_size,
            feature_size=width,
            hidden_size=hidden,
            mlp_dim=4 * hidden,
            num_heads=heads,
            spatial_dims=spatial_dims,
        )
        self.network.vit.blocks = self.network.vit.blocks[:layers]
        for block in self.network.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # of another use of MONAI's block; would never learn
        self.bottom = nn.Identity()  # names the map of the last tokens
        self.grid = (image_size // PATCH,) * spatial_dims
        load_encoder("unetr", self.network.vit, weights, weights_sha256, "vit.", ignored=("cross_attn",))

    def forward(self, x: Tensor) -> Tensor:
        size, net = x.shape[2:], self.network
        x = pad_to_factors("unetr", x, (PATCH,) * len(size))
        grid = [n // PATCH for n in x.shape[2:]]

        tokens = net.vit.patch_embedding.patch_embeddings(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.position_embeddings(grid)
        skips, part = [], len(net.vit.blocks) // 4
        for number, block in enumerate(net.vit.blocks):
            tokens = block(tokens)
            if number and number % part == 0:
                skips.append(_to_map(tokens, grid))
        y = self.bottom(_to_map(net.vit.norm(tokens), grid))
        y = net.decoder5(y, net.encoder4(skips[2]))
        y = net.decoder4(y, net.encoder3(skips[1]))
        y = net.decoder3(y, net.encoder2(skips[0]))
        y = net.decoder2(y, net.encoder1(x))
        return crop(net.out(y), size)

    def position_embeddings(self, grid: list[int]) -> Tensor:
        """(1, tokens, hidden) for a grid of tokens; the learned ones themselves on their own grid."""
        learned = self.network.vit.patch_embedding.position_embeddings
        if tuple(grid) == self.grid:
            return learned
        return upsample_linear(_to_map(learned, self.grid), grid).flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, grid: list[int] | tuple[int, ...]) -> Tensor:
    """(B, tokens, channels) as (B, channels, *grid)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)
