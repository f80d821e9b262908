"""Cross-entropy, plain or with one weight per class.

`F.cross_entropy` on maps raises on CUDA under deterministic algorithms (NLLLoss); `-log_softmax.gather` does
not.
"""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from lib.errors import BadInput
from lib.losses.pixel import PixelLoss, mean_over_valid
from lib.registry import did_you_mean, register

WEIGHTINGS = ("median_frequency", "inverse_frequency", "inverse_square_root", "enet")


@register("cross_entropy")
class CrossEntropy(PixelLoss):
    """Cross-entropy; with weights, sum_p w[y_p] CE(p) / sum_p w[y_p], torch's reduction="mean".

    weights: null (every pixel counts the same), a list of one weight per class (background first), or one of
    - `median_frequency` (SegNet, Badrinarayanan 2017; Eigen & Fergus 2015): w_c = median(f) / f_c, where
      f_c = voxels of class c / voxels of the training cases that contain c;
    - `inverse_frequency`: w_c = N / (C N_c) over the training cases of the fold;
    - `inverse_square_root`: w_c = 1 / sqrt(N_c / N);
    - `enet` (Paszke 2016): w_c = 1 / ln(1.02 + N_c / N), from 1.4 to 50.
    A class that no training case contains gets weight 0 and counts in neither the median nor C: nothing can
    be learnt about it. Where every pixel of a batch has weight 0, the loss is 0.
    The "weighted cross-entropy" of the Shallow SegNet paper has an unknown formula; `median_frequency`,
    SegNet's own, stands for it. Dividing by the sum of weights follows torch, not Caffe, which divides by the
    number of pixels.
    Cite: nothing, a textbook formula
    """

    def __init__(
        self,
        weights: str | list[float] | None = None,
        classes: int | None = None,
        class_frequencies: dict[str, list[int]] | None = None,
    ):
        super().__init__()
        values = None if weights is None else _weights(weights, classes, class_frequencies)
        self.register_buffer("weight", None if values is None else torch.tensor(values), persistent=False)

    def pixel_map(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        loss = cross_entropy_map(logits, target)
        if self.weight is None:
            return loss
        weight = self.weight.to(loss)[target]
        mean = mean_over_valid(weight, valid)
        return weight * loss / torch.where(mean > 0, mean, 1)


def cross_entropy_map(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax(logits)[target] per pixel: (B, C, *S) and (B, *S) int64 to (B, *S), float32 at least.

    Raises (on CUDA: asserts) where the target is outside [0, C).
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return -logits.log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)


def median_frequency_weights(class_frequencies: dict[str, list[int]]) -> list[float]:
    """median(f) / f_c with f_c = voxels of c / voxels of the cases that contain c; 0 for absent classes."""
    counts = zip(class_frequencies["voxels"], class_frequencies["voxels_of_cases_with_class"], strict=True)
    frequencies = [n / total if n else 0.0 for n, total in counts]
    median = statistics.median([f for f in frequencies if f > 0] or [0.0])
    return [median / f if f else 0.0 for f in frequencies]


def inverse_frequency_weights(class_frequencies: dict[str, list[int]]) -> list[float]:
    """N / (C N_c), with N_c voxels of class c, N of all and C classes present; 0 for absent classes."""
    voxels = class_frequencies["voxels"]
    present = sum(n > 0 for n in voxels)
    return [sum(voxels) / (present * n) if n else 0.0 for n in voxels]


def _weights(
    weights: str | list[float], classes: int | None, class_frequencies: dict[str, list[int]] | None
) -> list[float]:
    if isinstance(weights, str):
        if weights not in WEIGHTINGS:
            raise BadInput(
                f"The loss 'cross_entropy' has no weights '{weights}'.{did_you_mean(weights, WEIGHTINGS)} "
                "Or give a list of one weight per class."
            )
        if class_frequencies is None:
            raise BadInput(
                f"The loss 'cross_entropy' with weights: {weights} needs class_frequencies, the voxel "
                "counts of the training fold; none were given."
            )
        if weights == "median_frequency":
            return median_frequency_weights(class_frequencies)
        if weights == "inverse_frequency":
            return inverse_frequency_weights(class_frequencies)
        voxels = class_frequencies["voxels"]
        shares = [n / sum(voxels) for n in voxels]
        if weights == "enet":
            return [1 / math.log(1.02 + share) if share else 0.0 for share in shares]
        return [share**-0.5 if share else 0.0 for share in shares]

    if not isinstance(weights, list | tuple) or not all(_is_weight(w) for w in weights):
        raise BadInput(
            f"The loss 'cross_entropy' needs weights that are finite numbers of at least 0, one per class, "
            f"not {weights!r}."
        )
    if classes is not None and len(weights) != classes:
        raise BadInput(
            f"The loss 'cross_entropy' has {len(weights)} weights for {classes} classes: {weights}. "
            f"Give {classes}, the background first."
        )
    if not any(weights):
        raise BadInput("The loss 'cross_entropy' has weights that are all 0: nothing would be learnt.")
    return [float(w) for w in weights]


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
