"""Prototype network with adaptive local pooling (Ouyang et al., ECCV 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models.layers import he_init, norm, upsample_linear
from lib.registry import register

SMALL = 1e-5


@register("alpnet")
class ALPNet(nn.Module):
    """Each query pixel is compared with prototypes of the support, by cosine similarity of features.

    Known (Ouyang 2020 and its code): prototypes are means of features over the cells of a grid, taken where the mean
    of the class's mask exceeds `threshold`; the foreground has besides these local ones the global one, the mean over
    its mask; the background local ones only. A class scores sum_i softmax(s)_i s_i over its prototypes, with
    s = `scale` times the cosine. In training, the query with its predicted labels in turn segments the support
    (alignment).
    Shapes: query (Q, in_channels, H, W), support (N, in_channels, H, W) with label (N, H, W) int64 to logits
    (Q, classes, H, W), classes = 1 + `way`; H and W at least `stride` · `window`.
    Differs: the encoder. The paper's is a ResNet-101 pre-trained on COCO, whose weights are not to be had everywhere;
    here it is `depth` stages of two 3 × 3 convolutions with instance normalisation, from scratch, of width, 2 width, …
    channels; all but the first begin with a pooling by 2, so the stride is 2^(depth-1). Ours, too: a background that
    fills no cell to the threshold has its global prototype; local prototypes of all support slices are put together
    and the global one is the mean over them; ignored pixels belong to no class.
    way: structures at once. window: of the grid, in pixels of the features, in training and testing (the code: 4 and 2
    of 32 × 32 features).
    Cite: ouyang2020
    """

    def __init__(
        self,
        in_channels: int,
        way: int = 1,
        width: int = 16,
        depth: int = 3,
        window: int = 4,
        test_window: int = 2,
        threshold: float = 0.95,
        scale: float = 20.0,
    ):
        super().__init__()
        for name, value in (("width", width), ("depth", depth), ("window", window), ("test_window", test_window)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadInput(f"alpnet needs {name} as a whole number of at least 1, not {value!r}.")
        if not 0 < threshold <= 1 or scale <= 0:
            raise BadInput(f"alpnet needs threshold in (0, 1] and scale above 0, not {threshold!r} and {scale!r}.")
        self.classes, self.threshold, self.scale = way + 1, threshold, scale
        self.window, self.test_window = window, test_window
        widths = [width * 2**stage for stage in range(depth)]
        stages = []
        for stage, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False)):
            stages += [nn.MaxPool2d(2)] if stage else []
            for i, channels in enumerate((before, after)):
                stages += [nn.Conv2d(channels, after, 3, padding=1, bias=False), *norm("alpnet", "instance", 2, after)]
                last = stage == depth - 1 and i == 1
                stages += [] if last else [nn.ReLU()]  # cosines need both signs
        self.encoder = nn.Sequential(*stages)
        he_init(self)

    def forward(self, query: Tensor, image: Tensor, label: Tensor, align: bool = False) -> Tensor | tuple:
        features = self.encoder(torch.cat([image, query]))
        support, of_query = features[: len(image)], features[len(image) :]
        window = self.window if self.training else self.test_window
        scores = self.compare(of_query, support, label, window)
        logits = upsample_linear(scores, query.shape[2:])
        if not align:
            return logits
        back = self.compare(support, of_query, logits.argmax(1), window)
        return logits, upsample_linear(back, image.shape[2:])

    def compare(self, query: Tensor, support: Tensor, label: Tensor, window: int) -> Tensor:
        """Scores (Q, classes, h, w) of features (Q, K, h, w), by features (N, K, h, w) with labels (N, H, W)."""
        size = support.shape[2:]
        query = F.normalize(query, dim=1, eps=SMALL)
        scores = []
        for c in range(self.classes):
            mask = upsample_linear((label == c).to(support).unsqueeze(1), size)
            prototypes = adaptive_prototypes(support, mask, window, self.threshold, with_global=c > 0)
            similarity = self.scale * torch.einsum("qkhw,pk->qphw", query, F.normalize(prototypes, dim=1, eps=SMALL))
            scores.append((similarity.softmax(1) * similarity).sum(1))
        return torch.stack(scores, dim=1)


def adaptive_prototypes(features: Tensor, mask: Tensor, window: int, threshold: float, with_global: bool) -> Tensor:
    """(P, K): the means of features (N, K, h, w) over cells where that of mask (N, 1, h, w) exceeds `threshold`.

    Cells are `window` × `window`; incomplete ones at the end are left out. The mean over the whole mask comes last,
    `with_global` or where no cell is full enough; it is 0 for an empty mask.
    """
    means = F.avg_pool2d(features, window).movedim(1, -1).reshape(-1, features.shape[1])
    full = F.avg_pool2d(mask, window).flatten() > threshold
    local = means[full]
    if not with_global and len(local):
        return local
    whole = (features * mask).sum((0, 2, 3)) / (mask.sum() + SMALL)
    return torch.cat([local, whole[None]])
