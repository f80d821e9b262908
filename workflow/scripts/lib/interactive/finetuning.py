"""Image-specific fine-tuning: a network's last block and the labels of one crop, in turns.

Source: Wang et al., BIFSeg, IEEE TMI 37(7) 2018. What of it is certain, recalled or unknown: docs/interactive.md.

    argmin over y, θ of  Σ_i w(i) · (-log P(y_i | X, θ)) + λ Σ_{i<j neighbours} ψ(y_i, y_j | X),  y_i = s_i on scribbles

Label step (θ fixed, without w): an exact minimum cut. Network step (y fixed): gradient descent on the weighted
cross-entropy, of the classifier alone, on features that were computed once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lib.interactive import BACKGROUND, FOREGROUND
from lib.interactive.geodesic import geodesic_distance
from lib.interactive.graph_cut import Edges, minimum_cut
from lib.losses.cross_entropy import cross_entropy_map

CERTAIN = 1e-6  # probabilities are kept this far from 0 and 1, so that their logarithms are finite


def label_step(
    probability: np.ndarray, scribbles: np.ndarray, edges: Edges, smoothness: float, sigma: float
) -> np.ndarray:
    """The labels (*S) bool of least energy for the probability of the object (*S); scribbles (*S) uint8 hold.

    smoothness: λ. sigma: of the intensities of `edges`.
    """
    p = np.clip(probability.astype(np.float64), CERTAIN, 1 - CERTAIN)
    return minimum_cut(-np.log(np.stack([1 - p, p])), edges, smoothness * edges.weights(sigma), scribbles)


def contradicted(initial: np.ndarray, scribbles: np.ndarray, edges: Edges, epsilon: float) -> np.ndarray:
    """Where the scribbles (*S) contradict the `initial` labels (*S) bool: within a geodesic distance of epsilon, over
    `edges`, to a scribble of the other class. bool (*S)."""
    near = {mark: geodesic_distance(edges, scribbles == mark, epsilon) < epsilon for mark in (BACKGROUND, FOREGROUND)}
    return (near[FOREGROUND] & ~initial) | (near[BACKGROUND] & initial)


def certainty_weights(
    probability: np.ndarray, contradicted: np.ndarray, scribbles: np.ndarray, t0: float, t1: float, omega: float
) -> np.ndarray:
    """w (*S) float32 of the network step: how far the label of each pixel is to be trusted.

    omega on scribbles; 0 where they contradict the initial labels and where the network is uncertain,
    t0 < probability < t1; 1 elsewhere.
    """
    weights = np.ones(probability.shape, np.float32)
    weights[contradicted | ((t0 < probability) & (probability < t1))] = 0
    weights[scribbles != 0] = omega
    return weights


def network_step(
    classifier: nn.Module, features: Tensor, labels: np.ndarray, weights: np.ndarray, steps: int, rate: float
) -> None:
    """Gradient descent on the mean over pixels of w · cross-entropy, in place.

    classifier: of features (1, C, *W) to logits (1, 2, *W), in evaluation mode, so that nothing is dropped. labels
    (*W) bool, weights (*W) float32. No momentum, no weight decay.
    """
    target = torch.from_numpy(labels.astype(np.int64))[None].to(features.device)
    weights = torch.from_numpy(weights).to(features.device)
    parameters = list(classifier.parameters())
    for _ in range(steps):
        loss = (weights * cross_entropy_map(classifier(features), target)[0]).mean()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():  # not torch.optim, whose first step imports for a second while somebody waits
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=rate)
