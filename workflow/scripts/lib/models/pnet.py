"""P-Net and PC-Net: dilated convolutions at full resolution, and a small classifier that can be fine-tuned alone.

Source: Wang et al., BIFSeg, IEEE TMI 37(7) 2018 (both networks), and DeepIGeoS (P-Net); the paper's text was not
at hand, so each docstring says what rests on what. The authors' later P-Net is in taigw/Demic (net/pnet.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.layers import CONV, check_positive, check_size, he_init
from lib.registry import register

CONVOLUTIONS = (2, 2, 3, 3, 3)  # per block


@register("pnet")
class PNet(nn.Module):
    """P-Net: 13 convolutions 3×3 in 5 blocks of dilation 1, 2, 4, 8, 16; all blocks feed a 1×1 classifier.

    Source: see the module. Blocks of 2, 2, 3, 3, 3 convolutions of `width` channels with bias and ReLU, no
    pooling, no normalisation; the 5 outputs are concatenated; block 6 = dropout, 1×1 convolution to `width`, ReLU,
    dropout, 1×1 convolution to the classes. Receptive field 181 × 181.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 17 along each axis (below
    that the outer taps of dilation 16 see nothing but padding). `features(x)` gives the concatenation
    (B, 5 · width, *S) and `classifier` is block 6, so that it can be tuned on cached features.
    Parameters: width; dropout = probability that a value is dropped before each convolution of block 6 in training
    (0 = none). At width 64, 1 → 2 channels: 464,450, of which block 6 has 20,674.
    Known: blocks and widths. Inferred: the dilations and the 1×1 kernels of block 6, from the receptive field; its
    dropout, from recollection of the paper, with the rate and the places of two public versions (the authors' later
    one drops in blocks 3 to 5 as well). Unknown, ours: hidden width of block 6, He weights; spatial_dims = 3 (3×3×3).
    Cite: wang2018
    """

    deepest = "blocks"  # whose (last) output a loss may look at

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 64, dropout: float = 0.5):
        super().__init__()
        check_positive("pnet", width=width)
        self.blocks = nn.ModuleList()
        before = in_channels
        for depth, dilation in zip(CONVOLUTIONS, (1, 2, 4, 8, 16), strict=True):
            self.blocks.append(
                _block(spatial_dims, before, width, depth, (3,) * spatial_dims, (dilation,) * spatial_dims)
            )
            before = width
        self.classifier = _classifier("pnet", spatial_dims, len(CONVOLUTIONS) * width, width, out_channels, dropout)
        he_init(self)

    def features(self, x: Tensor) -> Tensor:
        check_size("pnet", x, 17)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


@register("pcnet")
class PCNet(nn.Module):
    """PC-Net: P-Net for volumes of thick slices, with compressed block outputs; dilation 1, 2, 3, 4, 5 in plane.

    Source: see the module. Blocks of 2, 2, 3, 3, 3 convolutions of `width` channels with bias and ReLU: 3×3×3 in
    blocks 1 and 2, 1×3×3 (in plane) in blocks 3 to 5, dilated in plane only; a 1×1×1 convolution compresses each
    output to `compressed` channels; these are concatenated; block 6 = dropout, 1×1×1 convolution to `width`, ReLU,
    dropout, 1×1×1 convolution to the classes. Receptive field 9 slices of 85 × 85.
    Shapes: (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W), D = the slice axis, any D, H and W at
    least 6. `features(x)` gives the compressed concatenation (B, 5 · compressed, D, H, W), `classifier` is block 6.
    Parameters: width; compressed (0 = a quarter of width); dropout, as for `pnet`. 1 → 2 channels: 676,626 at width
    64 (block 6: 5,314), 169,866 at width 32, 42,822 at width 16.
    Inferred: dilations and kernels, from the receptive field. Unknown, ours: width and compressed width, that the
    compression is linear, hidden width of block 6, dropout as in `pnet`, He weights. spatial_dims = 2 is the network
    on a single slice (3×3 throughout).
    Cite: wang2018
    """

    deepest = "blocks"  # whose (last) output a loss may look at

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        width: int = 64,
        compressed: int = 0,
        dropout: float = 0.5,
    ):
        super().__init__()
        check_positive("pcnet", width=width)
        compressed = compressed or max(width // 4, 1)
        check_positive("pcnet", compressed=compressed)
        self.blocks, self.compress = nn.ModuleList(), nn.ModuleList()
        before = in_channels
        for number, depth in enumerate(CONVOLUTIONS, start=1):
            kernel = (3 if number <= 2 else 1, 3, 3)[-spatial_dims:]
            dilation = (1, number, number)[-spatial_dims:]
            self.blocks.append(_block(spatial_dims, before, width, depth, kernel, dilation))
            self.compress.append(CONV[spatial_dims](width, compressed, 1))
            before = width
        self.classifier = _classifier(
            "pcnet", spatial_dims, len(CONVOLUTIONS) * compressed, width, out_channels, dropout
        )
        he_init(self)

    def features(self, x: Tensor) -> Tensor:
        check_size("pcnet", x if x.dim() == 4 else x[:, :, 0], 6)  # less, and dilation 5 sees nothing but padding
        outputs = []
        for block, compress in zip(self.blocks, self.compress, strict=True):
            x = block(x)
            outputs.append(compress(x))
        return torch.cat(outputs, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def _block(
    spatial_dims: int, before: int, width: int, depth: int, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> nn.Sequential:
    padding = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
    layers = []
    for number in range(depth):
        conv = CONV[spatial_dims](before if number == 0 else width, width, kernel, padding=padding, dilation=dilation)
        layers += [conv, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _classifier(
    architecture: str, spatial_dims: int, before: int, hidden: int, classes: int, dropout: float
) -> nn.Sequential:
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise BadInput(f"The architecture '{architecture}' needs a dropout of at least 0 and below 1, not {dropout!r}.")
    first, second = CONV[spatial_dims](before, hidden, 1), CONV[spatial_dims](hidden, classes, 1)
    return nn.Sequential(nn.Dropout(dropout), first, nn.ReLU(inplace=True), nn.Dropout(dropout), second)
