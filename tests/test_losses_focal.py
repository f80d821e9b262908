"""Focal loss: a value by hand, MONAI, and its limit."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from monai.losses import FocalLoss

from lib.errors import BadInput
from lib.losses import build_loss

SHAPES = [(3, 4, 13, 10), (2, 4, 6, 7, 9)]


def data(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=dtype).mul(2).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def test_value_by_hand():
    """Two pixels, whose true classes have the probabilities 3/4 and 1/4."""
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), math.log(3)]]])
    target = torch.tensor([[1, 0]])
    for gamma in (0, 0.5, 1, 2, 5):
        expected = -(0.25**gamma * math.log(0.75) + 0.75**gamma * math.log(0.25)) / 2
        assert build_loss({"name": "focal", "gamma": gamma})(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
def test_value_and_gradient_equal_monai(gamma, shape):
    logits, target = data(shape)
    ours = build_loss({"name": "focal", "gamma": gamma})(logits, target)
    per_channel = FocalLoss(gamma=gamma, to_onehot_y=True, use_softmax=True)(logits, target.unsqueeze(1))
    theirs = per_channel * shape[1]  # the mean over channels counts zeros
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-10)


def test_gamma_zero_is_cross_entropy():
    logits, target = data((2, 4, 9, 9))
    assert build_loss({"name": "focal", "gamma": 0})(logits, target).item() == pytest.approx(
        F.cross_entropy(logits, target).item(), rel=1e-12
    )


@pytest.mark.parametrize("gamma", [0.5, 1, 2])
def test_gradients_are_right_and_finite_where_the_prediction_is_certain(gamma):
    loss = build_loss({"name": "focal", "gamma": gamma})
    for shape in ((2, 3, 3, 4), (1, 3, 2, 2, 3)):
        logits, target = data(shape)
        assert torch.autograd.gradcheck(lambda z, y=target: loss(z, y), logits)
    for scale in (20, 100, 1e4):
        certain = (scale * F.one_hot(target, 3).movedim(-1, 1).float()).requires_grad_()
        value = loss(certain, target)
        assert 0 <= value.item() < 1e-6
        assert torch.autograd.grad(value, certain)[0].isfinite().all()


@pytest.mark.parametrize("gamma", [-1, "2", math.nan, True])
def test_bad_gamma_is_explained(gamma):
    with pytest.raises(BadInput, match="'focal' needs gamma to be a number of at least 0, not "):
        build_loss({"name": "focal", "gamma": gamma})
