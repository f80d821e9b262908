"""Lovász-softmax: the set function it extends, the published recursion, gradients and ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lib.errors import BadInput
from lib.losses import build_loss
from lib.losses.lovasz import jaccard_steps

SHAPES = [(3, 4, 13, 10), (2, 4, 6, 7, 9)]


def data(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def jaccard_loss(mask: np.ndarray, wrong: np.ndarray) -> float:
    """1 - |mask and prediction| / |mask or prediction|, where the prediction differs from the mask in `wrong`."""
    prediction = mask ^ wrong
    return 1 - (mask & prediction).sum() / (mask | prediction).sum()


def brute_force(errors: np.ndarray, mask: np.ndarray) -> float:
    """sum_i e_(i) (J(i) - J(i - 1)) by evaluating the Jaccard loss of every growing set of wrong pixels."""
    value, before, wrong = 0.0, 0.0, np.zeros_like(mask)
    for pixel in np.argsort(-errors, kind="stable"):
        wrong[pixel] = True
        after = jaccard_loss(mask, wrong)
        value, before = value + errors[pixel] * (after - before), after
    return value


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("background", [False, True])
def test_value_equals_brute_force(background, over, shape):
    logits, target = data(shape)
    target[0] = target[0].clamp(max=2)  # class 3 is absent from one image
    p, y = logits.softmax(1).detach().numpy(), target.numpy()
    groups = [[i] for i in range(shape[0])] if over == "image" else [list(range(shape[0]))]
    expected = np.mean(
        [
            brute_force(np.abs((y[group] == c) - p[group, c]).ravel(), (y[group] == c).ravel())
            for group in groups
            for c in range(not background, 4)
            if (y[group] == c).any()
        ]
    )
    loss = build_loss({"name": "lovasz", "background": background, "over": over})
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-9)
    assert loss(logits.float(), target).item() == pytest.approx(expected, rel=1e-6)


def test_value_by_hand():
    """Errors 0.75 (outside), 0.5 (inside), 0.25 (outside), 0 (inside): J = 1/3, 2/3, 3/4, 1 (sets grow by one pixel)."""
    p = torch.tensor([0.75, 0.5, 0.25, 1.0], dtype=torch.float64)
    logits = torch.stack([(1 - p).log().clamp(min=-700), p.log()]).unsqueeze(0)
    loss = build_loss({"name": "lovasz", "background": False})(logits, torch.tensor([[0, 1, 0, 1]]))
    assert loss.item() == pytest.approx(0.75 / 3 + 0.5 / 3 + 0.25 / 12, rel=1e-9)


def test_it_extends_the_jaccard_loss():
    """On every hard prediction of five pixels the value is the Jaccard loss itself."""
    mask = np.array([1, 1, 0, 0, 0], bool)
    for prediction in itertools.product([0, 1], repeat=5):
        wrong = mask ^ np.array(prediction, bool)
        errors = torch.tensor(wrong, dtype=torch.float64)
        value = (errors * jaccard_steps(errors, torch.from_numpy(mask))).sum()
        assert value.item() == pytest.approx(jaccard_loss(mask, wrong))


def test_steps_equal_the_published_recursion_and_keep_their_digits():
    """The steps of 10^5 pixels: differences of 1 - I/U in float64, ours in float32."""
    rng = np.random.default_rng(0)
    errors, mask = rng.random(100_000), rng.random(100_000) < 0.3
    sorted_mask = mask[np.argsort(-errors)]
    jaccard = 1 - (mask.sum() - sorted_mask.cumsum()) / (mask.sum() + (~sorted_mask).cumsum())
    expected = np.diff(jaccard, prepend=0)
    steps = jaccard_steps(torch.from_numpy(errors), torch.from_numpy(mask)).float().numpy()
    np.testing.assert_allclose(steps[np.argsort(-errors)], expected, rtol=1e-6, atol=1e-15)
    single = jaccard_steps(torch.from_numpy(errors).float(), torch.from_numpy(mask))
    assert single.sum().item() == pytest.approx(1, rel=1e-5)


def test_gradient_in_float64():
    for shape in ((2, 3, 3, 4), (1, 3, 2, 2, 3)):
        for over in ("image", "batch"):
            logits, target = data(shape)
            loss = build_loss({"name": "lovasz", "over": over})
            assert torch.autograd.gradcheck(lambda z, f=loss, y=target: f(z, y), logits)


def test_bounds_ties_absent_classes_and_16_bits():
    loss = build_loss({"name": "lovasz"})
    target = data((2, 3, 8, 8))[1]
    certain = 50 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    assert 0 <= loss(certain, target).item() < 1e-12
    assert loss(certain.roll(1, 1), target).item() == pytest.approx(1, rel=1e-5)
    # Ties: the pixels of the class, all with error 2/3, come first and alone take the Jaccard loss to 1.
    assert loss(torch.zeros(2, 3, 8, 8), target).item() == pytest.approx(2 / 3, rel=1e-6)
    assert build_loss({"name": "lovasz", "background": False})(certain, target * 0).item() == 0
    for scale in (1, 1e4):
        for y in (target, target * 0):
            logits = (data((2, 3, 8, 8))[0].detach() * scale).bfloat16().requires_grad_()
            value = loss(logits, y)
            assert value.dtype == torch.float32
            assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_bad_recipes_are_explained():
    with pytest.raises(BadInput, match="no over 'per_image'"):
        build_loss({"name": "lovasz", "over": "per_image"})
