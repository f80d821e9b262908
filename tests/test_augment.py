"""Augmentation: geometry against maps computed by hand, image and label together, resumable random numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from lib.errors import BadInput
from lib.training import augment
from lib.training.augment import DEFAULTS, augment_batch, complete_settings

OFF = dict.fromkeys(DEFAULTS, False)


def settings(**transforms: dict) -> dict:
    """Only the named transforms, always applied."""
    return complete_settings(OFF | {name: {"probability": 1.0} | v for name, v in transforms.items()})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(dims: int, channels: int = 1, size: int = 24, seed: int = 0):
    source = generator(seed)
    shape = (4, channels, *[size - 2 * axis for axis in range(dims)])
    image = torch.randn(shape, generator=source)
    label = torch.randint(0, 4, (shape[0], *shape[2:]), generator=source)
    return image, label, torch.ones(4, dims, dtype=torch.float64)


@pytest.mark.parametrize("dims", [2, 3])
def test_zero_strengths_change_nothing(dims):
    image, label, spacing = batch(dims, channels=2)
    zero = {
        name: {key: value if key == "spacing" else 0.0 for key, value in v.items()} | {"probability": 1.0}
        for name, v in DEFAULTS.items()
    }
    new_image, new_label = augment_batch(image, label, spacing, complete_settings(zero), generator())
    assert torch.equal(new_label, label)
    torch.testing.assert_close(new_image, image, atol=1e-5, rtol=1e-5)


def test_samples_without_a_transform_come_back_bit_equal():
    image, label, spacing = batch(2)
    rare = {name: {"probability": 0.1} for name in DEFAULTS}
    same = changed = 0
    for seed in range(20):
        new_image, new_label = augment_batch(image, label, spacing, complete_settings(rare), generator(seed))
        for i in range(len(image)):
            equal = torch.equal(new_image[i], image[i])
            same, changed = same + equal, changed + (not equal)
            assert not equal or torch.equal(new_label[i], label[i])
    assert 0.4 < same / (same + changed) < 0.8  # 0.9^5 = 0.59


@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_label_move_together(dims):
    _, _, spacing = batch(dims)
    size = [32, 28, 20][:dims]
    grids = torch.meshgrid(*[torch.arange(n) - n / 2 for n in size], indexing="ij")
    blob = (sum(g**2 / (0.2 * n) ** 2 for g, n in zip(grids, size, strict=True)) < 1).long()
    label = blob.expand(4, *size).clone()
    label[:, : size[0] // 2] *= 2
    image = label[:, None].float()
    strong = settings(affine={"rotation": 40, "scale": 0.3, "shear": 0.2, "translation": 0.1}, elastic={})
    new_image, new_label = augment_batch(image, label, spacing, strong, generator(3))
    assert not torch.equal(new_label, label)
    assert set(new_label.unique().tolist()) <= {0, 1, 2}
    # Bilinear values within 0.5 of the nearest label, except where the three labels meet.
    wrong = (new_image[:, 0] - new_label).abs() > 0.5 + 1e-4
    assert wrong.float().mean() < 0.02


@pytest.fixture
def largest(monkeypatch):
    """Every symmetric draw is +1, so that strengths are the values applied."""
    monkeypatch.setattr(augment, "_symmetric", lambda shape, generator: torch.ones(shape))


def affine(**strengths: float) -> dict:
    return settings(affine={"rotation": 0, "scale": 0, "shear": 0, "translation": 0} | strengths)


def test_right_angles_and_translation_equal_numpy(largest):
    image = torch.randn((2, 1, 16, 16), generator=generator())
    label = torch.randint(0, 4, (2, 16, 16), generator=generator())
    spacing = torch.ones(2, 2, dtype=torch.float64)

    half, half_label = augment_batch(image, label, spacing, affine(rotation=180), generator())
    np.testing.assert_allclose(half, image.flip(2, 3), atol=1e-4)
    assert torch.equal(half_label, label.flip(1, 2))
    quarter, quarter_label = augment_batch(image, label, spacing, affine(rotation=90), generator())
    np.testing.assert_allclose(quarter, np.rot90(image, -1, (2, 3)), atol=1e-4)
    assert np.array_equal(quarter_label, np.rot90(label, -1, (1, 2)))
    moved, moved_label = augment_batch(image, label, spacing, affine(translation=0.25), generator())
    np.testing.assert_allclose(moved[..., :12, :12], image[..., 4:, 4:], atol=1e-4)
    assert torch.equal(moved_label[..., :12, :12], label[..., 4:, 4:])
    # Beyond the border both are reflected.
    np.testing.assert_allclose(moved[..., :12, 12:], image[..., 4:, 12:].flip(3), atol=1e-4)
    assert torch.equal(moved_label[..., :12, 12:], label[..., 4:, 12:].flip(2))


def test_three_dimensions_keep_their_axes(largest):
    image = torch.randn((1, 1, 8, 16, 12), generator=generator())
    label = torch.randint(0, 4, (1, 8, 16, 12), generator=generator())
    spacing = torch.tensor([[3.0, 1.0, 1.5]], dtype=torch.float64)
    moved, moved_label = augment_batch(image, label, spacing, affine(translation=0.25), generator())
    np.testing.assert_allclose(moved[..., :6, :12, :9], image[..., 2:, 4:, 3:], atol=1e-4)
    assert torch.equal(moved_label[..., :6, :12, :9], label[..., 2:, 4:, 3:])

    # 90 degrees in the planes (0,1), (0,2), (1,2), one after the other, in voxels and patch of equal sides.
    cube, ones = torch.randn((1, 1, 9, 9, 9), generator=generator()), torch.ones(1, 3, dtype=torch.float64)
    turned, _ = augment_batch(cube, torch.zeros(1, 9, 9, 9).long(), ones, affine(rotation=90), generator())
    quarter = np.array([[0, -1], [1, 0]])
    matrix = np.eye(3, dtype=int)
    for plane in ([0, 1], [0, 2], [1, 2]):
        step = np.eye(3, dtype=int)
        step[np.ix_(plane, plane)] = quarter
        matrix = step @ matrix
    points = np.indices((9, 9, 9)).reshape(3, -1) - 4
    expected = cube[0, 0].numpy()[tuple(matrix @ points + 4)].reshape(9, 9, 9)
    np.testing.assert_allclose(turned[0, 0], expected, atol=1e-4)


def test_a_rotation_is_rigid_in_anisotropic_voxels(largest):
    size, mm = (20, 40), (3.0, 1.0)
    y, x = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, mm, strict=True)], indexing="ij")

    def f(y, x):
        return np.sin(y / 9 + 0.3) + np.cos(x / 7)

    image = torch.from_numpy(f(y, x)).float()[None, None]
    spacing = torch.tensor([mm], dtype=torch.float64)
    turned, _ = augment_batch(image, torch.zeros(1, *size).long(), spacing, affine(rotation=20), generator())
    angle = math.radians(20)
    expected = f(math.cos(angle) * y - math.sin(angle) * x, math.sin(angle) * y + math.cos(angle) * x)
    inner = (slice(5, -5), slice(8, -8))
    np.testing.assert_allclose(turned[0, 0][inner], expected[inner], atol=0.03)


def test_a_positive_scale_enlarges(largest):
    y, x = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    label = (y**2 + x**2 < 15**2).long()[None]
    spacing = torch.ones(1, 2, dtype=torch.float64)
    _, larger = augment_batch(label[:, None].float(), label, spacing, affine(scale=0.2), generator())
    assert larger.sum() / label.sum() == pytest.approx(math.exp(0.4), rel=0.02)


@pytest.mark.parametrize(("n", "span"), [(20, 7.0), (33, 16.0), (9, 4.5)])
def test_the_spline_is_scipys(n, span):
    points = math.ceil(n / span) + 3
    controls = np.random.default_rng(0).normal(size=(2, points))
    knots = (np.arange(points + 4) - 3) * span
    at = np.arange(n) + 0.5
    expected = [BSpline(knots, c, 3)(at) for c in controls]
    got = augment._spline([span], (n,), torch.from_numpy(controls).float())
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_elastic_displacements_are_smooth_and_of_the_stated_size():
    ramp = torch.arange(96.0).expand(8, 1, 96, 96)  # its value is the column that a pixel was read from
    spacing = torch.ones(8, 2, dtype=torch.float64)
    label = torch.zeros(8, 96, 96).long()
    new, _ = augment_batch(ramp, label, spacing, settings(elastic={"displacement": 3.0}), generator(1))
    shift = (new - ramp)[..., 8:-8, 8:-8]
    assert 0.2 < shift.std() < 3 and shift.abs().max() < 12
    assert new[..., 8:-8, 8:-8].diff(dim=-1).min() > 0  # no folding


def test_gamma_and_gain_by_hand():
    image = torch.tensor([[[[-1.0, 0.0, 1.0, 3.0]]]])
    rows, gain = torch.tensor([0]), torch.full((1, 1, 4), 2.0)
    got = augment._change_contrast(image, rows, torch.tensor([2.0]), gain)
    # (0, 1/4, 1/2, 1) squared, doubled, times the range 4, minus 1
    np.testing.assert_allclose(got, [[[[-1.0, -0.5, 1.0, 7.0]]]], atol=1e-6)
    constant = torch.full((1, 1, 1, 4), 5.0)
    assert torch.equal(augment._change_contrast(constant, rows, torch.tensor([2.0]), gain), constant)


def test_noise_is_in_units_of_the_patch():
    image = 100 * torch.randn((4, 1, 64, 64), generator=generator()) + 7
    label, spacing = torch.zeros(4, 64, 64).long(), torch.ones(4, 2, dtype=torch.float64)
    new, new_label = augment_batch(image, label, spacing, settings(noise={"strength": 0.5}), generator(2))
    deviation = (new - image).std(dim=(1, 2, 3)) / 100
    assert (deviation < 0.52).all() and deviation.max() > 0.1 and deviation.unique().numel() == 4
    assert torch.equal(new_label, label)


def test_contrast_leaves_labels_and_shape_alone():
    image, label, spacing = batch(3, channels=2)
    new, new_label = augment_batch(image, label, spacing, settings(gamma={}, bias={}), generator())
    assert torch.equal(new_label, label) and new.shape == image.shape and not torch.equal(new, image)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_generator_is_the_whole_state(dims):
    image, label, spacing = batch(dims)
    everything = settings(**{name: {} for name in DEFAULTS})
    source = generator(5)
    augment_batch(image, label, spacing, everything, source)
    state = source.get_state()
    first = augment_batch(image, label, spacing, everything, source)
    torch.rand(7)  # the global generator plays no part
    resumed = torch.Generator()
    resumed.set_state(state)
    second = augment_batch(image, label, spacing, everything, resumed)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    third = augment_batch(image, label, spacing, everything, source)
    assert not torch.equal(first[0], third[0])


def test_the_input_is_not_changed():
    image, label, spacing = batch(2)
    before = image.clone(), label.clone()
    augment_batch(image, label, spacing, settings(**{name: {} for name in DEFAULTS}), generator())
    assert torch.equal(image, before[0]) and torch.equal(label, before[1])


def test_settings():
    assert complete_settings(False) is None
    assert complete_settings({}) == complete_settings(True) == DEFAULTS
    given = complete_settings({"affine": {"rotation": 30}, "noise": False})
    assert given["affine"] == DEFAULTS["affine"] | {"rotation": 30} and given["noise"]["probability"] == 0
    with pytest.raises(BadInput, match=r"augment has no transform 'elastik'. Did you mean 'elastic'"):
        complete_settings({"elastik": {}})
    with pytest.raises(BadInput, match=r"augment.affine has no key 'rotate'. Did you mean 'rotation'"):
        complete_settings({"affine": {"rotate": 3}})


def test_the_documented_defaults_are_the_real_ones():
    page = (Path(__file__).resolve().parents[1] / "docs/training.md").read_text()
    rows = re.findall(r"^\| (?:`(\w+)`)? ?\| `(\w+)` \| ([\d.]+) \|", page, re.MULTILINE)
    documented, transform = {}, None
    for name, key, value in rows:
        transform = name or transform
        documented.setdefault(transform, {})[key] = float(value)
    assert documented == DEFAULTS
