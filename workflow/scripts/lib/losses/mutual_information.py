"""IM-Net's auxiliary term: mutual information between the network's features and its input (Sun & Yuan, KSEM 2020)."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import BadInput
from lib.losses.checks import check_number
from lib.registry import register


@register("mutual_information")
class MutualInformation(nn.Module):
    """Minus half the Jensen-Shannon mutual information of features and input, estimated by binary cross-entropy:

        L = 1/2 (mean softplus(-T(h, s)) + mean softplus(T(h', s))),   T(h, s) = h^T W s + b,

    s (B, width): sigmoid of the projected mean, over positions, of the network's deepest features; h: embeddings of
    3 x 3 neighbourhoods of the same input image; h': those of the next image of the batch or, in a batch of one, of the
    image with its pixels shuffled. A term of a sum: {sum: {dice_ce: 1, mutual_information: 0.1}}. Its parameters (two
    embeddings, W and b) train with the network and are not saved with it: predictions cost the same.
    The network names the module whose output is its features (`deepest`); its gradient reaches the network there.
    width: of h and s. positions: about so many per image enter, on a regular grid at a random offset. Cost: on one core
    some 10 ms per step of 8 images of 80 x 80.
    Known: mutual information between extracted feature and input image, "binary cross entropy with logits estimation",
    a "bilinear" discriminator. Reconstruction, after Deep Graph Infomax: the bilinear form, global against local, the
    negatives, where the features are taken, and the weight. L = log 2 where nothing is known of the input, and
    DIM's (Hjelm 2018) estimate is 2 log 2 - 2 L.
    Cite: sun2020
    """

    def __init__(
        self,
        width: int = 64,
        positions: int = 1024,
        spatial_dims: int | None = None,
        image_channels: int | None = None,
        feature_channels: int | None = None,
    ):
        super().__init__()
        check_number("mutual_information", "width", width, 1)
        check_number("mutual_information", "positions", positions, 1)
        if None in (spatial_dims, image_channels, feature_channels):
            raise BadInput("The loss 'mutual_information' needs the sizes of the network's input and features.")
        self.positions = positions
        self.embed = nn.Sequential(
            nn.Linear(3**spatial_dims * image_channels, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.project = nn.Linear(feature_channels, width)
        self.score = nn.Bilinear(width, width, 1)
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def auxiliary(self, image: Tensor, features: Tensor) -> Tensor:
        """image (B, channels, *S), features (B, feature_channels, *s) of any float type; a scalar."""
        features, image = features.to(self.project.weight.dtype), image.to(self.project.weight.dtype)
        s = self.project(features.flatten(2).mean(2)).sigmoid()
        if len(image) > 1:
            h = self.embed(neighbourhoods(image, self.positions))
            other = h.roll(1, 0)
        else:
            order = torch.randperm(image[0, 0].numel()).to(image.device)
            shuffled = image.flatten(2)[:, :, order].view_as(image)
            h, other = self.embed(neighbourhoods(torch.cat([image, shuffled]), self.positions)).split(1)
        return bce_estimate(self.scores(h, s), self.scores(other, s))

    def scores(self, h: Tensor, s: Tensor) -> Tensor:
        """T of h (B, positions, width) with s (B, width) of the same image: (B, positions).

        `self.score(h, s)`, but W s is taken once per image, which is tens of times faster.
        """
        return (h @ (s @ self.score.weight[0].T).unsqueeze(2)).squeeze(2) + self.score.bias


def neighbourhoods(image: Tensor, positions: int) -> Tensor:
    """(B, C, *S) to (B, about `positions`, 3^d C): 3 x 3 (x 3) pixels each, at a random offset of a regular grid.

    The offset is drawn from torch's generator on the CPU. Beyond the border the image is continued by its edge values.
    """
    size = image.shape[2:]
    step = max(1, math.ceil((math.prod(size) / positions) ** (1 / len(size)) - 1e-9))
    start = [int(torch.randint(min(step, n), ())) for n in size]
    padded = F.pad(image, [1, 1] * len(size), mode="replicate")
    shifts = itertools.product(range(3), repeat=len(size))
    parts = [
        padded[(..., *(slice(o + k, n + k, step) for o, k, n in zip(start, shift, size, strict=True)))].flatten(2)
        for shift in shifts
    ]
    return torch.cat(parts, 1).transpose(1, 2)


def bce_estimate(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy with logits of scores of true pairs (label 1) and of wrong ones (0), half from each."""
    return (F.softplus(-positive).mean() + F.softplus(negative).mean()) / 2
