"""V-Net: residual stages of 5×5×5 convolutions, strided convolutions in place of pooling.

Source: Milletari, Navab, Ahmadi, V-Net, 3DV 2016, in the table of mattmacy/vnet.pytorch (vnet.py), which follows
the authors' prototxt. Written anew; that file's errors are listed below.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.models.blocks import crop, pad_to_multiple
from lib.models.layers import BATCH_NORM, CONV, CONV_TRANSPOSE, check_positive, check_size
from lib.registry import register

DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}  # whole channels, p = 0.5
DOWN = ((2, 1, False), (4, 2, False), (8, 3, True), (16, 2, True))  # channels / width, convolutions, dropout
UP = ((16, 2, True), (8, 2, True), (4, 1, False), (2, 1, False))
FACTOR = 2 ** len(DOWN)  # the input shrinks by this much


@register("vnet")
class VNet(nn.Module):
    """V-Net: 4 down and 4 up stages, each the sum of its input and 1 to 3 convolutions 5×5×5.

    Source: see the module. First stage: convolution 1 → 16, batch normalisation, plus the image repeated in every
    channel. Down: strided convolution 2×2×2 to 32, 64, 128, 256 channels, then 1, 2, 3, 2 convolutions. Up:
    transposed convolution 2×2×2, concatenation with the skip (256, 128, 64, 32 channels together), then
    2, 2, 1, 1 convolutions. Each convolution has a bias and is followed by batch normalisation and ELU. Head:
    5×5×5 convolution to the classes, batch normalisation, ELU, 1×1×1 convolution. Dropout of whole channels,
    p = 0.5: in the last two down stages, at the entrance of the first two up stages, on every skip.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis (padded
    with edge values to a multiple of 16, cropped back). With several input channels, channel k of the first sum
    is input channel k modulo their number.
    Parameters: width = channels of the first stage. At width 16 in 3-D: 45,600,316 for 1 → 2 channels.
    Known: every layer and count of the file named above. Corrected: it repeats the image along the batch axis
    instead of the channels, and always normalises with the statistics of the batch, even in evaluation. Differs
    from the paper: batch normalisation, dropout, and ELU for PReLU. As there, convolutions start from He weights,
    transposed ones from torch's default. spatial_dims = 2 is ours.
    Cite: milletari2016
    """

    deepest = "down"  # whose (last) output a loss may look at

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 16):
        super().__init__()
        check_positive("vnet", width=width)
        self.width = width
        self.first = nn.Sequential(
            CONV[spatial_dims](in_channels, width, 5, padding=2), BATCH_NORM[spatial_dims](width)
        )
        self.activation = nn.ELU(inplace=True)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = width
        for multiple, depth, dropout in DOWN:
            self.down.append(_Down(spatial_dims, channels, multiple * width, depth, dropout))
            channels = multiple * width
        for multiple, depth, dropout in UP:
            self.up.append(_Up(spatial_dims, channels, multiple * width, depth, dropout))
            channels = multiple * width
        self.classifier = nn.Sequential(
            *_conv_norm_elu(spatial_dims, channels, out_channels), CONV[spatial_dims](out_channels, out_channels, 1)
        )
        for layer in self.modules():
            if isinstance(layer, CONV[spatial_dims]):  # the source leaves transposed convolutions to torch
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        check_size("vnet", x, FACTOR, batch_norm_at_bottom=self.training)
        size = x.shape[2:]
        x = pad_to_multiple(x, FACTOR)
        copies = -(-self.width // x.shape[1])
        image = torch.cat([x] * copies, dim=1)[:, : self.width]
        x = self.activation(self.first(x) + image)
        skips = []
        for stage in self.down:
            skips.append(x)
            x = stage(x)
        for stage in self.up:
            x = stage(x, skips.pop())
        return crop(self.classifier(x), size)


class _Down(nn.Module):
    def __init__(self, spatial_dims: int, before: int, after: int, depth: int, dropout: bool):
        super().__init__()
        self.down = nn.Sequential(
            CONV[spatial_dims](before, after, 2, stride=2), BATCH_NORM[spatial_dims](after), nn.ELU(inplace=True)
        )
        self.dropout = DROPOUT[spatial_dims]() if dropout else nn.Identity()
        self.convolutions = _stage(spatial_dims, after, depth)
        self.activation = nn.ELU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.activation(self.convolutions(self.dropout(x)) + x)


class _Up(nn.Module):
    def __init__(self, spatial_dims: int, before: int, after: int, depth: int, dropout: bool):
        super().__init__()
        self.dropout = DROPOUT[spatial_dims]() if dropout else nn.Identity()
        self.dropout_of_skip = DROPOUT[spatial_dims]()
        self.up = nn.Sequential(
            CONV_TRANSPOSE[spatial_dims](before, after // 2, 2, stride=2),
            BATCH_NORM[spatial_dims](after // 2),
            nn.ELU(inplace=True),
        )
        self.convolutions = _stage(spatial_dims, after, depth)
        self.activation = nn.ELU(inplace=True)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat([self.up(self.dropout(x)), self.dropout_of_skip(skip)], dim=1)
        return self.activation(self.convolutions(x) + x)


def _stage(spatial_dims: int, channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(layer for _ in range(depth) for layer in _conv_norm_elu(spatial_dims, channels, channels)))


def _conv_norm_elu(spatial_dims: int, before: int, after: int) -> list[nn.Module]:
    return [
        CONV[spatial_dims](before, after, 5, padding=2),
        BATCH_NORM[spatial_dims](after),
        nn.ELU(inplace=True),
    ]
