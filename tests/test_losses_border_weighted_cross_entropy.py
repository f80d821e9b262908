"""U-Net's weight map: by hand, by brute force over all objects, and the loss that it weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from lib.errors import BadInput
from lib.losses import build_loss
from lib.losses.border_weighted_cross_entropy import border_weights

NAME = "border_weighted_cross_entropy"


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A label map of many objects of two classes, some of which touch."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.digitize(noise / noise.std(), [0.8, 1.6])


def brute_force(labels: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Whole-image distances to every object, sorted."""
    distances = []
    for c in range(1, labels.max() + 1):
        components, count = ndimage.label(labels == c, np.ones([3] * labels.ndim))
        distances += [ndimage.distance_transform_edt(components != i) for i in range(1, count + 1)]
    if len(distances) < 2:
        return np.ones(labels.shape)
    d1, d2 = np.sort(distances, 0)[:2]
    return 1 + w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))


def test_weights_by_hand():
    """Two objects of one class in a row, two pixels apart: d1 + d2 = 3, 3 in the gap, and 0 + 3, 0 + 4 inside."""
    weights = border_weights(np.array([[1, 1, 0, 0, 1]]), 10, 5)
    sums = np.array([4, 3, 3, 3, 3])
    np.testing.assert_allclose(weights[0], 1 + 10 * np.exp(-(sums**2) / 50))
    touching = border_weights(np.array([[1, 1, 2, 0]]), 10, 5)  # classes are objects of their own
    np.testing.assert_allclose(touching[0], 1 + 10 * np.exp(-np.square([2, 1, 1, 3]) / 50))
    diagonal = border_weights(np.array([[1, 0], [0, 1]]), 10, 5)  # one object
    assert (diagonal == 1).all()


@pytest.mark.parametrize("shape", [(60, 50), (14, 20, 18), (3, 200)], ids=str)
@pytest.mark.parametrize("sigma", [0.7, 2, 5])
def test_weights_equal_brute_force(sigma, shape):
    for seed in range(2):
        labels = blobs(shape, seed)
        np.testing.assert_allclose(border_weights(labels, 10, sigma), brute_force(labels, 10, sigma), rtol=1e-7)


@pytest.mark.parametrize("shape", [(2, 3, 30, 25), (2, 3, 9, 10, 8)], ids=str)
def test_value_is_the_weighted_mean(shape):
    labels = np.stack([blobs(shape[2:], seed) for seed in range(2)])
    target = torch.from_numpy(labels)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = np.stack([brute_force(image, 4, 3) for image in labels])
    expected = (torch.from_numpy(weights) * F.cross_entropy(logits, target, reduction="none")).mean().item()
    loss = build_loss({"name": NAME, "w0": 4, "sigma": 3})
    assert weights.max() > 2
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-7)
    assert loss(logits.float(), target).item() == pytest.approx(expected, rel=1e-6)
    assert loss(logits[[1, 0]], target[[1, 0]]).item() == pytest.approx(expected, rel=1e-7)


def test_fewer_than_two_objects_or_no_w0_is_cross_entropy():
    logits = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = torch.zeros(1, 12, 12, dtype=torch.int64)
    one[:, 3:6, 3:6] = 2
    for recipe, target in [({}, one), ({}, one * 0), ({"w0": 0}, torch.from_numpy(blobs((1, 12, 12))))]:
        loss = build_loss({"name": NAME, **recipe})(logits, target)
        assert loss.item() == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-12)


def test_gradient_in_float64_and_16_bits():
    target = torch.tensor([[[1, 0, 2, 2], [1, 0, 0, 0], [0, 0, 1, 1]]])
    logits = torch.randn(1, 3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    loss = build_loss({"name": NAME})
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits)
    half = (logits.detach() * 1e4).bfloat16().requires_grad_()
    value = loss(half, target)
    assert value.dtype == torch.float32
    assert torch.autograd.grad(value, half)[0].isfinite().all()
    assert 0 <= loss(50.0 * F.one_hot(target, 3).movedim(-1, 1), target).item() < 1e-6


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"w0": -1}, "needs w0 to be a number of at least 0, not -1"),
        ({"sigma": 0}, "needs sigma to be a number of at least 0.1, not 0"),
        ({"sigma": math.nan}, "needs sigma .*not nan"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_loss({"name": NAME, **recipe})
