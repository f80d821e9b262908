"""A simulated cohort of skull-stripped brain T1 images: real anatomy, exact truth, no download.

The anatomy is the ICBM 2009a nonlinear symmetric template and its tissue maps (Fonov et al. 2011), which ship
inside nilearn. Every patient is that one anatomy, deformed: the cohort shows whether a pipeline works and how
methods differ under control; it is no evidence about patients.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import (
    load_mni152_brain_mask,
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
from scipy.ndimage import gaussian_filter, map_coordinates

from lib.errors import BadInput
from lib.files import atomic

FIELD_OF_VIEW = np.array([192.0, 224.0, 192.0])  # mm, holds the deformed brain; 96 × 112 × 96 voxels at 2 mm
CENTRE = np.array([0.0, -17.0, 6.0])  # mm, the middle of the template's brain
CONTROL_SPACING = 4.0  # mm, grid of the velocity field
MAX_PATIENTS = 999


def simulate_cohort(
    folder: str | Path, patients: int, seed: int, spacing: float = 2.0, template: str = "icbm152"
) -> None:
    """Write `sim01_t1.nii.gz`, `sim01_seg.nii.gz`, … for `patients` simulated patients into `folder`.
    T1 is int16 (arbitrary units), zero outside the brain; the truth is uint8: 0 background, 1 CSF, 2 grey
    matter, 3 white matter. `spacing` is isotropic, in mm. Patient k depends on `seed` and k only, not on the
    size of the cohort. `folder` appears complete or not at all. Raises BadInput on values out of range.
    """
    if template != "icbm152":
        raise BadInput(f"source.simulate: unknown template '{template}'; write `simulate: icbm152`")
    if isinstance(patients, bool) or not isinstance(patients, int) or not 1 <= patients <= MAX_PATIENTS:
        raise BadInput(f"source.patients: {patients!r} must be a whole number from 1 to {MAX_PATIENTS}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise BadInput(f"source.seed: {seed!r} must be a whole number >= 0")
    if not 1 <= spacing <= 8:
        raise BadInput(f"source.spacing: {spacing!r} mm must lie between 1 (the template's own) and 8")
    anatomy = load_anatomy(spacing)
    with atomic(folder) as temporary:
        temporary.mkdir()
        for number in range(1, patients + 1):
            image, truth, affine = simulate_patient(anatomy, np.random.default_rng([seed, number]), spacing)
            for name, array in (("t1", image), ("seg", truth)):
                nifti = nib.Nifti1Image(array, affine)
                nifti.header.set_xyzt_units("mm")
                nib.save(nifti, temporary / f"sim{number:02d}_{name}.nii.gz")


@lru_cache(maxsize=1)  # seconds
def load_anatomy(spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Maps (5, X, Y, Z) float32 on the template's 1 mm grid, cropped to the brain, and their affine.
    Maps 0-3 are the fractions of background, CSF, grey and white matter, summing to 1; map 4 is the local
    deviation of the template's T1 from its tissue means (deep grey matter is brighter than cortex), as a
    fraction of the white matter mean. CSF = brain mask − grey − white, clipped at 0. The template is an
    average of 152 people and so blurred: the fractions are sharpened (squared and renormalised). Then comes
    the partial volume of a voxel of `spacing` mm: a Gaussian with the variance, spacing²/12, that such a box
    has beyond the template's 1 mm box (1/12) and the linear interpolation that follows (1/6 on average).
    """
    brain = load_mni152_brain_mask(resolution=1)
    box = tuple(slice(max(0, at.min() - 4), at.max() + 5) for at in np.nonzero(np.asarray(brain.dataobj)))
    affine = brain.slicer[box].affine
    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    brain = brain.get_fdata(dtype=np.float32)[box]
    t1, grey, white = (load(resolution=1).get_fdata(dtype=np.float32)[box] * brain for load in loaders)
    fractions = np.stack([1 - brain, np.clip(brain - grey - white, 0, 1), grey, white])
    means = np.array([t1[fraction > 0.9].mean(dtype=np.float64) for fraction in fractions[1:]], np.float32)
    local = (t1 - np.tensordot(means, fractions[1:], 1)) / means[-1]
    fractions *= fractions
    fractions /= fractions.sum(0)
    smoothing = np.sqrt(max(spacing**2 - 3, 0) / 12)
    return gaussian_filter(np.concatenate([fractions, local[None]]), (0, *[smoothing] * 3), mode="nearest"), affine


def simulate_patient(
    anatomy: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (T1 (X, Y, Z) int16, truth (X, Y, Z) uint8, affine (4, 4)) of one patient.
    The signal is bias × (Σ fraction × tissue mean + local deviation), with the means drawn per patient in the
    T1 order CSF < grey < white, and Rician noise of SNR 15-25 in white matter. The bias is 1 + b·f, b in
    0.2-0.3, with f smooth (40 mm) and scaled to max |f| = 1 over the brain. Voxels with less than a tenth of
    brain are zero, as a skull-stripping tool leaves them. The truth is the argmax of the deformed fractions.
    """
    maps, template_affine = anatomy
    shape = tuple(np.round(FIELD_OF_VIEW / spacing).astype(int))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = CENTRE - spacing * (np.array(shape) - 1) / 2
    points = deformation(rng, shape, spacing)  # (3, X, Y, Z), mm
    to_voxels = np.linalg.inv(template_affine)
    voxels = np.tensordot(to_voxels[:3, :3], points, 1) + to_voxels[:3, 3, None, None, None]
    deformed = [map_coordinates(m, voxels, order=1, mode="constant", cval=float(i == 0)) for i, m in enumerate(maps)]
    fractions, local = np.stack(deformed[:4]), deformed[4]
    truth = fractions.argmax(0).astype(np.uint8)

    white = rng.uniform(400, 900)
    means = white * np.array([rng.uniform(0.22, 0.42), rng.uniform(0.66, 0.80), 1.0])  # CSF, grey, white
    signal = np.tensordot(means, fractions[1:], 1) + rng.uniform(0.5, 1.2) * white * local
    brain = fractions[0] < 0.9
    bias = smooth_noise(rng, shape, 40 / spacing)
    bias = 1 + rng.uniform(0.2, 0.3) * bias / np.abs(bias[brain]).max()
    image = rician(np.clip(signal * bias, 0, None), white / rng.uniform(15, 25), rng)
    # Within the brain the least value is 1, so that zero keeps its meaning: outside.
    image = np.where(brain, np.maximum(np.round(image), 1), 0).astype(np.int16)
    return image, truth, affine


def deformation(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """Where each voxel of the patient's grid lies in the template: points (3, *shape) float64, mm.
    x → A·exp(v)(x): v is a stationary velocity field of two scales (smooth over 20 mm, about 3 mm in size,
    and over 8 mm, about 1 mm), exponentiated by scaling and squaring (Arsigny et al. 2006; Ashburner 2007),
    which gives an invertible map; A turns by up to about 5 degrees, scales each axis by up to about 7 % and
    shifts by a few mm. Raises RuntimeError if the Jacobian determinant is not positive everywhere.
    """
    control = tuple(np.ceil(FIELD_OF_VIEW / CONTROL_SPACING).astype(int) + 1)
    velocity = sum(
        size * np.stack([smooth_noise(rng, control, width / CONTROL_SPACING) for _ in range(3)])
        for width, size in ((20.0, 3.0), (8.0, 1.0))
    )
    displacement = exponential(velocity / CONTROL_SPACING) * CONTROL_SPACING
    angles = np.radians(rng.normal(0, 2.5, 3))
    scales = np.exp(rng.normal(0, 0.035, 3))
    shift = rng.normal(0, 2.0, 3)

    offset = spacing * (np.array(shape) - 1) / 2
    grid = [np.arange(n) * spacing - o for n, o in zip(shape, offset, strict=True)]  # mm about the centre
    points = np.stack(np.meshgrid(*grid, indexing="ij"))
    nodes = (points + (CONTROL_SPACING * (np.array(control) - 1) / 2)[:, None, None, None]) / CONTROL_SPACING
    points += np.stack([map_coordinates(d, nodes, order=1, mode="nearest") for d in displacement])
    matrix = rotation(angles) * scales
    points = np.tensordot(matrix, points, 1) + (CENTRE + shift)[:, None, None, None]
    if (lowest := jacobian_determinant(points, spacing).min()) <= 0:
        raise RuntimeError(f"the simulated deformation folds (Jacobian determinant {lowest:.3g})")
    return points


def exponential(velocity: np.ndarray, steps: int = 6) -> np.ndarray:
    """Displacement exp(v) − id of a stationary velocity field (3, *S), in voxels, by scaling and squaring."""
    displacement = velocity / 2**steps
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in velocity.shape[1:]], indexing="ij"))
    for _ in range(steps):
        there = grid + displacement
        displacement = displacement + np.stack(
            [map_coordinates(d, there, order=1, mode="nearest") for d in displacement]
        )
    return displacement


def jacobian_determinant(points: np.ndarray, spacing: float) -> np.ndarray:
    """Determinant (*S) of the derivative of a map `points` (3, *S), mm, on a grid of `spacing` mm."""
    rows = [np.gradient(component, spacing) for component in points]
    return np.einsum("i...,i...->...", np.stack(rows[0]), np.cross(rows[1], rows[2], axis=0))


def rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix about x, then y, then z, angles in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    """Gaussian random field (*shape) of mean 0 and SD 1, white noise smoothed with SD `width` (voxels)."""
    field = gaussian_filter(rng.standard_normal(shape), width, mode="reflect")
    return (field - field.mean()) / field.std()


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of a noisy complex image, √((A + n₁)² + n₂²), n ~ N(0, σ²) (Gudbjartsson & Patz 1995).

    Where A = 0 this is the Rayleigh noise floor, of mean σ√(π/2); where A ≫ σ it is about N(A, σ²).
    """
    return np.hypot(signal + sigma * rng.standard_normal(signal.shape), sigma * rng.standard_normal(signal.shape))
