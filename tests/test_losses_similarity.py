"""Similarity losses: values by hand, MONAI, brute-force NumPy, and what background, over, smooth and empty mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, GeneralizedDiceLoss, MCCLoss, TverskyLoss

from lib.errors import BadInput
from lib.losses import build_loss
from lib.losses.recipes import LOSSES

FAMILY = ("dice", "jaccard", "tversky", "f_beta", "sokal_sneath", "kulczynski", "ochiai", "mcc", "generalised_dice")
SHAPES = [(3, 4, 13, 10), (2, 4, 6, 7, 9)]

# S of the soft sizes a, b, c, d of one class, in the words of the literature
COEFFICIENTS = {
    "dice": lambda a, b, c, d: 2 * a / (2 * a + b + c),
    "jaccard": lambda a, b, c, d: a / (a + b + c),
    "tversky": lambda a, b, c, d: a / (a + 0.3 * b + 0.7 * c),
    "f_beta": lambda a, b, c, d: (1 + 1.5**2) * a / ((1 + 1.5**2) * a + b + 1.5**2 * c),
    "sokal_sneath": lambda a, b, c, d: a / (a + 2 * (b + c)),
    "kulczynski": lambda a, b, c, d: (a / (a + b) + a / (a + c)) / 2,
    "ochiai": lambda a, b, c, d: a / math.sqrt((a + b) * (a + c)),
    "mcc": lambda a, b, c, d: (a * d - b * c) / math.sqrt((a + b) * (a + c) * (d + b) * (d + c)),
}


def label(value: object) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def data(
    shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=dtype).mul(2)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def sizes(logits: torch.Tensor, target: torch.Tensor, c: int, squared: bool = False):
    """a, b, c, d of class c over the pixels given, by plain NumPy."""
    z = logits.numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    p, g = p[:, c].ravel(), (target.numpy() == c).ravel().astype(float)
    a = (p * g).sum()
    b = (p**2).sum() - a if squared else (p * (1 - g)).sum()
    missed = g.sum() - a
    return a, b, missed, p.size - a - b - missed


# Values


def three_pixels():
    """Three classes; class 1: p = 0.5 where it is, and 0.25 and 0 elsewhere, so that a = c = 0.5, b = 0.25, d = 1.75."""
    p = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype=torch.float64)
    return p.log().clamp(min=-500).T.reshape(1, 3, 3), torch.tensor([[1, 0, 0]])


@pytest.mark.parametrize(
    ("recipe", "similarity"),
    [
        ({"name": "dice"}, 1 / 1.75),
        ({"name": "dice", "squared": True}, 2 * 0.5 / (0.25 + 0.0625 + 1)),
        ({"name": "jaccard"}, 0.5 / 1.25),
        ({"name": "jaccard", "squared": True}, 0.5 / (0.3125 + 1 - 0.5)),
        ({"name": "tversky", "alpha": 1, "beta": 3}, 0.5 / (0.5 + 0.25 + 1.5)),
        ({"name": "f_beta", "beta": 2}, 2.5 / (2.5 + 0.25 + 2)),
        ({"name": "sokal_sneath"}, 0.5 / (0.5 + 1.5)),
        ({"name": "kulczynski"}, (0.5 / 0.75 + 0.5 / 1) / 2),
        ({"name": "ochiai"}, 0.5 / math.sqrt(0.75)),
        ({"name": "mcc"}, (0.5 * 1.75 - 0.25 * 0.5) / math.sqrt(0.75 * 1 * 2 * 2.25)),
        ({"name": "generalised_dice", "background": False}, 1 / 1.75),  # one class: Dice
    ],
    ids=label,
)
def test_value_by_hand(recipe, similarity):
    """Class 2 is absent and skipped, so that class 1 is the mean."""
    logits, target = three_pixels()
    smooth = {} if recipe["name"] == "generalised_dice" else {"smooth": 1e-12}
    assert build_loss(recipe | smooth)(logits, target).item() == pytest.approx(1 - similarity, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    "recipe", [{"name": name} for name in COEFFICIENTS] + [{"name": n, "squared": True} for n in ("dice", "jaccard")],
    ids=label,
)  # fmt: skip
def test_value_equals_brute_force(recipe, background, over, shape):
    logits, target = data(shape)
    groups = [slice(i, i + 1) for i in range(shape[0])] if over == "image" else [slice(None)]
    expected = np.mean(
        [
            1 - COEFFICIENTS[recipe["name"]](*sizes(logits[i], target[i], c, recipe.get("squared", False)))
            for i in groups
            for c in range(0 if background else 1, 4)
        ]
    )
    loss = build_loss({**recipe, "background": background, "over": over, "smooth": 1e-12})
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-9)
    assert loss(logits.float(), target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("background", [False, True])
def test_values_and_gradients_equal_monai(background, over, shape):
    logits, target = data(shape)
    common = {"include_background": background, "to_onehot_y": True, "softmax": True, "batch": over == "batch"}
    s = 1e-3
    smooth = {"smooth_nr": s, "smooth_dr": s}
    pairs = [
        ({"name": "dice", "smooth": s / 2}, DiceLoss(**common, **smooth)),
        ({"name": "dice", "smooth": s / 2, "squared": True}, DiceLoss(**common, **smooth, squared_pred=True)),
        ({"name": "jaccard", "smooth": s / 2}, DiceLoss(**common, **smooth, jaccard=True)),
        ({"name": "jaccard", "smooth": s / 2, "squared": True}, DiceLoss(**common, **smooth, jaccard=True, squared_pred=True)),
        ({"name": "tversky", "smooth": s}, TverskyLoss(**common, **smooth, alpha=0.3, beta=0.7)),
        ({"name": "mcc", "smooth": 1e-9}, MCCLoss(**common, smooth_nr=0, smooth_dr=1e-15)),
        ({"name": "generalised_dice"}, GeneralizedDiceLoss(**common, smooth_nr=0, smooth_dr=0)),
    ]  # fmt: skip
    for recipe, theirs in pairs:
        loss = build_loss({**recipe, "background": background, "over": over})
        found = []
        for function, y in ((loss, target), (theirs, target.unsqueeze(1))):
            leaf = logits.clone().requires_grad_()
            value = function(leaf, y)
            found.append((value, torch.autograd.grad(value, leaf)[0]))
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9, msg=lambda m, r=recipe: f"{r}: {m}")


def test_special_cases_coincide():
    logits, target = data((2, 4, 9, 9))
    value = {name: build_loss({"name": name})(logits, target) for name in ("dice", "jaccard", "generalised_dice")}
    for recipe, twin in [
        ({"name": "tversky", "alpha": 0.5, "beta": 0.5}, "dice"),
        ({"name": "tversky", "alpha": 1, "beta": 1}, "jaccard"),
        ({"name": "f_beta", "beta": 1}, "dice"),
    ]:
        assert build_loss(recipe)(logits, target).item() == pytest.approx(value[twin].item(), rel=1e-12)


# Gradients


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("name", FAMILY)
def test_gradient_in_float64(name, over):
    for shape in ((2, 3, 3, 4), (1, 3, 2, 2, 3)):
        logits, target = data(shape)
        loss = build_loss({"name": name, "over": over})
        assert torch.autograd.gradcheck(lambda z, f=loss, y=target: f(z, y), logits.requires_grad_())


# Background, sums, empty classes


@pytest.mark.parametrize("name", FAMILY)
def test_sums_per_image_average_and_do_not_mix(name):
    loss = build_loss({"name": name, "over": "image"})
    logits, target = data((3, 4, 8, 8))
    each = [loss(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    assert loss(logits, target).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-12)
    batch = build_loss({"name": name, "over": "batch"})
    stacked = logits.movedim(1, 0).reshape(1, 4, 24, 8)  # the batch as one image
    assert batch(logits, target).item() == pytest.approx(loss(stacked, target.reshape(1, 24, 8)).item(), rel=1e-12)


@pytest.mark.parametrize("name", FAMILY)
def test_a_class_that_is_absent_is_skipped(name):
    """Two classes absent: the mean is over the one foreground class present, and its value is what counts alone."""
    logits, target = data((1, 4, 8, 8))
    target = target.clamp(max=1)
    merged = torch.cat([logits[:, [0, 2, 3]].logsumexp(1, keepdim=True), logits[:, 1:2]], 1)  # same p of class 1
    recipe = {"name": name, "background": False}
    assert build_loss(recipe)(logits, target).item() == pytest.approx(build_loss(recipe)(merged, target).item())


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "generalised_dice"])
def test_empty_skip_ignores_and_count_punishes_a_hallucination(name):
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    right = torch.zeros(1, 2, 8, 8)
    right[:, 0] = 60
    wrong = right.clone()
    wrong[:, :, :2, :2] = torch.tensor([0.0, 60.0]).view(1, 2, 1, 1)
    skip, count = (build_loss({"name": name, "empty": empty}) for empty in ("skip", "count"))
    assert skip(wrong, target).item() == 0
    assert count(right, target).item() == pytest.approx(0, abs=1e-6)
    expected = {"kulczynski": 0.5, "ochiai": 1 - math.sqrt(1e-5 / 4)}.get(name, 1)  # recall of nothing is 1
    assert count(wrong, target).item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", FAMILY)
def test_nothing_to_find_costs_zero_without_gradient(name):
    logits = data((2, 3, 6, 6))[0].requires_grad_()
    value = build_loss({"name": name, "background": False})(logits, torch.zeros(2, 6, 6, dtype=torch.int64))
    assert value.item() == 0
    assert not torch.autograd.grad(value, logits)[0].any()


@pytest.mark.parametrize("name", FAMILY)
def test_order_of_the_classes_does_not_matter_with_background(name):
    logits, target = data((2, 4, 8, 8))
    order = torch.tensor([2, 0, 3, 1])
    loss = build_loss({"name": name, "background": True})
    assert loss(logits[:, order], order.argsort()[target]).item() == pytest.approx(
        loss(logits, target).item(), rel=1e-12
    )


@pytest.mark.parametrize("name", FAMILY)
def test_bounds_zero_at_the_reference_and_one_or_two_at_its_opposite(name):
    loss = build_loss({"name": name})
    for seed in range(20):  # sizes whose roots are not exact
        target = data((2, 2, 8, 8 + seed), seed)[1]
        perfect = 60.0 * torch.nn.functional.one_hot(target, 2).movedim(-1, 1)
        for logits in (perfect, perfect.double()):
            assert 0 <= loss(logits, target).item() < 1e-6
    worst = 2 if name == "mcc" else 1
    assert loss(-perfect, target).item() == pytest.approx(worst, abs=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_extreme_logits_keep_finite_gradients(name):
    for dtype in (torch.float32, torch.bfloat16):
        logits, target = data((2, 4, 8, 8))
        logits = (logits * 1e4).to(dtype).requires_grad_()
        for y in (target, target * 0, target * 0 + 3):
            value = build_loss({"name": name, **({} if name == "generalised_dice" else {"empty": "count"})})(logits, y)
            assert value.isfinite()
            assert torch.autograd.grad(value, logits)[0].isfinite().all()


# Recipes


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "dice", "over": "imgae"}, "The loss 'dice' has no over 'imgae'. Did you mean 'image'"),
        ({"name": "mcc", "empty": "skipp"}, "The loss 'mcc' has no empty 'skipp'. Did you mean 'skip'"),
        ({"name": "ochiai", "smooth": -1}, "needs smooth to be a number of at least 0, not -1"),
        ({"name": "ochiai", "smooth": 0}, "needs smooth above 0"),
        ({"name": "tversky", "alpha": "0.3"}, "'tversky' needs alpha to be a number of at least 0, not '0.3'"),
        ({"name": "tversky", "beta": math.inf}, "'tversky' needs beta .*not inf"),
        ({"name": "f_beta", "beta": math.nan}, "'f_beta' needs beta .*not nan"),
        ({"name": "dice", "alpha": 0.3}, "no parameter 'alpha'"),
        ({"name": "generalised_dice", "over": "all"}, "no over 'all'"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_loss(recipe)


def test_registry_finds_the_family():
    assert set(FAMILY) <= set(LOSSES.available())
    assert {LOSSES.module(name).name for name in FAMILY} == {"similarity.py"}
    assert LOSSES.parameters("dice") == {
        "squared": "False",
        "background": "False",
        "over": "'batch'",
        "smooth": "1e-05",
        "empty": "'skip'",
    }
