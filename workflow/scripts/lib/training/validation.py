"""Mean foreground Dice of the validation patients, on whole images in the grid that the network sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lib.data.store import IGNORE
from lib.inference.forward import predict_probabilities
from lib.training.sampler import TrainingCase


def mean_dice(
    model: nn.Module,
    cases: list[TrainingCase],
    patch: list[int],
    device: torch.device,
    precision: str,
    interrupted: Callable[[], bool],
    regions: list[list[int]] | None = None,
) -> float:
    """Mean over cases of `foreground_dice`, or `region_dice`; raises InterruptedError once `interrupted()`."""
    scores = []
    for case in cases:
        if interrupted():
            raise InterruptedError
        probabilities = predict_probabilities(model, case.image, patch, device, precision, regions)
        known = case.label != IGNORE
        if regions:
            scores.append(region_dice(probabilities[:, known] > 0.5, case.label[known], regions))
        else:
            scores.append(foreground_dice(probabilities.argmax(axis=0)[known], case.label[known], len(probabilities)))
    return float(np.mean(scores))


def foreground_dice(prediction: np.ndarray, reference: np.ndarray, classes: int) -> float:
    """Mean Dice over the foreground classes that `prediction` or `reference` has; 1 where there are none."""
    pairs = np.bincount(
        reference.ravel().astype(np.int64) * classes + prediction.ravel(), minlength=classes * classes
    ).reshape(classes, classes)
    size = pairs.sum(axis=0) + pairs.sum(axis=1)
    present = np.flatnonzero(size[1:]) + 1
    if not len(present):
        return 1.0
    return float(np.mean(2 * pairs[present, present] / size[present]))


def region_dice(prediction: np.ndarray, reference: np.ndarray, regions: list[list[int]]) -> float:
    """Mean Dice of `prediction` (R, N) bool over the regions, unions of classes, that either side has; 1 for none."""
    scores = []
    for inside, classes in zip(prediction, regions, strict=True):
        truth = np.isin(reference, classes)
        if size := np.count_nonzero(inside) + np.count_nonzero(truth):
            scores.append(2 * np.count_nonzero(inside & truth) / size)
    return float(np.mean(scores)) if scores else 1.0
