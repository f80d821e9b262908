"""SegNet-Basic: the small SegNet, four 7×7 stages of constant width.

Source: Badrinarayanan, Kendall, Cipolla, SegNet, TPAMI 2017, in the authors' own definition
(alexgkendall/SegNet-Tutorial, Models/segnet_basic_train.prototxt).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.layers import BATCH_NORM, CONV, MAX_POOL, check_positive, check_size, he_init, max_unpool
from lib.registry import register

STAGES = 4


@register("segnet_basic")
class SegNetBasic(nn.Module):
    """SegNet-Basic: 4 encoder and 4 decoder convolutions 7×7 of one width, max-unpooling, 1×1 classifier.

    Source: the authors' prototxt (see the module). Local response normalisation of the input; 4 × (7×7
    convolution, batch normalisation, ReLU, max-pooling 2×2); 4 × (unpooling with the encoder's indices, 7×7
    convolution, batch normalisation, no ReLU); 1×1 classifier. All convolutions with bias; He weights, BN
    shift 0.001.
    Shapes: (B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 16 along each axis.
    Parameters: width = channels of every stage. At width 64: 1,416,587 for 3 → 11 channels, 1,409,860 for 1 → 4.
    Known: every layer. Width other than 64 and spatial_dims = 3 (7×7×7, 2×2×2) are ours.
    Cite: badrinarayanan2017
    """

    deepest = "encoder"  # whose (last) output a loss may look at

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 64):
        super().__init__()
        check_positive("segnet_basic", width=width)
        self.pool = MAX_POOL[spatial_dims]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for stage in range(STAGES):
            before = width if stage else in_channels
            self.encoder.append(nn.Sequential(*_conv_norm(spatial_dims, before, width), nn.ReLU(inplace=True)))
            self.decoder.append(nn.Sequential(*_conv_norm(spatial_dims, width, width)))
        self.classifier = CONV[spatial_dims](width, out_channels, 1)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        check_size("segnet_basic", x, 2**STAGES)
        x = local_response_norm(x)
        pooled = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, indices = self.pool(x, 2, 2, return_indices=True)  # an odd last row is dropped, and comes back below
            pooled.append((indices, size))
        for stage in self.decoder:
            x = stage(max_unpool(x, *pooled.pop()))
        return self.classifier(x)


def local_response_norm(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """x / (1 + alpha · m)^beta, m = sum of x² over `size` neighbouring channels (zeros outside) / size.

    Equal to `F.local_response_norm(x, 5)`, which cannot take channels-last input.
    """
    channels = x.shape[1]
    squares = F.pad(x.square().movedim(1, -1), (size // 2, size // 2))
    mean = sum(squares[..., shift : shift + channels] for shift in range(size)) / size
    return x / (1 + alpha * mean.movedim(-1, 1)) ** beta


def _conv_norm(spatial_dims: int, before: int, after: int) -> list[nn.Module]:
    norm = BATCH_NORM[spatial_dims](after)
    nn.init.constant_(norm.bias, 0.001)
    return [CONV[spatial_dims](before, after, 7, padding=3), norm]
