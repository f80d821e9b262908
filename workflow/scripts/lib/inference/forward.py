"""Class probabilities of a whole image: every slice of it in 2-D, overlapping windows in 3-D.

Validation and prediction share this file.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.inference.device import autocast

VOXELS_PER_FORWARD = 2**19  # bounds memory; 8 slices of 256 x 256
OVERLAP = 0.5
GAUSSIAN_SIGMA = 1 / 8  # of the window, as in nnU-Net (Isensee et al. 2021)


@torch.no_grad()
def predict_probabilities(
    model: nn.Module,
    image: np.ndarray,
    patch: list[int],
    device: torch.device,
    precision: str = "float32",
    regions: list | None = None,
) -> np.ndarray:
    """Class probabilities of a stored image (channels, D,H,W) float32; returns (outputs, D,H,W) float32.

    They are the softmax of the logits, or, where the outputs are overlapping `regions`, the sigmoid of each.

    The network, in evaluation mode afterwards as before, sees 2-D slices along axis 0 at full size, or 3-D
    windows of the size of the training patch, half overlapping and weighted by a Gaussian. An image smaller
    than the patch is continued by its edge values, as in training.
    """
    training = model.training
    model.eval()
    run = _predict_slices if len(patch) == 2 else _predict_windows
    activation = torch.sigmoid if regions else functools.partial(torch.softmax, dim=1)

    def probabilities_of(batch: Tensor) -> Tensor:
        with autocast(batch.device, precision):
            logits = model(batch)
        return activation(logits.float())

    probabilities = run(probabilities_of, image, patch, device)
    model.train(training)
    return probabilities.cpu().numpy()


def _predict_slices(
    probabilities_of: Callable[[Tensor], Tensor], image: np.ndarray, patch: list[int], device: torch.device
) -> Tensor:
    depth, *size = image.shape[1:]
    padding, inside = _padding(size, patch)
    count = max(1, VOXELS_PER_FORWARD // math.prod(size))
    parts = []
    for first in range(0, depth, count):
        slices = torch.from_numpy(np.array(image[:, first : first + count])).movedim(1, 0)  # (N,C,H,W)
        slices = F.pad(slices.to(device), padding, mode="replicate")
        parts.append(probabilities_of(slices)[(..., *inside)])
    return torch.cat(parts).movedim(0, 1)


def _predict_windows(
    probabilities_of: Callable[[Tensor], Tensor], image: np.ndarray, patch: list[int], device: torch.device
) -> Tensor:
    padding, inside = _padding(image.shape[1:], patch)
    volume = torch.from_numpy(np.array(image)).to(device)[None]
    volume = F.pad(volume, padding, mode="replicate")[0]  # (C,D,H,W)
    weight = _gaussian_window(patch, device)
    starts = list(itertools.product(*(_starts(n, p) for n, p in zip(volume.shape[1:], patch, strict=True))))
    count = max(1, VOXELS_PER_FORWARD // math.prod(patch))
    total, weights = None, torch.zeros(volume.shape[1:], device=device)
    for first in range(0, len(starts), count):
        boxes = [
            tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True)) for start in starts[first : first + count]
        ]
        probabilities = probabilities_of(torch.stack([volume[(..., *box)] for box in boxes]))
        if total is None:
            total = torch.zeros((probabilities.shape[1], *volume.shape[1:]), device=device)
        for box, window in zip(boxes, probabilities, strict=True):
            total[(..., *box)] += window * weight
            weights[box] += weight
    return (total / weights)[(..., *inside)]


def _padding(size: list[int], least: list[int]) -> tuple[list[int], tuple[slice, ...]]:
    """F.pad's list (last axis first) that centres an image in `least` voxels, and the slices that undo it."""
    missing = [max(p - n, 0) for n, p in zip(size, least, strict=True)]
    padding = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]
    return padding, tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, size, strict=True))


def _starts(size: int, window: int) -> list[int]:
    """First voxels of windows, evenly spread, that overlap by OVERLAP or more and reach both ends."""
    steps = math.ceil((size - window) / (window * (1 - OVERLAP)))
    return [round(i * (size - window) / max(steps, 1)) for i in range(steps + 1)]


def _gaussian_window(window: list[int], device: torch.device) -> Tensor:
    weight = torch.ones((), dtype=torch.float64)
    for n in window:
        distance = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
        weight = weight[..., None] * torch.exp(-0.5 * (distance / (n * GAUSSIAN_SIGMA)) ** 2)
    return weight.float().to(device)
