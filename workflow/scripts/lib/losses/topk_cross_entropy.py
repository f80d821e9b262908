"""Top-k cross-entropy: only the hardest pixels count. The opposite of `topk_bottom_all_but_sigma`, which drops them."""

from __future__ import annotations

from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.checks import check_number
from lib.losses.cross_entropy import cross_entropy_map
from lib.registry import register


@register("topk_cross_entropy")
class TopKCrossEntropy(nn.Module):
    """The mean of the largest cross-entropies of the batch (nnU-Net's TopKLoss; online bootstrapping, Wu 2016).

    keep_pixels: the share that counts, of all pixels of the batch together but the ignored: floor(share * pixels), at
    least one. 0.1 is nnU-Net's k = 10 %; 1 is cross-entropy. Pixels that tie for the last place share it, so that the
    order of pixels and images never matters, and results on CUDA are deterministic.
    Cite: wu2016
    """

    def __init__(self, keep_pixels: float = 0.1):
        super().__init__()
        check_number("topk_cross_entropy", "keep_pixels", keep_pixels, 0, 1)
        if keep_pixels == 0:
            raise BadInput("The loss 'topk_cross_entropy' with keep_pixels: 0 keeps nothing; give a share up to 1.")
        self.keep_pixels = keep_pixels

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        loss = cross_entropy_map(logits, target)
        loss = loss.flatten() if valid is None else loss[valid]
        if not len(loss):
            return logits.sum() * 0
        kept = max(1, int(self.keep_pixels * len(loss) + 1e-9))  # 0.29 * 100 is 28.999…
        return (weights_of_largest(loss.detach(), kept) * loss).sum() / kept


def weights_of_largest(values: Tensor, count: int) -> Tensor:
    """1 for the `count` largest along the last axis, 0 for the others; those that tie for the last places share them.

    Takes (…, N) and 1 <= count <= N; the weights have the same shape and type, and sum to `count` along the last axis.
    """
    last = values.topk(count, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above, ties = values > last, values == last
    share = (count - above.sum(-1, keepdim=True)) / ties.sum(-1, keepdim=True)
    return above + share.to(values.dtype) * ties
