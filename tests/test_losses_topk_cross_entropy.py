"""Top-k cross-entropy: a plain sort, ties, and the limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.errors import BadInput
from lib.losses import build_loss
from lib.losses.topk_cross_entropy import weights_of_largest

SHAPES = [(3, 4, 13, 10), (2, 4, 6, 7, 9)]


def data(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("keep", [1e-9, 0.01, 0.1, 0.29, 0.5, 1])
def test_value_and_gradient_are_those_of_the_largest(keep, shape):
    logits, target = data(shape)
    loss = build_loss({"name": "topk_cross_entropy", "keep_pixels": keep})(logits, target)
    each = F.cross_entropy(logits, target, reduction="none")
    kept = max(1, int(keep * each.numel()))
    expected = torch.cat([each.flatten().sort(descending=True).values[:kept]]).mean()
    assert loss.item() == pytest.approx(np.sort(each.detach().numpy(), None)[::-1][:kept].mean(), rel=1e-12)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_the_number_kept_is_not_lost_to_rounding():
    """0.29 of 100 pixels is 29 although 0.29 * 100 < 29 in floating point."""
    logits = torch.zeros(1, 2, 10, 10)
    logits[0, 0] = torch.arange(100).view(10, 10)  # the loss of pixel i is about i
    loss = build_loss({"name": "topk_cross_entropy", "keep_pixels": 0.29})(logits, torch.ones(1, 10, 10).long())
    assert loss.item() == pytest.approx(np.arange(71, 100).mean())


def test_weights_by_hand_and_ties_share_the_last_places():
    values = torch.tensor([[5.0, 1, 3, 3, 3, 0], [2, 2, 2, 2, 2, 2]])
    third = 1 / 3
    expected = [[1, 0, third, third, third, 0], [third] * 6]
    torch.testing.assert_close(weights_of_largest(values, 2), torch.tensor(expected))
    for count in range(1, 7):
        assert weights_of_largest(values, count).sum(1).tolist() == pytest.approx([count] * 2)


def test_gradient_in_float64_and_order_of_pixels():
    loss = build_loss({"name": "topk_cross_entropy", "keep_pixels": 0.4})
    for shape in ((2, 3, 3, 4), (1, 3, 2, 2, 3)):
        logits, target = data(shape)
        assert torch.autograd.gradcheck(lambda z, y=target: loss(z, y), logits)
    logits = torch.zeros(3, 4, 5, 5).index_fill(0, torch.tensor([1]), 1.0).requires_grad_()  # every loss ties
    gradient = torch.autograd.grad(loss(logits, torch.zeros(3, 5, 5).long()), logits)[0]
    assert (gradient == gradient[0, :, 0, 0].view(1, 4, 1, 1)).all()


@pytest.mark.parametrize(
    ("keep", "message"),
    [(0, "keeps nothing"), (1.1, "from 0 to 1, not 1.1"), (10, "from 0 to 1"), ("10%", "not '10%'")],
)
def test_bad_recipes_are_explained(keep, message):
    with pytest.raises(BadInput, match=message):
        build_loss({"name": "topk_cross_entropy", "keep_pixels": keep})
