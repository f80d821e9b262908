"""The simulated cohort: the same for a seed, T1-like, with a known truth and theoretical noise."""

from __future__ import annotations

from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter, map_coordinates

from lib.data.simulate import (
    FIELD_OF_VIEW,
    deformation,
    exponential,
    jacobian_determinant,
    load_anatomy,
    rician,
    rotation,
    simulate_cohort,
    simulate_patient,
)
from lib.errors import BadInput

SPACING = 4.0  # coarse, so that the whole file runs in seconds


@pytest.fixture(scope="module")
def anatomy():
    return load_anatomy(SPACING)


@pytest.fixture(scope="module")
def patients(anatomy):
    return [simulate_patient(anatomy, np.random.default_rng([0, k]), SPACING) for k in range(1, 9)]


def test_cohort_is_written_as_nifti_and_reproducible(tmp_path):
    simulate_cohort(tmp_path / "two", patients=2, seed=5, spacing=SPACING)
    load_anatomy.cache_clear()
    simulate_cohort(tmp_path / "three", patients=3, seed=5, spacing=SPACING)
    simulate_cohort(tmp_path / "other", patients=1, seed=6, spacing=SPACING)
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [
        "sim01_seg.nii.gz", "sim01_t1.nii.gz", "sim02_seg.nii.gz", "sim02_t1.nii.gz",
    ]  # fmt: skip
    for name in ("sim01_t1", "sim01_seg", "sim02_t1", "sim02_seg"):
        # patient k is the same whatever the size of the cohort, to the byte
        file = f"{name}.nii.gz"
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "three" / file).read_bytes()
    first, other = (nib.load(tmp_path / c / "sim01_t1.nii.gz").get_fdata() for c in ("two", "other"))
    second = nib.load(tmp_path / "two" / "sim02_t1.nii.gz").get_fdata()
    assert np.mean(first != other) > 0.1
    assert np.mean(first != second) > 0.1

    image, truth = (nib.load(tmp_path / "two" / f"sim01_{k}.nii.gz") for k in ("t1", "seg"))
    assert image.get_data_dtype() == np.int16
    assert truth.get_data_dtype() == np.uint8
    assert np.array_equal(image.affine, truth.affine)
    assert image.header.get_zooms() == (SPACING,) * 3
    assert image.header.get_xyzt_units()[0] == "mm"
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_affine_places_the_brain_where_the_atlas_has_it(patients):
    # the world origin of the ICBM atlas is the anterior commissure, well inside the brain, near the midline
    for _, truth, affine in patients:
        world = nib.affines.apply_affine(affine, np.argwhere(truth > 0))
        assert np.all(np.abs(world.mean(0) - [0, -18, 8]) < 12)
        origin = np.round(np.linalg.inv(affine) @ [0, 0, 0, 1])[:3].astype(int)
        assert truth[tuple(origin)] > 0


def test_tissues_have_realistic_shares_and_t1_order(patients):
    for image, truth, _ in patients:
        voxels = np.bincount(truth.ravel(), minlength=4)
        assert len(voxels) == 4
        shares = voxels[1:] / voxels[1:].sum()
        assert 0.04 < shares[0] < 0.11  # CSF: partial volume at 4 mm eats some of the 8 %
        assert shares[1] > shares[2] > 0.25
        assert 1100 < voxels[1:].sum() * SPACING**3 / 1000 < 2600  # ml, of the size of human brains
        means = [image[truth == tissue].mean() for tissue in (1, 2, 3)]
        assert means[0] < means[1] < means[2]
        assert image.min() == 0
        assert np.all(image[truth > 0] > 0)  # zero means outside


@pytest.mark.slow
def test_csf_is_about_eight_percent_at_two_millimetres():
    maps = load_anatomy(2.0)
    shares = []
    for k in range(1, 6):
        _, truth, _ = simulate_patient(maps, np.random.default_rng([0, k]), 2.0)
        shares.append(np.mean(truth[truth > 0] == 1))
    assert np.mean(shares) == pytest.approx(0.077, abs=0.006)


def test_patients_differ_in_contrast_and_anatomy(patients):
    ratios = [image[truth == 1].mean() / image[truth == 3].mean() for image, truth, _ in patients]
    assert np.ptp(ratios) > 0.05
    truths = [truth for _, truth, _ in patients]
    dice = [2 * np.sum((a == 3) & (b == 3)) / (np.sum(a == 3) + np.sum(b == 3)) for a, b in pairwise(truths)]
    assert max(dice) < 0.85  # copying another patient's label map is no solution
    # nor is a threshold: grey and white matter overlap in intensity
    for image, truth, _ in patients:
        grey, white = (image[truth == t] for t in (2, 3))
        assert np.percentile(grey, 95) > np.percentile(white, 5)


def test_fractions_are_a_partition(anatomy):
    fractions = anatomy[0][:4]
    assert fractions.min() >= -1e-6
    assert np.allclose(fractions.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_deformation_does_not_fold(seed):
    shape = tuple((FIELD_OF_VIEW / SPACING).astype(int))
    points = deformation(np.random.default_rng(seed), shape, SPACING)
    determinant = jacobian_determinant(points, SPACING)
    assert determinant.min() > 0
    assert 0.8 < np.median(determinant) < 1.25
    assert np.ptp(determinant) > 0.5  # and it is not the identity


def test_jacobian_of_a_known_affine_map():
    matrix = rotation(np.radians([10, -20, 30])) @ np.diag([1.1, 0.9, 1.3])
    grid = np.stack(np.meshgrid(*[np.arange(5) * 2.0] * 3, indexing="ij"))
    determinant = jacobian_determinant(np.tensordot(matrix, grid, 1), 2.0)
    assert np.allclose(determinant, 1.1 * 0.9 * 1.3)
    folded = np.tensordot(np.diag([-1.0, 1, 1]), grid, 1)
    assert np.allclose(jacobian_determinant(folded, 2.0), -1)


def test_rotation_is_proper():
    matrix = rotation(np.array([0.3, -0.2, 0.5]))
    assert np.allclose(matrix @ matrix.T, np.eye(3))
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert np.allclose(rotation(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0])


def test_exponential_of_known_velocities():
    # a constant velocity is a translation
    constant = np.zeros((3, 9, 9, 9))
    constant[1] = 1.5
    assert np.allclose(exponential(constant), constant)
    # v(x) = a·x about the centre gives x → exp(a)·x
    a = 0.2
    grid = np.stack(np.meshgrid(*[np.arange(21) - 10.0] * 3, indexing="ij"))
    displacement = exponential(a * grid, steps=10)
    inner = (slice(None), *[slice(6, 15)] * 3)
    assert np.allclose(displacement[inner], (np.exp(a) - 1) * grid[inner], atol=2e-3)
    # exp(−v) undoes exp(v)
    rng = np.random.default_rng(0)
    velocity = np.stack([gaussian_filter(rng.standard_normal((24, 24, 24)), 4) for _ in range(3)])
    velocity *= 2 / velocity.std()
    forth, back = exponential(velocity), exponential(-velocity)
    where = np.stack(np.meshgrid(*[np.arange(24.0)] * 3, indexing="ij"))
    there = where + forth
    home = there + np.stack([map_coordinates(b, there, order=1, mode="nearest") for b in back])
    inner = (slice(None), *[slice(7, 17)] * 3)
    assert np.abs(home - where)[inner].max() < 0.15
    assert np.abs(forth[inner]).max() > 2


@pytest.mark.parametrize("signal", [0.0, 10.0, 60.0])
def test_rician_noise_follows_its_distribution(signal):
    sigma = 10.0
    noisy = rician(np.full(200_000, signal), sigma, np.random.default_rng(1))
    law = stats.rice(signal / sigma, scale=sigma)
    assert noisy.mean() == pytest.approx(law.mean(), rel=0.01)
    assert noisy.std() == pytest.approx(law.std(), rel=0.01)
    assert stats.kstest(noisy[:5000], law.cdf).pvalue > 0.001
    if signal == 0:
        assert noisy.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)  # Rayleigh floor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "colin27"}, "source.simulate: unknown template 'colin27'; write `simulate: icbm152`"),
        ({"patients": 0}, "source.patients: 0 must be a whole number from 1"),
        ({"patients": 2.5}, r"source.patients: 2\.5 must be a whole number"),
        ({"seed": -1}, "source.seed: -1 must be a whole number >= 0"),
        ({"spacing": 0.5}, r"source.spacing: 0\.5 mm must lie between 1"),
        ({"spacing": float("nan")}, "source.spacing: nan mm must lie between"),
    ],
)
def test_bad_settings_name_the_key(tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        simulate_cohort(**{"folder": tmp_path / "raw", "patients": 1, "seed": 0, **change})
    assert not (tmp_path / "raw").exists()
