"""Top-k images of bottom-all-but-σ pixels: an envelope around a pixel loss (Diagnostics 2025, 15(17), 2189).

The largest pixel losses of an image are suspected of being wrong labels and dropped; the images with the largest losses
are the hard ones and kept. The opposite of `topk_cross_entropy` at the level of pixels. The functions take any map of
pixel losses; so does the registered loss.

Known, from the paper's abstract and introduction: the two levels and their motives, that hard selection makes the
derivative discontinuous, and that a smoothing of the derivative is introduced. Reconstruction: all formulas, the three
readings of σ, the logistic, and every default.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.checks import at_share, check_choice, check_number, check_ramped
from lib.losses.cross_entropy import CrossEntropy
from lib.losses.pixel import PixelLoss
from lib.losses.topk_cross_entropy import weights_of_largest
from lib.registry import register

NAME = "topk_bottom_all_but_sigma"
SIGMA_MODES = ("fraction", "count", "std")


@register("topk_bottom_all_but_sigma")
class TopKBottomAllButSigma(nn.Module):
    """A pixel loss of all but the most suspect pixels, of the hardest images of the batch.

    Per image i with P pixel losses l:  L_i = sum_p w l / sum_p w,  w = 0 for the dropped pixels and 1 for the others;
    loss = sum_i v_i L_i / sum_i v_i,  v = 1 for the max(1, round(keep_images B)) images with the largest L_i. Ties for
    the last place share it. keep_images: 1 with drop_pixels: 0 is the plain pixel loss.

    of: the pixel loss, an entry of the catalogue; cross-entropy by default.
    keep_images: share of the batch that is kept. A batch of one image always keeps it: the image level is then off.
    drop_pixels: σ. With sigma_mode `fraction`, the share of the pixels of each image that is dropped; with `count`,
        their number (an image keeps at least one pixel); with `std`, pixels above mean + σ std of the image's losses.
    beta: 0 selects hard: the derivative jumps as a pixel enters or leaves. Above 0, weights are logistic:
        w = sigmoid((tau - l) / (beta std(l))), tau half-way between the last pixel kept and the first dropped (`std`:
        the threshold), and likewise v = sigmoid((L_i - tau) / (beta std(L))). beta -> 0 recovers hard selection.
    Weights carry no gradient: a pixel's derivative is w / sum w, never negative, whereas that of w itself would push
    the losses of suspects up. With beta > 0, finite differences of the loss therefore do not equal its gradient.
    How well losses tell wrong labels from hard pixels depends on images and network. With 3 % of labels flipped at
    random and an ideal classifier of single pixels, 99 % of the pixels dropped were flipped where classes overlap in
    0.1 % of pixels, 90 % at 2.3 %, 45 % at 16 %. With a small U-Net, which sees neighbourhoods, trained with the
    envelope: 90 % at 2.3 % and 16 %, against 75 % when trained with plain cross-entropy (tests).
    keep_images and drop_pixels may be ramps over the training: {from: 1, to: 0.5, start: 0.15, end: 1} keeps all images
    for the first 15 % of the iterations, when losses say little about the labels, then ever fewer, down to half.
    Ignored pixels are never selected, nor counted among the P pixels of an image.
    Cite: topk2025
    """

    def __init__(
        self,
        keep_images: float = 0.5,
        drop_pixels: float = 0.03,
        sigma_mode: str = "fraction",
        beta: float = 0.0,
        of: PixelLoss | None = None,
    ):
        super().__init__()
        check_choice(NAME, "sigma_mode", sigma_mode, SIGMA_MODES)
        check_ramped(NAME, "keep_images", keep_images, 0, 1)
        check_ramped(NAME, "drop_pixels", drop_pixels, 0)
        check_number(NAME, "beta", beta, 0)
        if 0 in _ends(keep_images):
            raise BadInput(f"The loss '{NAME}' with keep_images: 0 keeps nothing; give a share up to 1.")
        for dropped in _ends(drop_pixels):
            if sigma_mode == "fraction" and dropped >= 1:
                raise BadInput(
                    f"The loss '{NAME}' cannot drop the fraction {dropped} of the pixels: give drop_pixels below 1, or "
                    "sigma_mode: count."
                )
            if sigma_mode == "count" and dropped != int(dropped):
                raise BadInput(
                    f"The loss '{NAME}' with sigma_mode: count needs a whole number of drop_pixels, not {dropped}."
                )
        self.of = of or CrossEntropy()
        self.keep_images, self.drop_pixels, self.sigma_mode, self.beta = keep_images, drop_pixels, sigma_mode, beta

    def forward(
        self, logits: Tensor, target: Tensor, valid: Tensor | None = None, share: float = 1.0, **batch
    ) -> Tensor:
        loss = self.of.pixel_map(logits, target, valid=valid, share=share, **batch)
        keep, drop = at_share(self.keep_images, share), at_share(self.drop_pixels, share)
        return envelope(loss, keep, drop, self.sigma_mode, self.beta, valid)


def envelope(
    loss: Tensor, keep_images: float, drop_pixels: float, sigma_mode: str, beta: float, valid: Tensor | None = None
) -> Tensor:
    """The envelope around a map of pixel losses (B, *S), at the pixels of the mask if there is one; a scalar."""
    if valid is not None:  # images with unequal numbers of pixels
        each = [image[mask].unsqueeze(0) for image, mask in zip(loss, valid, strict=True) if mask.any()]
        if not each:
            return loss.sum() * 0
        images = torch.cat([image_losses(image, drop_pixels, sigma_mode, beta) for image in each])
    else:
        images = image_losses(loss.flatten(1), drop_pixels, sigma_mode, beta)
    image = image_weights(images.detach(), keep_images, beta)
    return (image * images).sum() / image.sum()


def image_losses(loss: Tensor, drop_pixels: float, sigma_mode: str, beta: float) -> Tensor:
    """L (B,) of pixel losses (B, P)."""
    pixel = pixel_weights(loss.detach(), drop_pixels, sigma_mode, beta)
    return (pixel * loss).sum(1) / pixel.sum(1)


def pixel_weights(loss: Tensor, drop_pixels: float, sigma_mode: str, beta: float) -> Tensor:
    """Weights (B, P) of pixel losses (B, P), low for the largest of each image."""
    if sigma_mode == "std":
        threshold = loss.mean(1, keepdim=True) + drop_pixels * loss.std(1, correction=0, keepdim=True)
        threshold = torch.maximum(threshold, loss.amin(1, keepdim=True))  # equal losses: none is above, whatever rounds
        return (loss <= threshold).to(loss.dtype) if beta == 0 else _logistic(threshold - loss, loss, beta)

    pixels = loss.shape[1]
    dropped = int(drop_pixels) if sigma_mode == "count" else int(drop_pixels * pixels + 0.5)
    dropped = min(dropped, pixels - 1)
    if dropped == 0:
        return torch.ones_like(loss)
    if beta == 0:
        return 1 - weights_of_largest(loss, dropped)
    return _logistic(_between(loss, dropped) - loss, loss, beta)


def image_weights(losses: Tensor, keep_images: float, beta: float) -> Tensor:
    """Weights (B,) of image losses (B,), high for the largest of the batch."""
    kept = max(1, int(keep_images * len(losses) + 0.5))
    if kept == len(losses):
        return torch.ones_like(losses)
    if beta == 0:
        return weights_of_largest(losses, kept)
    return _logistic(losses - _between(losses, kept), losses, beta)


def _ends(value: float | dict) -> tuple[float, ...]:
    return (value["from"], value["to"]) if isinstance(value, dict) else (value,)


def _between(values: Tensor, count: int) -> Tensor:
    """Half-way between the `count`-th and the next largest along the last axis, (…, 1)."""
    return values.topk(count + 1, dim=-1).values[..., -2:].mean(-1, keepdim=True)


def _logistic(margin: Tensor, values: Tensor, beta: float) -> Tensor:
    temperature = beta * values.std(-1, correction=0, keepdim=True)
    return torch.sigmoid(margin / temperature.clamp(min=torch.finfo(values.dtype).tiny))
