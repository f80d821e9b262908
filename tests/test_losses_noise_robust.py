"""Noise-robust losses: values by hand, brute-force NumPy, limits, and gradients that wrong labels cannot dominate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.errors import BadInput
from lib.losses import build_loss

SHAPES = [(3, 4, 13, 10), (2, 4, 6, 7, 9)]
FAMILY = ("generalised_cross_entropy", "symmetric_cross_entropy", "nr_dice")


def data(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def probabilities(logits: torch.Tensor) -> np.ndarray:
    z = logits.detach().numpy()
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def test_values_by_hand():
    """Two classes, two pixels of class 1, whose probabilities are 3/4 and 1/4."""
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), -math.log(3)]]], dtype=torch.float64)
    target = torch.tensor([[1, 1]])
    ce = -(math.log(0.75) + math.log(0.25)) / 2
    for recipe, expected in [
        ({"name": "generalised_cross_entropy", "q": 1}, 0.5),
        ({"name": "generalised_cross_entropy", "q": 0.5}, (2 - math.sqrt(0.75) - 0.5) / 2 / 0.5),
        ({"name": "symmetric_cross_entropy", "alpha": 1, "beta": 0}, ce),
        ({"name": "symmetric_cross_entropy", "alpha": 0, "beta": 1}, 4 * 0.5),
        ({"name": "symmetric_cross_entropy", "alpha": 0.5, "beta": 2, "log_zero": -6}, 0.5 * ce + 2 * 6 * 0.5),
        ({"name": "nr_dice", "gamma": 1, "smooth": 1e-12}, 1 / (0.5625 + 0.0625 + 2)),
        ({"name": "nr_dice", "smooth": 1e-12}, (0.125 + 0.75**1.5) / (0.5625 + 0.0625 + 2)),
    ]:
        assert build_loss(recipe)(logits, target).item() == pytest.approx(expected, rel=1e-9), recipe


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixel_losses_equal_brute_force(shape):
    logits, target = data(shape)
    p = probabilities(logits)
    g = np.eye(shape[1])[target.numpy()]
    g = np.moveaxis(g, -1, 1)
    label = (p * g).sum(1)
    with np.errstate(divide="ignore"):
        log_g = np.where(g > 0, np.log(g), -4)
    symmetric = 0.1 * -(g * np.log(p)).sum(1) + 1.0 * -(p * log_g).sum(1)
    for name, expected in (
        ("generalised_cross_entropy", ((1 - label**0.7) / 0.7).mean()),
        ("symmetric_cross_entropy", symmetric.mean()),
    ):
        loss = build_loss({"name": name})
        assert loss(logits, target).item() == pytest.approx(expected, rel=1e-9)
        assert loss(logits.float(), target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("gamma", [1, 1.5, 2])
def test_nr_dice_equals_brute_force(gamma, over, shape):
    logits, target = data(shape)
    p, y = probabilities(logits), target.numpy()
    groups = [[i] for i in range(shape[0])] if over == "image" else [list(range(shape[0]))]
    expected = []
    for group in groups:
        for c in range(1, 4):
            q, g = p[group, c], (y[group] == c).astype(float)
            expected.append((np.abs(q - g) ** gamma).sum() / ((q**2).sum() + (g**2).sum() + 1e-5))
    loss = build_loss({"name": "nr_dice", "gamma": gamma, "over": over})
    assert loss(logits, target).item() == pytest.approx(np.mean(expected), rel=1e-9)


def test_limits():
    logits, target = data((2, 4, 9, 9))
    ce = F.cross_entropy(logits, target).item()
    near_ce = build_loss({"name": "generalised_cross_entropy", "q": 1e-6})(logits, target)
    assert near_ce.item() == pytest.approx(ce, rel=1e-4)
    squared = build_loss({"name": "dice", "squared": True, "smooth": 1e-9})(logits, target)
    nr_dice = build_loss({"name": "nr_dice", "gamma": 2, "smooth": 1e-9})(logits, target)
    assert nr_dice.item() == pytest.approx(squared.item(), rel=1e-9)


def test_gradients_in_float64():
    for name in FAMILY:
        for shape in ((2, 3, 3, 4), (1, 3, 2, 2, 3)):
            logits, target = data(shape)
            loss = build_loss({"name": name})
            assert torch.autograd.gradcheck(lambda z, f=loss, y=target: f(z, y), logits), name


@pytest.mark.parametrize("name", FAMILY)
def test_one_confidently_wrong_label_pulls_less_than_under_cross_entropy(name):
    """The share of the gradient on the single flipped pixel of an otherwise learnt image."""
    target = torch.zeros(1, 10, 10).long()
    target[:, 5:] = 1
    logits = (4.0 * F.one_hot(target, 2).movedim(-1, 1)).double().requires_grad_()
    flipped = target.clone()
    flipped[0, 0, 0] = 1
    shares = {}
    for recipe in ({"name": "cross_entropy"}, {"name": name}):
        gradient = torch.autograd.grad(build_loss(recipe)(logits, flipped), logits)[0].abs().sum(1)
        shares[recipe["name"]] = (gradient[0, 0, 0] / gradient.sum()).item()
    assert shares[name] < shares["cross_entropy"]


@pytest.mark.parametrize("name", FAMILY)
def test_certain_absent_and_16_bits(name):
    loss = build_loss({"name": name})
    target = data((2, 3, 8, 8))[1]
    certain = 50 * F.one_hot(target, 3).movedim(-1, 1).float()
    assert 0 <= loss(certain, target).item() < 1e-6
    highest = {"generalised_cross_entropy": 1 / 0.7, "symmetric_cross_entropy": 0.1 * 50 + 4, "nr_dice": 1}[name]
    assert loss(certain.roll(1, 1), target).item() == pytest.approx(highest, rel=1e-4)
    for scale in (1, 1e4):
        for y in (target, target * 0):
            logits = (data((2, 3, 8, 8))[0].detach() * scale).bfloat16().requires_grad_()
            value = loss(logits, y)
            assert value.dtype == torch.float32
            assert torch.autograd.grad(value, logits)[0].isfinite().all()
            assert torch.equal(value, loss(logits.float(), y))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "generalised_cross_entropy", "q": 0}, "q: 0 is cross-entropy"),
        ({"name": "generalised_cross_entropy", "q": 1.5}, "needs q to be a number from 0 to 1, not 1.5"),
        ({"name": "symmetric_cross_entropy", "log_zero": 4}, "needs log_zero to be a number from -1000 to 0, not 4"),
        ({"name": "symmetric_cross_entropy", "alpha": "1"}, "needs alpha .*not '1'"),
        ({"name": "nr_dice", "gamma": 0.5}, "needs gamma to be a number from 1 to 2, not 0.5"),
        ({"name": "nr_dice", "empty": "none"}, "no empty 'none'"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_loss(recipe)
