"""PM Dice: a value by hand, brute-force NumPy, its limit, and a gradient that ignores the modulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.errors import BadInput
from lib.losses import build_loss

SHAPES = [(3, 4, 13, 10), (2, 4, 6, 7, 9)]


def data(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def brute_force(logits, target, gammas, groups, classes, eps, frozen=None):
    """The printed formula with loops; `frozen` are logits that m is computed from, where they differ."""

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    p, fixed = softmax(logits), softmax(logits if frozen is None else frozen)
    values = []
    for group in groups:
        for c in classes:
            y = (target[group] == c).astype(float)
            m = np.abs(y - fixed[group, c]) ** gammas[c]
            q = p[group, c]
            values.append(1 - (2 * (m * y * q).sum() + eps) / ((m * (y**2 + q**2)).sum() + eps))
    return np.mean(values)


def test_value_by_hand():
    """Two classes, three pixels; p of class 1 is 1/2, 1/4 and 1/5 where it is, is not, and is."""
    p = torch.tensor([0.5, 0.25, 0.2], dtype=torch.float64)
    logits, target = torch.stack([(1 - p).log(), p.log()]).unsqueeze(0), torch.tensor([[1, 0, 1]])
    numerator = 2 * (0.5 * 0.5 + 0.8 * 0.2)
    denominator = 0.5 * (1 + 0.25) + 0.25 * 0.0625 + 0.8 * (1 + 0.04)
    loss = build_loss({"name": "pm_dice", "gamma": 1, "background": False, "smooth": 1e-12})
    assert loss(logits, target).item() == pytest.approx(1 - numerator / denominator, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("gamma", [0, 1.0, 2.5, [0.0, 0.5, 1, 2]], ids=str)
def test_value_equals_brute_force(gamma, background, over, shape):
    logits, target = data(shape)
    recipe = {"name": "pm_dice", "gamma": gamma, "background": background, "over": over, "smooth": 0.01}
    groups = [[i] for i in range(shape[0])] if over == "image" else [list(range(shape[0]))]
    gammas = gamma if isinstance(gamma, list) else [gamma] * 4
    classes = range(not background, 4)
    expected = brute_force(logits.detach().numpy(), target.numpy(), gammas, groups, classes, 0.01)
    loss = build_loss(recipe, classes=4)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-9)
    assert loss(logits.float(), target).item() == pytest.approx(expected, rel=1e-6)


def test_gamma_zero_is_squared_dice():
    logits, target = data((2, 4, 9, 9))
    plain = build_loss({"name": "dice", "squared": True, "background": True, "smooth": 1e-5})(logits, target)
    ours = build_loss({"name": "pm_dice", "gamma": 0, "smooth": 2e-5})(logits, target)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-9)
    assert torch.autograd.gradcheck(
        lambda z: build_loss({"name": "pm_dice", "gamma": 0})(z, target[:1, :3, :3]), logits[:1, :, :3, :3]
    )


@pytest.mark.parametrize("gamma", [0.5, 1, 2])
def test_gradient_is_that_of_the_formula_with_the_modulation_held_fixed(gamma):
    logits, target = data((1, 3, 3, 3))
    target[0, 0] = torch.arange(3)  # every class is present
    value = build_loss({"name": "pm_dice", "gamma": gamma})(logits, target)
    gradient = torch.autograd.grad(value, logits)[0].numpy()
    z, h = logits.detach().numpy(), 1e-5
    for index in np.ndindex(z.shape):
        around = []
        for sign in (1, -1):
            moved = z.copy()
            moved[index] += sign * h
            around.append(brute_force(moved, target.numpy(), [gamma] * 3, [[0]], range(3), 1e-5, frozen=z))
        assert gradient[index] == pytest.approx((around[0] - around[1]) / (2 * h), rel=1e-5, abs=1e-9)


def test_easy_pixels_weigh_less():
    """The share of the gradient that falls on the hardest tenth of pixels grows with gamma."""
    logits, target = data((1, 3, 20, 20))
    hard = -logits.detach().log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    hardest = hard >= hard.flatten().sort().values[-40]
    shares = []
    for gamma in (0, 1, 2):
        gradient = torch.autograd.grad(build_loss({"name": "pm_dice", "gamma": gamma})(logits, target), logits)[0]
        size = gradient.abs().sum(1)
        shares.append((size[hardest].sum() / size.sum()).item())
    assert shares == sorted(shares)


def test_absent_classes_certain_predictions_and_16_bits():
    loss = build_loss({"name": "pm_dice", "gamma": [0.5, 1, 2]}, classes=3)
    target = torch.zeros(2, 6, 6).long()
    certain = 50 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    assert loss(certain, target).item() == 0
    for scale in (1, 1e4):
        for dtype in (torch.float32, torch.bfloat16):
            logits = (data((2, 3, 6, 6))[0].detach() * scale).to(dtype).requires_grad_()
            value = loss(logits, target)
            assert value.dtype == torch.float32
            assert torch.autograd.grad(value, logits)[0].isfinite().all()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"gamma": -1}, "needs gamma to be a number of at least 0, not -1"),
        ({"gamma": [1, math.nan, 1, 1]}, "needs gamma .*not nan"),
        ({"gamma": [1, 2]}, r"2 values of gamma for 4 classes: \[1, 2\]. Give 4, the background first"),
        ({"over": "image_"}, "no over 'image_'. Did you mean 'image'"),
        ({"smooth": 0}, "needs smooth above 0"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_loss({"name": "pm_dice", **recipe}, classes=4)
