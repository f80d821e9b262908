"""Similarity coefficients of two sets as losses: Dice, Jaccard, Tversky, F-beta, generalised Dice, Kulczynski,
Ochiai, Sokal-Sneath and Matthews (one family; see Marquez Herrera, CLEI EJ 23(1) 2020, for binary volumes).

For a class with probabilities p (softmax) and one-hot reference g, soft sizes over the pixels of one image or of the
whole batch:  a = sum p g,  b = sum p (1 - g) (false positives),  c = sum (1 - p) g (missed),  d = the rest. The loss is
1 - S(a + smooth, b, c, d), averaged over classes. What all of them share:

background: whether class 0 counts as a class. Without it, it matters only through the others' false positives.
over: `batch` sums over all images of a batch; `image` within each, then averages. Slices of a volume often lack a
    class, and then only `batch` sees its false positives (nnU-Net sums over the batch in 2-D too).
smooth: pixels added to a (for Matthews to d as well), above and below, so that 0/0 is a perfect score.
empty: a class that the reference of the image (batch) lacks. `skip` leaves it out of the mean, as nothing to find;
    `count` keeps S as it is: with a small `smooth` about 0 as soon as anything is predicted, with little gradient.
Where no class counts, the loss is 0. No parameters, no gradient through the reference. Every operation is
deterministic on CUDA: sums over a dense one-hot map, not scatter_add. The backward pass keeps two maps (B, C, *S).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.checks import check_choice, check_number
from lib.registry import register

OVER = ("batch", "image")
EMPTY = ("skip", "count")


@register("dice")
def dice(
    squared: bool = False, background: bool = False, over: str = "batch", smooth: float = 1e-5, empty: str = "skip"
) -> nn.Module:
    """Dice (Sørensen): S = 2a / (2a + b + c).

    squared: S = 2 sum p g / (sum p^2 + sum g^2), the V-Net form (Milletari 2016).
    The other parameters: see the family. `smooth` counts in a: other libraries' 2a + s is smooth = s / 2.
    Cite: milletari2016
    """
    return Similarity("dice", weighted_overlap(0.5, 0.5), background, over, smooth, empty, squared)


@register("jaccard")
def jaccard(
    squared: bool = False, background: bool = False, over: str = "batch", smooth: float = 1e-5, empty: str = "skip"
) -> nn.Module:
    """Jaccard (intersection over union): S = a / (a + b + c).

    squared: S = sum p g / (sum p^2 + sum g^2 - sum p g), the Tanimoto coefficient of real vectors.
    The other parameters: see the family.
    Cite: rahman2016
    """
    return Similarity("jaccard", weighted_overlap(1, 1), background, over, smooth, empty, squared)


@register("tversky")
def tversky(
    alpha: float = 0.3,
    beta: float = 0.7,
    background: bool = False,
    over: str = "batch",
    smooth: float = 1e-5,
    empty: str = "skip",
) -> nn.Module:
    """Tversky: S = a / (a + alpha b + beta c) (Salehi 2017, whose best pair is the default).

    alpha weights false positives, beta missed pixels; 0.5 and 0.5 is Dice, 1 and 1 Jaccard.
    The other parameters: see the family.
    Cite: salehi2017
    """
    for key, value in (("alpha", alpha), ("beta", beta)):
        check_number("tversky", key, value, 0)
    return Similarity("tversky", weighted_overlap(alpha, beta), background, over, smooth, empty)


@register("f_beta")
def f_beta(
    beta: float = 1.5, background: bool = False, over: str = "batch", smooth: float = 1e-5, empty: str = "skip"
) -> nn.Module:
    """F-beta, the asymmetric similarity loss: S = (1 + beta^2) a / ((1 + beta^2) a + b + beta^2 c) (Hashemi 2018).

    beta: how many times recall matters more than precision; 1 is Dice. The default, 1.5, is recalled, not checked, as
    the best of that paper. The other parameters: see the family.
    Cite: hashemi2019
    """
    check_number("f_beta", "beta", beta, 0)
    share = beta**2 / (1 + beta**2)
    return Similarity("f_beta", weighted_overlap(1 - share, share), background, over, smooth, empty)


@register("sokal_sneath")
def sokal_sneath(background: bool = False, over: str = "batch", smooth: float = 1e-5, empty: str = "skip") -> nn.Module:
    """Sokal-Sneath 1: S = a / (a + 2 (b + c)). The parameters: see the family.

    Cite: marquez2020
    """
    return Similarity("sokal_sneath", weighted_overlap(2, 2), background, over, smooth, empty)


@register("kulczynski")
def kulczynski(background: bool = False, over: str = "batch", smooth: float = 1e-5, empty: str = "skip") -> nn.Module:
    """Kulczynski 2, the mean of precision and recall: S = (a / (a + b) + a / (a + c)) / 2.

    The parameters: see the family.
    Cite: marquez2020
    """

    def loss(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return (b / (a + b) + c / (a + c)) / 2

    return Similarity("kulczynski", loss, background, over, smooth, empty)


@register("ochiai")
def ochiai(background: bool = False, over: str = "batch", smooth: float = 1e-5, empty: str = "skip") -> nn.Module:
    """Ochiai (cosine), the geometric mean of precision and recall: S = a / sqrt((a + b) (a + c)).

    The parameters: see the family.
    Cite: marquez2020
    """

    def loss(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return 1 - a / ((a + b) * (a + c)).sqrt()

    return Similarity("ochiai", loss, background, over, smooth, empty)


@register("mcc")
def mcc(background: bool = False, over: str = "batch", smooth: float = 1e-5, empty: str = "skip") -> nn.Module:
    """Matthews correlation: S = (a d - b c) / sqrt((a + b) (a + c) (d + b) (d + c)), from -1 to 1 (Abhishek 2021).

    The one that counts true negatives; one value per class, not the multi-class R_K. The parameters: see the family.
    Cite: abhishek2021
    """

    def loss(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        a, b, c, d = (size / (a + b + c + d).detach() for size in (a, b, c, d))  # products of sizes overflow in 3-D
        return 1 - (a * d - b * c) / (((a + b) * (a + c)).sqrt() * ((d + b) * (d + c)).sqrt())

    return Similarity("mcc", loss, background, over, smooth, empty)


@register("generalised_dice")
class GeneralisedDice(nn.Module):
    """Generalised Dice: 1 - 2 sum_c w_c a_c / sum_c w_c (2 a_c + b_c + c_c),  w_c = 1 / (sum g_c)^2 (Sudre 2017).

    Classes are pooled, not averaged, so the background (class 0) takes part by default. Classes that the reference of
    the image (batch) lacks have no weight and are left out. background, over: see the family.
    Cite: sudre2017
    """

    def __init__(self, background: bool = True, over: str = "batch"):
        super().__init__()
        check_overlap("generalised_dice", over=over)
        self.background, self.over = background, over

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        p, g = probabilities_and_one_hot(logits, target, valid)
        both, predicted, reference = (pixel_sums(x, self.over)[:, not self.background :] for x in (p * g, p, g))
        weight = torch.where(reference > 0, reference.clamp(min=1) ** -2, 0)
        wrong = (weight * (predicted + reference - 2 * both)).sum(1)
        total = (weight * (predicted + reference)).sum(1)
        some = total > 0
        return torch.where(some, wrong / torch.where(some, total, 1), 0).sum() / some.sum().clamp(min=1)


class Similarity(nn.Module):
    """The mean over classes of `loss`: 1 - S as a function of the sizes a, b, c, d, tensors (images or 1, C)."""

    def __init__(
        self,
        name: str,
        loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        background: bool,
        over: str,
        smooth: float,
        empty: str,
        squared: bool = False,
    ):
        super().__init__()
        check_overlap(name, over=over, empty=empty, smooth=smooth)
        self.loss, self.background, self.over = loss, background, over
        self.smooth, self.empty, self.squared = smooth, empty, squared

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None, **batch) -> Tensor:
        p, g = probabilities_and_one_hot(logits, target, valid)
        both = pixel_sums(p * g, self.over)  # (images or 1, C)
        predicted = pixel_sums(p * p if self.squared else p, self.over)
        reference = pixel_sums(g, self.over)
        pixels = target.numel() // len(both)
        if valid is not None:
            pixels = pixel_sums(valid.unsqueeze(1).to(p), self.over)

        b, c = predicted - both, reference - both
        d = pixels - both - b - c
        loss = self.loss(both + self.smooth, b, c, d + self.smooth)
        return mean_over_classes(loss, reference, self.background, self.empty)


def weighted_overlap(false_positives: float, missed: float) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """1 - a / (a + false_positives b + missed c), as a function of the sizes a, b, c, d."""

    def loss(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        wrong = false_positives * b + missed * c
        return wrong / (a + wrong)

    return loss


def probabilities_and_one_hot(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(logits) and the reference as maps (B, C, *S) of one type, float32 at least; both 0 where not valid.

    Raises (on CUDA: asserts) where the target is outside [0, C).
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    one_hot = torch.zeros_like(logits.detach()).scatter_(1, target.unsqueeze(1), 1)
    if valid is None:
        return logits.softmax(1), one_hot
    valid = valid.unsqueeze(1).to(logits.dtype)
    return logits.softmax(1) * valid, one_hot * valid


def pixel_sums(maps: Tensor, over: str) -> Tensor:
    """Sums of maps (B, C, *S) over pixels, and over images with over="batch": (B, C) or (1, C)."""
    sums = maps.flatten(2).sum(2)
    return sums.sum(0, keepdim=True) if over == "batch" else sums


def mean_over_classes(loss: Tensor, reference: Tensor, background: bool, empty: str) -> Tensor:
    """The mean of losses (images or 1, C) over the classes that count; 0 where none does.

    reference: the size of each class there; `empty` and `background` as in the family.
    """
    counts = reference > 0 if empty == "skip" else torch.ones_like(reference, dtype=torch.bool)
    loss, counts = loss[:, not background :], counts[:, not background :]
    return torch.where(counts, loss, 0).sum() / counts.sum().clamp(min=1)


def check_overlap(name: str, over: str = "batch", empty: str = "skip", smooth: float = 1.0) -> None:
    """Raise BadInput for a bad value of the parameters that overlap losses share."""
    check_choice(name, "over", over, OVER)
    check_choice(name, "empty", empty, EMPTY)
    check_number(name, "smooth", smooth, 0)
    if smooth == 0:
        raise BadInput(f"The loss '{name}' needs smooth above 0 pixels (0/0 otherwise), for example 1.0e-5.")
