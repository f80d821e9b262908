"""Losses: values by hand, torch's own cross-entropy, brute-force weight maps, limits and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from lib.errors import BadInput
from lib.losses import available, build_loss
from lib.losses.cross_entropy import inverse_frequency_weights, median_frequency_weights
from lib.losses.dilated_balanced_cross_entropy import (
    class_weights,
    combined,
    dilate,
    dilated_balanced_weights,
    dilated_members,
)
from lib.losses.recipes import CONTEXT as FACTS
from lib.losses.recipes import LOSSES, is_auxiliary

COUNTS = {"voxels": [800, 100, 60, 40], "voxels_of_cases_with_class": [1000, 1000, 500, 400]}
CONTEXT = {"classes": 4, "class_frequencies": COUNTS}
# What a confident and wrong prediction costs at least, where that is not some logits: overlaps, shares and distances.
LEAST_WHEN_WRONG = {
    "average_hausdorff": 0.1,
    "boundary": 0.5,
    "generalised_cross_entropy": 1.4,
    "hausdorff_dt": 3,
    "log_hausdorff_dt": 1.4,
    "weighted_hausdorff": 0.25,
    "symmetric_cross_entropy": 8.9,
} | dict.fromkeys(
    ("dice", "f_beta", "generalised_dice", "jaccard", "kulczynski", "lovasz", "mcc", "nr_dice", "ochiai", "pm_dice",
     "sokal_sneath", "tversky"),
    0.99,
)  # fmt: skip
FLOOR = {"weighted_hausdorff": 0.05}  # its smooth minimum lies above the least distance
DETACHED = {"pm_dice"}  # part of the formula carries no gradient, so that finite differences are not its gradient
SUPERVISED = [name for name in available() if not is_auxiliary(name)]
VARIANTS = [
    *({"name": name} for name in SUPERVISED),
    {"name": "cross_entropy", "weights": "median_frequency"},
    {"name": "cross_entropy", "weights": "inverse_frequency"},
    {"name": "cross_entropy", "weights": "inverse_square_root"},
    {"name": "cross_entropy", "weights": "enet"},
    {"name": "cross_entropy", "weights": [0.5, 1, 2.0, 4]},
    {"name": "dilated_balanced_cross_entropy", "radius": 0},
    {"name": "dilated_balanced_cross_entropy", "radius": 2, "combine": "max"},
    {"name": "dilated_balanced_cross_entropy", "radius": 2, "frequency": "batch"},
    {"name": "topk_bottom_all_but_sigma", "of": {"name": "focal"}},
    {"name": "topk_bottom_all_but_sigma", "of": {"name": "cross_entropy", "weights": "median_frequency"}},
    {"sum": [{"weight": 1.0, "loss": {"name": "dice"}}, {"weight": 0.5, "loss": {"name": "focal"}}]},
]
SHAPES = [(3, 4, 13, 10), (2, 4, 6, 7, 9)]


def label(value: object) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def blobs(shape: tuple[int, ...], classes: int = 4, seed: int = 0) -> torch.Tensor:
    """Label maps (B, *S) of connected regions, of unequal size, every class in every image."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = np.stack([ndimage.gaussian_filter(image, 1.5) for image in noise])
    ranks = smooth.reshape(shape[0], -1).argsort(1).argsort(1) / smooth[0].size
    return torch.from_numpy(np.digitize(ranks**0.5, np.linspace(0, 1, classes + 1)[1:-1])).reshape(shape)


def logits_of(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).mul(2).requires_grad_()


def value_and_gradient(loss, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    value = loss(logits, target)
    return value, torch.autograd.grad(value, logits)[0]


# The whole registry


@pytest.mark.parametrize("shape", SHAPES, ids=label)
@pytest.mark.parametrize("recipe", VARIANTS, ids=label)
def test_scalar_with_finite_gradient_and_of_the_right_slope(recipe, shape):
    loss = build_loss(recipe, **CONTEXT)
    target = blobs((shape[0], *shape[2:]))
    value, gradient = value_and_gradient(loss, logits_of(shape), target)
    assert value.shape == ()
    assert value.item() > 0
    assert gradient.isfinite().all()
    assert gradient.any()
    assert recipe.get("name") in DETACHED or torch.autograd.gradcheck(
        lambda z: loss(z, target[:1, :3, :3]), logits_of((1, 4, 3, 3, *shape[4:]), 1, torch.float64)
    )


@pytest.mark.parametrize("recipe", VARIANTS, ids=label)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much(recipe):
    loss = build_loss(recipe, **CONTEXT)
    target = blobs((2, 12, 12))
    confident = 50.0 * F.one_hot(target, 4).movedim(-1, 1)
    assert 0 <= loss(confident, target).item() < FLOOR.get(recipe.get("name"), 1e-6)
    least = LEAST_WHEN_WRONG.get(recipe.get("name"), 12)  # 12: of 50, or down to a quarter with combine: max
    assert loss(confident.roll(1, dims=1), target).item() > least, "a bounded loss? then name it in LEAST_WHEN_WRONG"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recipe", VARIANTS, ids=label)
def test_16_bit_logits_are_computed_on_in_32(recipe, dtype):
    loss = build_loss(recipe, **CONTEXT)
    target = blobs((2, 12, 12))
    half = logits_of((2, 4, 12, 12)).detach().mul(20).to(dtype)
    value = loss(half, target)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(half.float(), target).item(), rel=1e-6)


@pytest.mark.parametrize("recipe", VARIANTS, ids=label)
def test_order_of_the_batch_does_not_matter(recipe):
    loss = build_loss(recipe, **CONTEXT)
    logits, target = logits_of((3, 4, 12, 12)), blobs((3, 12, 12))
    order = [2, 0, 1]
    torch.testing.assert_close(loss(logits, target), loss(logits[order], target[order]))


@pytest.mark.parametrize("recipe", VARIANTS, ids=label)
def test_extreme_logits_and_absent_classes_stay_finite(recipe):
    loss = build_loss(recipe, **CONTEXT)
    background = torch.zeros(2, 12, 12, dtype=torch.int64)
    logits = (logits_of((2, 4, 12, 12)).detach() * 1e4).requires_grad_()
    value, gradient = value_and_gradient(loss, logits, background)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("recipe", VARIANTS, ids=label)
@pytest.mark.parametrize("wrong", [4, 254, -1])
def test_a_target_outside_the_classes_is_never_indexed_silently(recipe, wrong):
    target = blobs((2, 12, 12))
    target[0, 3, 3] = wrong
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        build_loss(recipe, **CONTEXT)(logits_of((2, 4, 12, 12)), target)


# Cross-entropy


def test_cross_entropy_by_hand():
    """Two classes on 2 × 2 pixels; the logit difference log 3 means a probability of 3/4."""
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[math.log(3), 0.0], [0.0, -math.log(3)]])
    target = torch.tensor([[[1, 0], [1, 1]]])
    terms = [-math.log(3 / 4), -math.log(1 / 2), -math.log(1 / 2), -math.log(1 / 4)]
    assert build_loss({"name": "cross_entropy"})(logits, target).item() == pytest.approx(sum(terms) / 4)
    weighted = build_loss({"name": "cross_entropy", "weights": [5.0, 1.0]}, classes=2)(logits, target)
    assert weighted.item() == pytest.approx((terms[0] + 5 * terms[1] + terms[2] + terms[3]) / 8)


@pytest.mark.parametrize("shape", SHAPES, ids=label)
@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0, 7.5], [0.0, 1.0, 1.0, 0.3]], ids=str)
def test_cross_entropy_equals_torch(weights, shape):
    reference_weights = None if weights is None else torch.tensor(weights)
    logits, target = logits_of(shape), blobs((shape[0], *shape[2:]))
    ours = value_and_gradient(build_loss({"name": "cross_entropy", "weights": weights}, **CONTEXT), logits, target)
    theirs = value_and_gradient(lambda z, y: F.cross_entropy(z, y, weight=reference_weights), logits, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_batch_of_weight_zero_costs_zero():
    loss = build_loss({"name": "cross_entropy", "weights": [0, 1, 1, 1]}, classes=4)
    value, gradient = value_and_gradient(loss, logits_of((1, 4, 3, 3)), torch.zeros(1, 3, 3, dtype=torch.int64))
    assert value.item() == 0
    assert not gradient.any()


def test_weights_from_counts_by_hand():
    # frequencies 0.8, 0.1, 0.12, 0.1: median (0.1 + 0.12) / 2
    assert median_frequency_weights(COUNTS) == pytest.approx([0.11 / 0.8, 1.1, 0.11 / 0.12, 1.1])
    assert inverse_frequency_weights(COUNTS) == pytest.approx([0.3125, 2.5, 25 / 6, 6.25])
    for name, expected in (("median_frequency", [0.1375, 1.1, 0.11 / 0.12, 1.1]), ("inverse_frequency", None)):
        loss = build_loss({"name": "cross_entropy", "weights": name}, **CONTEXT)
        assert loss.terms[0][0].weight.tolist() == pytest.approx(expected or [0.3125, 2.5, 25 / 6, 6.25])


def test_a_class_without_training_voxels_gets_weight_zero():
    counts = {"voxels": [900, 0, 100], "voxels_of_cases_with_class": [1000, 0, 1000]}
    assert median_frequency_weights(counts) == pytest.approx([0.5 / 0.9, 0, 5])
    assert inverse_frequency_weights(counts) == pytest.approx([1000 / 1800, 0, 5])


def test_enet_and_inverse_square_root_by_hand():
    enet, root = (
        build_loss({"name": "cross_entropy", "weights": w}, **CONTEXT) for w in ("enet", "inverse_square_root")
    )
    shares = np.array([0.8, 0.1, 0.06, 0.04])
    assert enet.terms[0][0].weight.tolist() == pytest.approx(1 / np.log(1.02 + shares))
    assert root.terms[0][0].weight.tolist() == pytest.approx(1 / np.sqrt(shares))
    absent = CONTEXT | {
        "class_frequencies": {"voxels": [50, 0, 25, 25], "voxels_of_cases_with_class": [100, 0, 100, 100]}
    }
    for name in ("enet", "inverse_square_root"):
        assert build_loss({"name": "cross_entropy", "weights": name}, **absent).terms[0][0].weight[1] == 0


# Dilated balanced cross-entropy


def ball(radius: float, dims: int) -> np.ndarray:
    reach = range(-int(radius), int(radius) + 1)
    return sum(np.square(axis) for axis in np.meshgrid(*[list(reach)] * dims)) <= radius**2


def brute_force_weights(target: np.ndarray, classes: int, radius: float, combine: str, frequency: str):
    """W(p) from the formula, with scipy's dilation by an explicit structuring element."""
    dilated = np.zeros((classes, *target.shape), bool)
    for c in range(classes):
        for image in range(len(target)):
            dilated[c, image] = ndimage.binary_dilation(target[image] == c, ball(radius, target.ndim - 1))
    result = np.zeros(target.shape)
    groups = [[image] for image in range(len(target))] if frequency == "image" else [list(range(len(target)))]
    for group in groups:
        present = [c for c in range(classes) if (target[group] == c).any()]
        terms = [dilated[c, group] * target[group].size / (len(present) * dilated[c, group].sum()) for c in present]
        result[group] = np.sum(terms, 0) if combine == "sum" else np.max(terms, 0)
    return result


@pytest.mark.parametrize("shape", [(3, 21, 17), (2, 9, 8, 11), (1, 4, 30)], ids=str)
@pytest.mark.parametrize("radius", [0, 1, 1.5, 2, 3, 5, 7.3])
def test_dilation_equals_scipy_with_the_disk(shape, radius):
    bits = torch.from_numpy(np.random.default_rng(0).choice([0, 1, 2, 128], shape, p=[0.97, 0.01, 0.01, 0.01]))
    dilated = dilate(bits.to(torch.uint8), radius)
    for flag in (1, 2, 128):
        for image, mask in zip(dilated, bits, strict=True):
            expected = ndimage.binary_dilation(mask.numpy() == flag, ball(radius, mask.dim()))
            assert np.array_equal((image.numpy() & flag) > 0, expected)


@pytest.mark.parametrize("combine", ["sum", "max"])
@pytest.mark.parametrize("frequency", ["image", "batch"])
@pytest.mark.parametrize("shape", [(3, 20, 16), (2, 8, 9, 10)], ids=str)
def test_weight_map_equals_brute_force(shape, frequency, combine):
    target = blobs(shape)
    target[0][target[0] == 3] = 1  # absent in one image, present in the others
    for radius in (0, 1, 2.5, 5):
        weights = dilated_balanced_weights(target, 5, radius, combine, frequency)  # class 4: absent everywhere
        expected = brute_force_weights(target.numpy(), 5, radius, combine, frequency)
        np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
        loss = build_loss(
            {
                "name": "dilated_balanced_cross_entropy",
                "radius": radius,
                "combine": combine,
                "frequency": frequency,
            }
        )
        logits = logits_of((shape[0], 5, *shape[1:]))
        plain = F.cross_entropy(logits, target, reduction="none")
        value = (torch.from_numpy(expected) * plain).mean()
        assert loss(logits, target).item() == pytest.approx(value.item(), rel=1e-6)


def test_weight_map_by_hand():
    """Four pixels in a row, radius 1: D_0 = the first three, D_1 = the last three; at radius 0, 2 pixels each."""
    target = torch.tensor([[[0, 0, 1, 1]]])
    third = 4 / (2 * 3)
    for combine, middle in (("sum", 2 * third), ("max", third)):
        weights = dilated_balanced_weights(target, 2, 1, combine)
        torch.testing.assert_close(weights, torch.tensor([[[third, middle, middle, third]]]))
    torch.testing.assert_close(dilated_balanced_weights(target, 2, 0), torch.ones(1, 1, 4))


@pytest.mark.parametrize("shape", [(2, 24, 20), (2, 9, 10, 8)], ids=str)
def test_limits_are_balanced_and_plain_cross_entropy(shape):
    target, logits = blobs(shape), logits_of((shape[0], 4, *shape[1:]))
    pixels = target[0].numel()
    terms = F.cross_entropy(logits, target, reduction="none")
    balanced = sum(
        terms[i][target[i] == c].sum() * pixels / (4 * (target[i] == c).sum())
        for i in range(shape[0])
        for c in range(4)
    ) / (shape[0] * pixels)
    for combine in ("sum", "max"):
        none = build_loss({"name": "dilated_balanced_cross_entropy", "radius": 0, "combine": combine})
        torch.testing.assert_close(none(logits, target), balanced, rtol=1e-6, atol=0)
    for radius in (60, math.inf):
        far = build_loss({"name": "dilated_balanced_cross_entropy", "radius": radius})
        ours = value_and_gradient(far, logits, target)
        torch.testing.assert_close(ours, value_and_gradient(F.cross_entropy, logits, target))
        shrunk = build_loss({"name": "dilated_balanced_cross_entropy", "radius": radius, "combine": "max"})
        torch.testing.assert_close(shrunk(logits, target), ours[0] / 4)


@pytest.mark.parametrize(("spacing", "radius"), [([1.0, 1.0], 3), ([3.0, 0.8], 3), ([0.5, 1.7], 2.2), ([2.0, 2.0], 1)])
def test_a_radius_in_mm_is_an_ellipse_of_pixels(spacing, radius):
    target = blobs((2, 21, 17))
    members = dilated_members(target, 4, radius, spacing=torch.tensor([spacing] * 2, dtype=torch.float64))
    for image, labels in zip(members, target, strict=True):
        for c in range(4):
            distance = ndimage.distance_transform_edt((labels != c).numpy(), sampling=spacing)
            np.testing.assert_array_equal(image[c].numpy(), distance <= radius + 1e-9)


def test_each_image_has_its_own_disk_in_mm():
    target, logits = blobs((2, 21, 17)), logits_of((2, 4, 21, 17))
    recipe = {"name": "dilated_balanced_cross_entropy", "radius": 4}
    steps = torch.tensor([[1.0, 1.0], [2.0, 4.0]], dtype=torch.float64)
    in_mm = build_loss(recipe | {"unit": "mm"})
    each = [in_mm(logits[i : i + 1], target[i : i + 1], spacing=steps[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(in_mm(logits, target, spacing=steps), sum(each) / 2)
    torch.testing.assert_close(each[0], build_loss(recipe)(logits[:1], target[:1]))
    with pytest.raises(BadInput, match="unit: mm needs the spacing of the images"):
        in_mm(logits, target)


@pytest.mark.parametrize("shape", [(3, 14, 12), (1, 6, 14, 12)], ids=str)
def test_frequencies_of_the_dataset_are_those_of_all_training_labels_at_once(shape):
    """As a single batch of all of them; ignored pixels are counted nowhere."""
    labels = [blobs(shape, seed=i) for i in range(3)]
    labels[1][0, :4] = 255
    recipe = {"name": "dilated_balanced_cross_entropy", "radius": 2, "frequency": "dataset"}
    spacing = np.ones(len(shape) - 1)
    loss = build_loss(recipe, **CONTEXT, training_labels=lambda: ((y.numpy(), spacing) for y in labels))
    together = torch.cat(labels)
    valid = together != 255
    members = dilated_members(together.masked_fill(~valid, 0), 4, 2, valid)
    expected = class_weights(members, "batch", valid)
    torch.testing.assert_close(loss.terms[0][0].weights, expected)
    assert (combined(members, expected, "sum") * valid).sum().item() / valid.sum().item() == pytest.approx(1, abs=1e-6)
    logits = logits_of((shape[0], 4, *shape[1:]))
    weights = combined(dilated_members(labels[0], 4, 2), expected, "sum")
    by_hand = (weights * F.cross_entropy(logits, labels[0], reduction="none")).mean()
    torch.testing.assert_close(loss(logits, labels[0]), by_hand)
    with pytest.raises(BadInput, match="frequency: dataset needs the labels of the training cases"):
        build_loss(recipe, **CONTEXT)


@pytest.mark.parametrize("frequency", ["image", "batch"])
def test_sum_has_mean_weight_one_and_max_drifts(frequency):
    target = blobs((2, 64, 64))
    means = {"sum": [], "max": []}
    for combine, found in means.items():
        for radius in (0, 1, 3, 5, 10, 200):
            weights = dilated_balanced_weights(target, 4, radius, combine, frequency)
            found += weights.double().flatten(1).mean(1).tolist() if frequency == "image" else [weights.mean()]
    assert means["sum"] == pytest.approx([1.0] * len(means["sum"]), abs=1e-6)
    drift = np.reshape(means["max"], (6, -1)).mean(1)
    assert drift[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(drift) < 0).all()
    assert drift[-1] == pytest.approx(1 / 4, abs=1e-6)


@pytest.mark.parametrize("classes", [8, 9, 31, 32, 63])
def test_many_classes_keep_their_bits_apart(classes):
    target = torch.arange(2 * classes).remainder(classes).view(1, 2, classes)
    weights = dilated_balanced_weights(target, classes, 1)
    expected = brute_force_weights(target.numpy(), classes, 1, "sum", "image")
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-5)


def test_no_gradient_through_the_weights():
    assert not dilated_balanced_weights(blobs((1, 9, 9)), 4, 2).requires_grad


# Bad recipes


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "cross_entorpy"}, "'cross_entorpy'.* Did you mean 'cross_entropy'"),
        ({"name": "cross_entropy", "weigths": None}, "no parameter 'weigths'.* Did you mean 'weights'"),
        ({"name": "cross_entropy", "classes": 4}, "no parameter 'classes'"),
        ({"name": "cross_entropy", "weights": "median_freq"}, "'median_freq'.* Did you mean 'median_frequency'"),
        ({"name": "cross_entropy", "weights": [1, 2, 3]}, r"3 weights for 4 classes: \[1, 2, 3\].* Give 4"),
        ({"name": "cross_entropy", "weights": [1, 2, 3, -1]}, "finite numbers of at least 0.*-1"),
        ({"name": "cross_entropy", "weights": [1, 2, 3, math.nan]}, "finite numbers of at least 0.*nan"),
        ({"name": "cross_entropy", "weights": [1, 2, 3, "4"]}, "finite numbers of at least 0.*'4'"),
        ({"name": "cross_entropy", "weights": 2}, "finite numbers of at least 0.*2"),
        ({"name": "cross_entropy", "weights": [0, 0, 0, 0]}, "all 0"),
        ({"name": "dilated_balanced_cross_entropy", "radius": -1}, "radius of at least 0 pixels, not -1"),
        ({"name": "dilated_balanced_cross_entropy", "radius": math.nan}, "radius of at least 0 pixels, not nan"),
        ({"name": "dilated_balanced_cross_entropy", "radius": "5"}, "radius of at least 0 pixels, not '5'"),
        ({"name": "dilated_balanced_cross_entropy", "combine": "summ"}, "no combine 'summ'.* Did you mean 'sum'"),
        ({"name": "dilated_balanced_cross_entropy", "frequency": "imgae"}, "Did you mean 'image'"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_loss(recipe, **CONTEXT)


def test_weights_from_counts_need_counts():
    with pytest.raises(BadInput, match="median_frequency needs class_frequencies"):
        build_loss({"name": "cross_entropy", "weights": "median_frequency"}, classes=4)


def test_more_classes_than_bits():
    loss = build_loss({"name": "dilated_balanced_cross_entropy"})
    with pytest.raises(BadInput, match="at most 63 classes, not 64"):
        loss(torch.zeros(1, 64, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))


def test_registry_lists_the_losses():
    assert {"cross_entropy", "dilated_balanced_cross_entropy"} <= set(available())
    parameters = LOSSES.parameters("dilated_balanced_cross_entropy")
    assert {key: default for key, default in parameters.items() if key not in FACTS} == {
        "radius": "5",
        "unit": "'pixel'",
        "combine": "'sum'",
        "frequency": "'image'",
    }
