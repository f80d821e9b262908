"""Near duplicates: what keeps a signature, what changes it, and who is grouped with whom."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from lib.data import duplicates
from lib.data.duplicates import groups, near_duplicates, signature


def scene(seed: int, sigma: float = 4, size: tuple[int, ...] = (120, 160)) -> np.ndarray:
    """Smooth noise from 20 to 220: every seed shows something else of the same texture."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=size), sigma)
    return (noise - noise.min()) / np.ptp(noise) * 200 + 20


def of(array: np.ndarray) -> np.ndarray:
    return signature(np.asarray(array, np.float32).reshape(1, *array.shape, *[1] * (3 - array.ndim)))


def resized(array: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(array.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(array: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


COPIES = {
    "darker and flatter": (lambda a: a * 0.4 + 70, 0.9999),
    "gamma": (lambda a: (a / 255) ** 1.5, 0.97),
    "half the size": (lambda a: resized(a, 80, 60), 0.95),
    "larger, other proportions": (lambda a: resized(a, 219, 301), 0.98),
    "JPEG of quality 60": (lambda a: jpeg(a, 60), 0.99),
    "JPEG of quality 20": (lambda a: jpeg(a, 20), 0.98),
    "noise of SD 10": (lambda a: a + np.random.default_rng(9).normal(0, 10, a.shape), 0.95),
}
OTHERS = {
    "mirrored": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "turned": lambda a: a.T,
    "negative": lambda a: 255 - a,
}


@pytest.mark.parametrize("sigma", [2, 4, 8, 16])
def test_copies_stay_alike_and_other_images_do_not(sigma):
    scenes = [scene(seed, sigma) for seed in range(12)]
    signatures = np.stack([of(a) for a in scenes])
    np.testing.assert_allclose(np.linalg.norm(signatures, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(signatures.mean(axis=1), 0, atol=1e-6)
    alike = signatures @ signatures.T
    assert alike[np.triu_indices(len(scenes), 1)].max() < 0.6
    for name, (copy, least) in COPIES.items():
        assert min(of(copy(a)) @ own for a, own in zip(scenes, signatures, strict=True)) > least, name
    for name, change in OTHERS.items():
        assert max(of(change(a)) @ own for a, own in zip(scenes, signatures, strict=True)) < 0.7, name


def test_colours_and_volumes():
    grey = scene(0)
    colours = np.stack([grey * 0.5, grey * 0.7 + 3, grey * 0.9])[..., None].astype(np.float32)
    assert signature(colours) @ of(grey) > 0.999
    volumes = [scene(seed, 3, (40, 50, 30)) for seed in range(4)]
    signatures = [of(volume) for volume in volumes]
    assert len(signatures[0]) == 24**3
    assert max(signatures[a] @ signatures[b] for a in range(4) for b in range(a)) < 0.3
    assert of(volumes[0] * 7 - 3) @ signatures[0] > 0.9999
    assert of(volumes[0][:, :, ::2]) @ signatures[0] > 0.9


def test_what_all_images_share_is_taken_away():
    """A bright body on a dark ground is in every image: it must not make strangers alike."""
    x, y = np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 160), indexing="ij")
    body = 400 * np.exp(-(x**2 + y**2))
    first, second = body + scene(0), body + scene(1)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.89
    assert of(first) @ of(second) < 0.6


def test_images_without_contents_resemble_nothing():
    for array in (np.full((30, 40), 12345.678), np.zeros((20, 20, 20)), np.full((1, 1), 3.0)):
        assert not of(array).any()
    assert near_duplicates([of(np.zeros((9, 9)))] * 2, ["a", "b"], 0.5) == []
    broken = scene(0)
    broken[3, 3] = np.nan
    with np.errstate(invalid="ignore"):
        assert near_duplicates([of(broken)] * 2, ["a", "b"], 0.5) == []


def test_smaller_images_than_the_grid():
    tiny = np.random.default_rng(0).normal(size=(5, 7))
    assert of(tiny) @ of(np.kron(tiny, np.ones((32, 32)))) > 0.85
    assert of(np.arange(9.0).reshape(9, 1)).shape == (32,)


def test_pairs_are_those_of_every_comparison(monkeypatch):
    rng = np.random.default_rng(3)
    base = rng.normal(size=(6, 50))
    vectors = [v / np.linalg.norm(v) for v in base[rng.integers(0, 6, 60)] + rng.normal(0, 0.5, (60, 50))]
    vectors = [
        v.astype(np.float32) if n % 3 else v[:30].astype(np.float32) for n, v in enumerate(vectors)
    ]  # two lengths
    patients = [f"p{n}" for n in rng.integers(0, 25, 60)]
    expected = {
        (i, j): float(vectors[i] @ vectors[j])
        for j in range(60)
        for i in range(j)
        if len(vectors[i]) == len(vectors[j]) and patients[i] != patients[j] and vectors[i] @ vectors[j] > 0.6
    }
    assert len(expected) > 50
    for rows in (1000, 7, 1):
        monkeypatch.setattr(duplicates, "ROWS", rows)
        pairs = near_duplicates(vectors, patients, 0.6)
        assert {(i, j): alike for i, j, alike in pairs} == pytest.approx(expected, abs=1e-5)
        similarities = [alike for *_, alike in pairs]
        assert similarities == sorted(similarities, reverse=True)


def test_pictures_never_resemble_volumes_and_a_patient_resembles_himself():
    flat, volume = of(scene(0)), of(scene(0, 3, (40, 50, 30)))
    assert near_duplicates([flat, volume, flat], ["a", "b", "a"], 0.1) == []
    assert near_duplicates([flat, volume, flat], ["a", "b", "c"], 0.1) == [(0, 2, pytest.approx(1.0, abs=1e-6))]
    assert near_duplicates([], [], 0.5) == []


def test_groups_reach_through_others():
    assert groups([]) == {}
    assert groups([("b", "a")]) == {"a": "a", "b": "a"}
    # d-c, c-b and b-a are one film; x-y another
    chain = [("d", "c"), ("x", "y"), ("b", "a"), ("c", "b"), ("d", "c")]
    assert groups(chain) == {"a": "a", "b": "a", "c": "a", "d": "a", "x": "x", "y": "x"}
    assert list(groups(chain)) == sorted(groups(chain))
    for seed in range(5):  # whatever the order
        assert groups([chain[n] for n in np.random.default_rng(seed).permutation(5)]) == groups(chain)
