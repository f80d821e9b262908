"""What recipes compose, and what every loss gets from the criterion: ramps, regions, ignored pixels, deep supervision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import ROOT
from monai.losses import DiceCELoss
from test_losses import CONTEXT, COUNTS, VARIANTS, blobs, label, logits_of, value_and_gradient

from lib.config import check_meaning
from lib.data.store import IGNORE
from lib.errors import BadInput
from lib.losses import build_loss, needs_features
from lib.losses.catalogue import loss_recipe
from lib.losses.checks import at_share
from lib.losses.criterion import nearest
from lib.losses.recipes import LOSSES, is_pixel_loss, loss_modules
from lib.losses.topk_bottom_all_but_sigma import envelope

CATALOGUE = yaml.safe_load((ROOT / "config/config.yaml").read_text())["losses"]
ENVELOPE = "topk_bottom_all_but_sigma"
# Whole label maps of the training cases, as the network sees them, and their spacings.
TRAINING = {"training_labels": lambda: ((blobs((2, 12, 12), seed=i).numpy(), np.ones(2)) for i in range(2))}
FEATURES = {"spatial_dims": 2, "image_channels": 1, "feature_channels": 6}
SCALED = {"average_hausdorff", "weighted_hausdorff"}  # shares of the image diagonal, of all pixels
ALL = [
    *VARIANTS,
    {"name": "dilated_balanced_cross_entropy", "radius": 2, "unit": "mm"},
    {"name": "dilated_balanced_cross_entropy", "radius": 2, "frequency": "dataset"},
    {"name": ENVELOPE, "sigma_mode": "std", "drop_pixels": 2, "beta": 0.1},
]


def build(recipe: dict, **context):
    return build_loss(recipe, **CONTEXT | TRAINING | {"spacing": [1.0, 1.0]} | context)


# Recipes


def test_entries_of_the_catalogue_become_whole_recipes():
    entries = {
        "ce": {"name": "cross_entropy"},
        "focal": {"name": "focal", "gamma": 3},
        "dice": {"name": "dice"},
        "robust": {"name": ENVELOPE, "of": "focal"},
        "both": {"sum": {"dice": 1, "robust": 0.5}},
        "three": {"sum": {"both": {"from": 0, "to": 1}, "ce": 2}},
    }
    robust = {"name": ENVELOPE, "of": {"name": "focal", "gamma": 3}}
    both = {"sum": [{"weight": 1, "loss": {"name": "dice"}}, {"weight": 0.5, "loss": robust}]}
    three = {"sum": [{"weight": {"from": 0, "to": 1}, "loss": both}, {"weight": 2, "loss": {"name": "cross_entropy"}}]}
    recipes = {name: loss_recipe(name, entries) for name in entries}
    assert recipes["robust"] == robust and recipes["both"] == both and recipes["three"] == three

    edited = entries | {"focal": {"name": "focal", "gamma": 1}}
    changed = {name for name in entries if loss_recipe(name, edited) != recipes[name]}
    assert changed == {"focal", "robust", "both", "three"}
    files = {path.stem for path in loss_modules(recipes["three"])}
    assert files == {"similarity", "focal", "topk_bottom_all_but_sigma", "cross_entropy"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sum": {"dcie": 1, "ce": 1}}, r"sum: 'dcie' is not in the catalogue. Did you mean 'dice'\?"),
        ({"name": ENVELOPE, "of": "focl"}, r"of: 'focl' is not in the catalogue. Did you mean 'focal'\?"),
        ({"name": ENVELOPE, "of": "dice"}, "goes around a pixel loss, and 'dice' is none. Pixel losses: .*cross_entropy, "),
        ({"name": ENVELOPE, "of": "dice_ce"}, "goes around one pixel loss, not around {'sum'"),
        ({"name": ENVELOPE, "of": "topk_ce"}, "'topk_cross_entropy' is none"),
        ({"name": "dice", "of": "ce"}, "'dice' of lib.losses has no parameter 'of'"),
        ({"sum": {"mine": 1, "ce": 1}}, "sum: mine → mine goes in a circle"),
        ({"sum": {"other": 1}}, "sum: mine → other → mine goes in a circle"),
        ({"sum": {"dice": "1"}}, "every weight to be a number of at least 0, not '1'"),
        ({"sum": {"dice": -1}}, "every weight to be a number of at least 0, not -1"),
        ({"sum": {"dice": 0, "ce": 1}}, "weight 0; leave it out"),
        ({"sum": {"dice": {"from": 0}}}, r"a ramp like \{from: 0, to: 1, start: 0, end: 0.5\}, not \{'from': 0\}"),
        ({"sum": {"dice": {"from": 0, "to": 1, "start": 0.5, "end": 0.2}}}, "starts at 0.5 and ends before, at 0.2"),
        ({"sum": {"dice": 1}, "name": "dice"}, "a sum is written .* and has no other key"),
    ],
)  # fmt: skip
def test_bad_entries_are_explained(entry, message):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["losses"] |= {"mine": entry, "other": {"sum": {"mine": 1}}}
    with pytest.raises(BadInput, match=f"^config, losses: mine: .*{message}"):
        check_meaning(config)


def test_a_method_needs_a_loss_that_looks_at_labels():
    with pytest.raises(BadInput, match="looks at no labels; use it in a sum with one that does"):
        build_loss(CATALOGUE["mutual_information"], **FEATURES)
    assert needs_features(loss_recipe("dice_ce_information", CATALOGUE))
    assert not needs_features(loss_recipe("dice_ce", CATALOGUE))


def test_a_pixel_loss_is_told_by_its_map():
    assert {name for name in LOSSES.available() if is_pixel_loss(name)} == {
        "border_weighted_cross_entropy", "cross_entropy", "dilated_balanced_cross_entropy", "focal",
        "generalised_cross_entropy", "symmetric_cross_entropy",
    }  # fmt: skip


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_of_the_catalogue_has_a_gradient(name):
    if name == "mutual_information":
        pytest.skip("a term of sums")
    loss = build(loss_recipe(name, CATALOGUE), **FEATURES)
    logits, target = logits_of((2, 4, 12, 12)), blobs((2, 12, 12))
    features = torch.randn(2, 6, 3, 3)
    for iteration in (0, 5):
        value = loss(
            logits, target, image=torch.randn(2, 1, 12, 12), features=features, iteration=iteration, iterations=10
        )
        gradient = torch.autograd.grad(value, logits)[0]
        assert value.shape == () and value.isfinite() and gradient.isfinite().all() and gradient.any()


# Sums and ramps


def test_a_sum_is_the_sum_of_its_weighted_terms():
    logits, target = logits_of((2, 4, 12, 12)), blobs((2, 12, 12))
    dice, focal, ce = ({"name": name} for name in ("dice", "focal", "cross_entropy"))
    inner = {"sum": [{"weight": 2.0, "loss": dice}, {"weight": 0.5, "loss": focal}]}
    outer = build({"sum": [{"weight": 3.0, "loss": inner}, {"weight": 0.25, "loss": ce}]})
    parts = [build(recipe)(logits, target) for recipe in (dice, focal, ce)]
    expected = 6 * parts[0] + 1.5 * parts[1] + 0.25 * parts[2]
    torch.testing.assert_close(outer(logits, target), expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (outer(logits, target), expected)]
    torch.testing.assert_close(*gradients)


def test_dice_and_cross_entropy_equal_monai():
    logits, target = logits_of((2, 4, 12, 12)), blobs((2, 12, 12))
    options = {"to_onehot_y": True, "softmax": True, "include_background": False, "batch": True}
    smooth = {"smooth_nr": 2e-5, "smooth_dr": 2e-5}  # ours counts once, in the intersection
    theirs = DiceCELoss(**options, **smooth)(logits, target.unsqueeze(1))
    ours = build(loss_recipe("dice_ce", CATALOGUE))(logits, target)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        (0.7, [0.7, 0.7, 0.7, 0.7, 0.7]),
        ({"from": 0, "to": 1}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 1, "to": 0.5, "start": 0.25, "end": 0.75}, [1, 1, 0.75, 0.5, 0.5]),
        ({"from": 1, "to": 0, "start": 0.5, "end": 0.5}, [1, 1, 0, 0, 0]),
    ],
)
def test_ramps_by_hand(ramp, expected):
    assert [at_share(ramp, share) for share in (0, 0.25, 0.5, 0.75, 1)] == expected


def test_a_weight_is_ramped_over_the_iterations():
    logits, target = logits_of((2, 4, 12, 12)), blobs((2, 12, 12))
    dice, boundary = {"name": "dice"}, {"name": "boundary"}
    loss = build({"sum": [{"weight": 1, "loss": dice}, {"weight": {"from": 0.0, "to": 0.1}, "loss": boundary}]})
    parts = [build(recipe)(logits, target).item() for recipe in (dice, boundary)]
    for iteration, weight in ((0, 0), (25, 0.025), (50, 0.05), (None, 0.1)):
        steps = {} if iteration is None else {"iteration": iteration, "iterations": 100}
        assert loss(logits, target, **steps).item() == pytest.approx(parts[0] + weight * parts[1])


# Envelopes


@pytest.mark.parametrize(
    "inner", [{"name": "focal"}, {"name": "cross_entropy", "weights": "median_frequency"}], ids=label
)
def test_an_envelope_selects_on_the_map_of_its_loss(inner):
    logits, target = logits_of((4, 4, 12, 12)), blobs((4, 12, 12))
    loss = build(inner)
    pixels = loss.terms[0][0].pixel_map(logits, target)
    torch.testing.assert_close(pixels.mean(), loss(logits, target))
    around = build({"name": ENVELOPE, "of": inner, "keep_images": 0.5, "drop_pixels": 0.1})
    torch.testing.assert_close(around(logits, target), envelope(pixels, 0.5, 0.1, "fraction", 0.0))
    plain = build({"name": ENVELOPE, "of": inner, "keep_images": 1, "drop_pixels": 0})
    torch.testing.assert_close(plain(logits, target), loss(logits, target))


def test_an_envelope_warms_up():
    logits, target = logits_of((4, 4, 12, 12)), blobs((4, 12, 12))
    each = F.cross_entropy(logits, target, reduction="none").detach()
    ramps = {"keep_images": {"from": 1, "to": 0.5, "start": 0.2}, "drop_pixels": {"from": 0, "to": 0.1, "end": 0.5}}
    loss = build({"name": ENVELOPE, **ramps})
    for iteration, keep, drop in ((0, 1, 0), (20, 1, 0.04), (60, 0.75, 0.1)):
        value = loss(logits, target, iteration=iteration, iterations=100)
        assert value.item() == pytest.approx(envelope(each, keep, drop, "fraction", 0).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep_images": {"from": 1, "to": 0}}, "keeps nothing"),
        ({"drop_pixels": {"from": 0, "to": 1}}, "cannot drop the fraction 1"),
        ({"drop_pixels": {"from": 0, "to": 2.5}, "sigma_mode": "count"}, "a whole number of drop_pixels, not 2.5"),
        ({"keep_images": {"from": 1, "to": 2}}, "keep_images: to to be a number from 0 to 1, not 2"),
    ],
)
def test_bad_ramps_of_an_envelope_are_explained(change, message):
    with pytest.raises(BadInput, match=message):
        build({"name": ENVELOPE, **change})


# Regions: classes 1, 2, 3; the first region is their union


REGIONS = [[1, 2, 3], [2, 3], [3]]


def region_logits(shape: tuple[int, ...]) -> torch.Tensor:
    return logits_of((shape[0], len(REGIONS), *shape[1:]), seed=3)


def inside(target: torch.Tensor, region: list[int]) -> torch.Tensor:
    return torch.isin(target, torch.tensor(region)).long()


def test_cross_entropy_of_regions_is_binary_cross_entropy():
    logits, target = region_logits((2, 12, 12)), blobs((2, 12, 12))
    reference = torch.stack([inside(target, region) for region in REGIONS], 1).float()
    ours = build_loss({"name": "cross_entropy"}, classes=4, regions=REGIONS)(logits, target)
    torch.testing.assert_close(ours, F.binary_cross_entropy_with_logits(logits, reference))


@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_every_loss_takes_regions_as_two_class_problems(recipe):
    if isinstance(recipe.get("weights"), list):
        recipe = recipe | {"weights": [0.5, 2.0]}
    logits, target = region_logits((2, 12, 12)), blobs((2, 12, 12))
    frequencies = [
        {"voxels": [90 - 20 * i, 10 + 20 * i], "voxels_of_cases_with_class": [100, 100]} for i in range(len(REGIONS))
    ]
    loss = build(recipe, regions=REGIONS, class_frequencies=frequencies)
    values = []
    for i, region in enumerate(REGIONS):
        labels = [(inside(torch.as_tensor(y), region).numpy(), step) for y, step in TRAINING["training_labels"]()]
        two = build(recipe, classes=2, class_frequencies=frequencies[i], training_labels=lambda y=labels: iter(y))
        z = torch.stack([torch.zeros(2, 12, 12), logits[:, i]], 1)
        values.append(two(z, inside(target, region)))
    torch.testing.assert_close(loss(logits, target), sum(values) / len(values))


def test_bad_regions():
    loss = build_loss({"name": "dice"}, classes=4, regions=REGIONS)
    with pytest.raises(BadInput, match="4 outputs for 3 regions"):
        loss(logits_of((2, 4, 5, 5)), blobs((2, 5, 5)))
    for wrong in (-1, 4):
        target = blobs((2, 5, 5))
        target[0, 0, 0] = wrong
        with pytest.raises((IndexError, RuntimeError), match="out of range"):
            loss(region_logits((2, 5, 5)), target)


# Ignored pixels


def ignored_labels(where: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of which some are ignored, and the mask of the others."""
    target = blobs((3, 14, 12))
    valid = torch.ones_like(target, dtype=torch.bool)
    if where == "scattered":
        valid = torch.rand(valid.shape, generator=torch.Generator().manual_seed(1)) > 0.3
        valid[2, :10] = False
    else:
        valid[:, 9:] = False
    return target.masked_fill(~valid, IGNORE), valid


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_what_the_network_says_at_ignored_pixels_changes_nothing(recipe, regions):
    if regions and isinstance(recipe.get("weights"), list):
        recipe = recipe | {"weights": [0.5, 2.0]}
    counts = [{"voxels": [60, 40], "voxels_of_cases_with_class": [100, 100]}] * 3
    loss = build(recipe, regions=regions, **{"class_frequencies": counts} if regions else {})
    target, valid = ignored_labels("scattered")
    logits = region_logits((3, 14, 12)) if regions else logits_of((3, 4, 14, 12))
    value, gradient = value_and_gradient(loss, logits, target)
    other = torch.where(valid.unsqueeze(1), logits, 30 * torch.randn(logits.shape)).detach().requires_grad_()
    other_value, other_gradient = value_and_gradient(loss, other, target)
    assert value.item() == other_value.item() and value.item() > 0
    assert torch.equal(gradient, other_gradient)
    assert gradient.any() and not gradient[~valid.unsqueeze(1).expand_as(gradient)].any()


@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_the_loss_is_that_of_the_other_pixels_alone(recipe):
    """Below row 9 every pixel is ignored: value and gradient are those of the images cut there."""
    loss = build(recipe)
    target, _ = ignored_labels("below")
    logits = logits_of((3, 4, 14, 12))
    value, gradient = value_and_gradient(loss, logits, target)
    cut, cut_gradient = value_and_gradient(loss, logits[:, :, :9], target[:, :9])
    if recipe.get("name") in SCALED:
        return  # by the diagonal of the whole image; the second test of `average_hausdorff` below
    torch.testing.assert_close(value, cut, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient[:, :, :9], cut_gradient, rtol=1e-4, atol=1e-7)


def test_average_hausdorff_of_the_other_pixels_alone():
    """Of the same diagonal, if the reference and the prediction are not empty."""
    target, _ = ignored_labels("below")
    logits = 20.0 * F.one_hot(blobs((3, 14, 12), seed=5), 4).movedim(-1, 1)
    loss = build({"name": "average_hausdorff"})
    whole, cut = loss(logits, target).item() * np.hypot(14, 12), loss(logits[:, :, :9], target[:, :9]).item() * 15
    assert whole == pytest.approx(cut, rel=1e-5)


@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_a_batch_of_ignored_pixels_costs_nothing(recipe):
    target = torch.full((2, 9, 9), IGNORE)
    value, gradient = value_and_gradient(build(recipe), logits_of((2, 4, 9, 9)), target)
    assert value.item() == 0 and not gradient.any()
    if recipe.get("name") in (None, ENVELOPE) or "batch" in str(recipe):
        return
    target[0] = blobs((1, 9, 9))[0]  # one whole image, and one that is ignored
    assert build(recipe)(logits_of((2, 4, 9, 9)), target).item() > 0


def test_telling_that_nothing_is_ignored_saves_looking():
    logits, target = logits_of((2, 4, 9, 9)), blobs((2, 9, 9))
    loss = build({"name": "dice"})
    assert loss(logits, target, ignored=False).item() == loss(logits, target).item()
    target[0, 0, 0] = IGNORE
    assert loss(logits, target, ignored=True).item() == loss(logits, target).item()
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        loss(logits, target, ignored=False)


# Deep supervision


def test_labels_are_taken_at_the_nearest_centre():
    target = torch.arange(8 * 6).view(1, 8, 6)
    assert nearest(target, (8, 6)) is target
    expected = F.interpolate(target[None].float(), (4, 3), mode="nearest-exact")[0].long()
    assert torch.equal(nearest(target, (4, 3)), expected)
    odd = torch.arange(7 * 9 * 5).view(1, 7, 9, 5)
    expected = F.interpolate(odd[None].float(), (3, 5, 2), mode="nearest-exact")[0].long()
    assert torch.equal(nearest(odd, (3, 5, 2)), expected)
    ignored = torch.full((1, 4, 4), IGNORE)
    assert (nearest(ignored, (2, 2)) == IGNORE).all()


@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_levels_weigh_one_half_of_the_finer(recipe):
    target = blobs((2, 16, 12))
    target[0, :3, :3] = IGNORE
    levels = [logits_of((2, 4, *size), seed=i) for i, size in enumerate([(16, 12), (8, 6), (4, 3)])]
    loss = build(recipe)
    steps = [torch.full((2, 2), float(2**i), dtype=torch.float64) for i in range(3)]
    parts = [loss(z, nearest(target, z.shape[2:]), spacing=step) for z, step in zip(levels, steps, strict=True)]
    expected = (4 * parts[0] + 2 * parts[1] + parts[2]) / 7
    torch.testing.assert_close(loss(levels, target), expected)
    torch.testing.assert_close(loss(levels[:1], target), parts[0])


def test_deep_supervision_keeps_distances_in_mm():
    """A level of half the size has pixels of twice the size: the same shift costs the same share."""
    target = torch.zeros(1, 16, 16, dtype=torch.int64)
    target[:, 4:8, 4:8] = 1
    moved = F.one_hot(target.roll(4, 2), 2).movedim(-1, 1) * 40.0
    loss = build_loss({"name": "boundary"}, spacing=[1.5, 1.5])
    fine, coarse = (
        loss(moved, target),
        loss(moved[:, :, ::2, ::2], nearest(target, (8, 8)), spacing=torch.full((1, 2), 3.0).double()),
    )
    both = loss([moved, moved[:, :, ::2, ::2]], target)
    assert both.item() == pytest.approx((2 * fine.item() + coarse.item()) / 3, rel=1e-6)


# The whole registry: invariances


WITHOUT_ORDER = [r for r in ALL if not isinstance(r.get("weights"), list)]


@pytest.mark.parametrize("recipe", WITHOUT_ORDER, ids=label)
def test_the_order_of_the_structures_does_not_matter(recipe):
    logits, target = logits_of((2, 4, 12, 12)), blobs((2, 12, 12))
    new = torch.tensor([0, 3, 1, 2])  # class c becomes new[c]
    back = new.argsort()
    counts = {key: [values[int(c)] for c in back] for key, values in COUNTS.items()}
    labels = [(new[torch.as_tensor(y)].numpy(), step) for y, step in TRAINING["training_labels"]()]
    value = build(recipe)(logits, target)
    permuted = build(recipe, class_frequencies=counts, training_labels=lambda: iter(labels))
    torch.testing.assert_close(permuted(logits[:, back], new[target]), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_a_batch_twice_costs_what_it_costs_once(recipe):
    logits, target = logits_of((2, 4, 10, 10)), blobs((2, 10, 10))  # shares of pixels are whole numbers
    twice = build(recipe)(torch.cat([logits, logits]), torch.cat([target, target]))
    torch.testing.assert_close(twice, build(recipe)(logits, target), rtol=1e-5, atol=1e-6)


OF_IMAGES = [
    *({"name": name} for name in ("cross_entropy", "focal", "generalised_cross_entropy", "symmetric_cross_entropy",
      "border_weighted_cross_entropy", "dilated_balanced_cross_entropy", "average_hausdorff", "weighted_hausdorff",
      "hausdorff_dt", "boundary")),
    *({"name": name, "over": "image"} for name in ("dice", "jaccard", "tversky", "mcc", "lovasz", "pm_dice",
      "generalised_dice", "nr_dice")),
]  # fmt: skip


@pytest.mark.parametrize("recipe", OF_IMAGES, ids=label)
def test_the_loss_of_a_batch_is_the_mean_of_its_images(recipe):
    logits, target = logits_of((3, 4, 12, 12)), blobs((3, 12, 12))
    loss = build(recipe)
    each = torch.stack([loss(logits[i : i + 1], target[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(loss(logits, target), each.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_absent_classes_and_an_image_of_background(recipe):
    """Finite, and more expensive where the absent class is predicted (unless the loss skips or sees no border)."""
    loss = build(recipe)
    for target in (blobs((2, 12, 12)).clamp(max=2), torch.zeros(2, 12, 12, dtype=torch.int64)):
        logits = logits_of((2, 4, 12, 12))
        value, gradient = value_and_gradient(loss, logits, target)
        assert value.isfinite() and gradient.isfinite().all()
        right = 50.0 * F.one_hot(target, 4).movedim(-1, 1)
        assert 0 <= loss(right, target).item() < 0.05


def test_recipes_are_not_changed_by_building():
    recipe = loss_recipe("dice_tkbas", CATALOGUE)
    before = copy.deepcopy(recipe)
    build(recipe)
    assert recipe == before


@pytest.mark.parametrize("recipe", ALL, ids=label)
def test_volumes_with_regions_ignored_voxels_and_levels_at_once(recipe):
    if isinstance(recipe.get("weights"), list):
        recipe = recipe | {"weights": [0.5, 2.0]}
    counts = [{"voxels": [60, 40], "voxels_of_cases_with_class": [100, 100]}] * 3
    labels = blobs((2, 8, 10, 9))
    loss = build(
        recipe,
        regions=REGIONS,
        class_frequencies=counts,
        training_labels=lambda: [(labels.numpy(), np.ones(3))],
        spacing=[3.0, 1.0, 1.0],
    )
    target = labels.masked_fill(torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) > 0.8, IGNORE)
    levels = [region_logits((2, 8, 10, 9)), region_logits((2, 4, 5, 5))]
    value = loss(levels, target)
    gradients = torch.autograd.grad(value, levels)
    assert value.item() > 0 and all(gradient.isfinite().all() and gradient.any() for gradient in gradients)
    assert not gradients[0][(target == IGNORE).unsqueeze(1).expand_as(gradients[0])].any()
