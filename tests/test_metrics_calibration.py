"""Calibration against scikit-learn, a loop, and values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from lib.data.probabilities import read_probabilities, write_probabilities
from lib.errors import BadInput
from lib.metrics.calibration import BINS, MARGIN, score_calibration


def scores(probability, reference, spacing=(1, 1, 1), ignored=None) -> dict[str, float]:
    table = score_calibration({"s": probability}, reference, spacing, {"s": 1}, ignored)
    assert set(table["status"]) <= {"scored"} and set(table["unit"]) <= {""}
    return table.set_index("metric")["value"].to_dict()


def by_a_loop(p, y) -> float:
    """Guo et al. 2017, eq. 3, with the probability of the class as confidence."""
    error = 0.0
    for m in range(BINS):
        inside = (p >= m / BINS) & ((p < (m + 1) / BINS) | (m == BINS - 1))
        if inside.any():
            error += inside.sum() / p.size * abs(p[inside].mean() - y[inside].mean())
    return error


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_agrees_with_scikit_learn_and_a_loop(dtype):
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 0.9, (9, 10, 11)).astype(dtype)
    reference = (rng.random(p.shape) < p.astype(float) ** 1.4).astype(np.uint8)
    ours = scores(p, reference)  # smaller than the margin, so every voxel counts
    wide = p.astype(np.float64).ravel()
    assert ours["brier"] == pytest.approx(brier_score_loss(reference.ravel(), wide), abs=1e-6)
    assert ours["ece"] == pytest.approx(by_a_loop(p.astype(np.float32).ravel(), reference.ravel()), abs=1e-6)
    assert ours["ece"] > 0.03  # what p ** 1.4 is about


def test_values_by_hand():
    """Eight voxels: of four at 0.9 three are inside, of four at 0.2 one is."""
    p = np.array([0.9] * 4 + [0.2] * 4).reshape(2, 4, 1)
    reference = np.array([1, 1, 1, 0, 1, 0, 0, 0], np.uint8).reshape(p.shape)
    ours = scores(p, reference)
    assert ours["brier"] == pytest.approx((3 * 0.01 + 0.81 + 0.64 + 3 * 0.04) / 8)
    assert ours["ece"] == pytest.approx(0.5 * (0.9 - 0.75) + 0.5 * (0.25 - 0.2))
    assert scores(reference.astype(float), reference) == {"brier": 0, "ece": 0}
    assert scores(1 - reference.astype(float), reference) == {"brier": 1, "ece": 1}


def test_only_the_surroundings_of_the_structures_count():
    """A box of 4 x 2 x 1 voxels, 10 mm wider: 10, 5 and 3 voxels of (1, 2, 4) mm on each side."""
    reference = np.zeros((60, 50, 40), np.uint8)
    reference[30:34, 20:22, 10] = 1
    p = np.zeros(reference.shape, np.float32)
    assert MARGIN == 10
    p[20:44, 15:27, 7:14] = 1
    inside = 24 * 12 * 7
    assert scores(p, reference, (1, 2, 4)) == {
        metric: pytest.approx((inside - 8) / inside) for metric in ("brier", "ece")
    }
    assert scores(1 - p, reference, (1, 2, 4))["brier"] == pytest.approx(8 / inside)
    corner = np.roll(reference, (-30, -20, -10), (0, 1, 2))  # the region ends where the image does
    assert scores(np.zeros_like(p), corner, (1, 2, 4))["brier"] == pytest.approx(8 / (14 * 7 * 4))
    assert scores(p, reference * 0, (1, 2, 4))["brier"] == pytest.approx(inside / p.size)  # nothing there: all of it


def test_regions_of_overlapping_structures_share_the_box_of_all():
    reference = np.zeros((30, 40, 1), np.uint8)
    reference[12:20, 15:30], reference[14:16, 18:20] = 2, 4
    p = {"whole": np.isin(reference, (2, 4)) * 1.0, "core": np.full(reference.shape, 0.5)}
    table = score_calibration(p, reference, (1, 1, 1), {"whole": [2, 4], "core": 4})
    value = table.set_index(["structure", "metric"])["value"]
    box = 28 * 35
    assert value["whole"].tolist() == [0, 0]
    assert value["core", "brier"] == 0.25
    assert value["core", "ece"] == pytest.approx(abs(0.5 * box - 4) / box)


def test_ignored_voxels_do_not_count():
    p = np.full((4, 5, 1), 0.25)
    reference = np.zeros(p.shape, np.uint8)
    reference[0] = 1
    ignored = np.zeros(p.shape, bool)
    assert scores(p, reference, ignored=ignored) == scores(p, reference)
    ignored[0, :3] = True
    assert scores(p, reference, ignored=ignored)["brier"] == pytest.approx((2 * 0.75**2 + 15 * 0.25**2) / 17)
    ignored[:] = True
    assert scores(p, reference, ignored=ignored) == {}


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_what_is_no_probability(value):
    p = np.full((3, 3), 0.5)
    p[1, 1] = value
    with pytest.raises(BadInput, match=r"probabilities of 's' are not all between 0 and 1; predict the case again"):
        scores(p, np.ones((3, 3), np.uint8), (1, 1))
    with pytest.raises(BadInput, match=r"of 's' have shape \(3, 3\) and the reference \(3, 4\)"):
        scores(p, np.ones((3, 4), np.uint8), (1, 1))


def test_files_hold_every_structure_to_a_4000th(tmp_path):
    rng = np.random.default_rng(1)
    maps = {name: rng.random((5, 6, 7)).astype(np.float32) for name in ("a", "b")}
    maps["b"][0] = 1e-5
    write_probabilities(tmp_path / "c.npz", maps, maps.values())
    with read_probabilities(tmp_path / "c.npz") as kept:
        assert sorted(kept.files) == ["a", "b"]
        for name, probability in maps.items():
            assert kept[name].dtype == np.float16
            np.testing.assert_allclose(kept[name], probability, atol=1 / 4096)
        assert not kept["b"][0].any()  # certain voxels are certain, and compress
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]
