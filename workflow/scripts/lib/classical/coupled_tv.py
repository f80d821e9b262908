"""Coupled denoising and segmentation as a method: the few intensities of an image are its levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.classical import Remember, Subject
from lib.classical.levels import LevelMethod, best_mapping
from lib.registry import register
from lib.total_variation import check_parameters, coupled


@register("coupled_tv")
class CoupledTV(LevelMethod):
    """Coupled denoising and segmentation by total variation over few intensities.

    levels: K, None for one per class. noise: gaussian or rayleigh. weight: λ, or a list of which the one with the
    highest mean Dice on the training patients is taken. sigma: of Gaussian noise, None for an estimate per image.
    diagonal: 8 neighbours (26 in 3D) instead of 4 (6). rounds: at most so many label updates. channel: of the image.

    Energy and units are those of `lib.total_variation`. Where networks see slices, neighbours are those within a slice,
    and all slices of a case share the levels.

    Cite: tuysuzoglu2012, darbon2006, ishikawa2003
    """

    def __init__(
        self,
        levels: int | None = None,
        noise: str = "gaussian",
        weight: float | list[float] = 1.0,
        sigma: float | None = None,
        diagonal: bool = True,
        rounds: int = 10,
        channel: int = 0,
    ):
        super().__init__(levels, channel)
        check_parameters(noise, weight, sigma, rounds)
        self.noise, self.sigma, self.diagonal, self.rounds = noise, sigma, bool(diagonal), rounds
        self.weights = weight if isinstance(weight, list) else [weight]
        self.weight = self.weights[0]

    def fit(self, training: Sequence[Subject], classes: int, remember: Remember) -> dict:
        self.set_levels(classes)
        found = []
        for weight in self.weights:
            self.weight = weight
            counts = self.counts(training, classes, remember, f"weight{weight:g}")
            found.append((*best_mapping(counts), weight))
            print(f"weight {weight:g}: Dice {found[-1][1]:.4f} on the training patients")
        self.mapping, dice, self.weight = max(found, key=lambda entry: entry[1])
        return {"mapping": self.mapping.tolist(), "weight": self.weight, "training_dice": dice}

    def divide(self, image: np.ndarray, inside: np.ndarray, spacing: Sequence[float], slices: bool) -> np.ndarray:
        labels = np.zeros(inside.shape, np.uint8)
        labels[inside] = coupled(
            image[self.channel],
            inside,
            spacing,
            0 if slices else None,
            levels=self.levels,
            noise=self.noise,
            weight=self.weight,
            sigma=self.sigma,
            diagonal=self.diagonal,
            rounds=self.rounds,
        ).labels
        return labels
