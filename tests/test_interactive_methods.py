"""The traditional interactive methods against independent computations, and what all of them must keep to."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from lib.interactive import BACKGROUND, FOREGROUND, METHODS, Crop
from lib.interactive.methods.geos import GeoS
from lib.interactive.methods.grabcut import GrabCut
from lib.interactive.methods.growcut import GrowCut
from lib.interactive.methods.random_walker import RandomWalker
from lib.interactive.methods.slic_seg import SlicSeg, pixel_features, seeds_of, with_shape
from lib.interactive.robot import Robot
from lib.interactive.session import play

NAMES = ("geos", "grabcut", "growcut", "random_walker", "slic_seg")


def disk(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def picture(mask: np.ndarray, noise: float = 0.2, seed: int = 0, channels: int = 1) -> Crop:
    """The object brighter by 1, and noise."""
    image = np.random.default_rng(seed).normal(0, noise, (channels, *mask.shape))
    image += mask
    return Crop(image.astype(np.float32), (1.0,) * mask.ndim if mask.ndim == 2 else (3.0, 1.0, 1.0))


def marks(shape: tuple[int, ...], foreground: list, background: list) -> np.ndarray:
    scribbles = np.zeros(shape, np.uint8)
    for value, places in ((FOREGROUND, foreground), (BACKGROUND, background)):
        for place in places:
            scribbles[place] = value
    return scribbles


def neighbours(shape: tuple[int, ...], diagonal: bool = True):
    """Pairs of flat indices and the steps between them, by the plainest loops."""
    number = np.arange(np.prod(shape)).reshape(shape)
    for at in np.ndindex(shape):
        for step in itertools.product((-1, 0, 1), repeat=len(shape)):
            there = tuple(a + s for a, s in zip(at, step, strict=True))
            if (
                any(step)
                and (diagonal or np.abs(step).sum() == 1)
                and all(0 <= t < n for t, n in zip(there, shape, strict=True))
            ):
                yield at, there, number[at], number[there], step


# --- all of them

DISK = disk((40, 36), (19, 17), 10)
BALL = np.stack([disk((22, 24), (10, 11), r) for r in (-1, 4, 6, 7, 6, 4, -1)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("reference", "channels"),
    [pytest.param(DISK, 1, id="grey")]
    + [pytest.param(*p, marks=pytest.mark.slow) for p in ((DISK, 2), (DISK, 3), (BALL, 1))],
)
def test_a_visible_object_is_found_and_answers_repeat(name, reference, channels):
    crop, answers = picture(reference, channels=channels), []
    method = METHODS.get(name)()
    for attempt in range(2):
        rounds = play(method, crop, reference, Robot(), 4, 1.0)
        answers.append([r.prediction for r in rounds])
        assert rounds[-1].dice > 0.93, (name, [r.dice for r in rounds])
        if not attempt:  # another instance, of which nothing may remain
            play(
                method,
                picture(disk((30, 31), (10, 20), 6), seed=5, channels=channels),
                disk((30, 31), (10, 20), 6),
                Robot(),
                2,
                1.0,
            )
    assert len(answers[0]) == len(answers[1]) and all((a == b).all() for a, b in zip(*answers, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_scribbles_are_kept_even_against_the_image(name):
    method = METHODS.get(name)()
    method.begin(picture(DISK))
    scribbles = marks(
        DISK.shape, [(19, slice(12, 22)), (5, 5)], [(slice(2, 4), slice(0, 36)), (25, slice(15, 18)), (slice(0, 40), 0)]
    )
    mask = method.segment(scribbles)
    assert mask.dtype == bool and mask[scribbles == FOREGROUND].all() and not mask[scribbles == BACKGROUND].any()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grabcut"])
def test_one_kind_of_scribble_says_that_all_is_of_that_kind(name):
    method = METHODS.get(name)()
    assert method.needs_seeds
    method.begin(picture(DISK))
    assert not method.segment(np.zeros(DISK.shape, np.uint8)).any()
    assert method.segment(marks(DISK.shape, [(19, 17)], [])).all()
    assert not method.segment(marks(DISK.shape, [], [(0, 0)])).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (9, 2), (1, 6, 7), (2, 3, 3), (5, 4, 1)])
def test_the_smallest_boxes(name, shape):
    for constant in (False, True):
        image = (
            np.ones((1, *shape), np.float32)
            if constant
            else np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
        )
        method = METHODS.get(name)()
        method.begin(Crop(image, (1.0,) * len(shape)))
        scribbles = np.zeros(shape, np.uint8)
        assert method.segment(scribbles).shape == shape
        scribbles[(0,) * len(shape)] = FOREGROUND
        assert method.segment(scribbles)[(0,) * len(shape)]
        if scribbles.size > 1:
            scribbles[(-1,) * len(shape)] = BACKGROUND
            mask = method.segment(scribbles)
            assert mask[(0,) * len(shape)] and not mask[(-1,) * len(shape)]
        scribbles[:] = BACKGROUND
        assert not method.segment(scribbles).any()


@pytest.mark.parametrize("name", NAMES)
def test_methods_cite_what_exists(name):
    keys = re.search(r"Cite: (.+)", METHODS.get(name).__doc__).group(1).split(", ")
    text = (Path(__file__).parents[1] / "config/references.bib").read_text()
    assert all(f"{{{key},\n" in text for key in keys)


# --- GrowCut


@pytest.mark.parametrize(("shape", "channels"), [((13, 11), 1), ((13, 11), 3), ((4, 6, 5), 2)])
def test_growcut_ends_where_the_strongest_path_leads(shape, channels):
    """The stable state is known: strength is the largest product of g over paths, so -log g makes shortest paths."""
    image = np.random.default_rng(1).random((channels, *shape)).astype(np.float32)
    scribbles = marks(shape, [tuple(n // 2 for n in shape)], [(0,) * len(shape), (-1,) * len(shape)])
    method = GrowCut()
    method.begin(Crop(image, (1.0,) * len(shape)))
    colours = method.image - method.image.min(axis=tuple(range(1, len(shape) + 1)), keepdims=True)
    largest = np.linalg.norm(colours, axis=0).max()
    graph = np.zeros((np.prod(shape),) * 2)
    for at, there, p, q, _ in neighbours(shape):
        graph[p, q] = -np.log(
            1 - np.linalg.norm(colours[(slice(None), *at)] - colours[(slice(None), *there)]) / largest
        )
    far = [
        dijkstra(csr_array(graph), indices=np.flatnonzero(scribbles == kind), min_only=True)
        for kind in (BACKGROUND, FOREGROUND)
    ]
    assert (method.segment(scribbles).ravel() == (far[1] < far[0])).all()
    assert 0 < method.segment(scribbles).sum() < np.prod(shape)


def test_growcut_grows_at_the_same_pace_where_nothing_differs():
    method = GrowCut()
    method.begin(Crop(np.ones((1, 1, 11), np.float32), (1.0, 1.0)))
    mask = method.segment(marks((1, 11), [(0, 0)], [(0, 10)]))
    assert mask[0, :5].all() and not mask[0, 6:].any()


# --- random walker


def test_the_random_walker_solves_the_dirichlet_problem():
    """Against a dense solution of the linear system that Grady gives, with scikit-image's scale of the weights."""
    shape = (7, 6)
    image = np.random.default_rng(2).normal(size=(1, *shape)).astype(np.float32)
    scribbles = marks(shape, [(3, 2)], [(0, 0), (6, 5)])
    method = RandomWalker(beta=5)
    method.begin(Crop(image, (1.0, 1.0)))
    values, n = method.image[0].astype(float), np.prod(shape)
    laplacian = np.zeros((n, n))
    for at, there, p, q, _ in neighbours(shape, diagonal=False):
        weight = np.exp(-5 * (values[at] - values[there]) ** 2 / (10 * values.std())) + 1e-10
        laplacian[p, q] -= weight
        laplacian[p, p] += weight
    marked = scribbles.ravel() > 0
    potential = np.where(scribbles.ravel() == FOREGROUND, 1.0, 0.0)
    potential[~marked] = np.linalg.solve(
        laplacian[np.ix_(~marked, ~marked)], -laplacian[np.ix_(~marked, marked)] @ potential[marked]
    )
    assert (np.abs(potential - 0.5) > 1e-6).all()
    assert (method.segment(scribbles).ravel() == (potential > 0.5)).all()


def test_the_random_walker_in_volumes_is_the_exact_one():
    """Conjugate gradients with multigrid in a volume, a sparse factorisation in a slice: a volume of one slice."""
    image = picture(DISK, noise=0.5).image
    scribbles = marks(DISK.shape, [(19, slice(12, 22))], [(2, slice(0, 36)), (37, slice(0, 36))])
    flat, volume = RandomWalker(), RandomWalker()
    flat.begin(Crop(image, (1.0, 1.0)))
    volume.begin(Crop(image[:, None], (1.0, 1.0, 1.0)))
    a, b = flat.segment(scribbles), volume.segment(scribbles[None])[0]
    assert 0 < a.sum() < a.size and (a != b).mean() < 0.005


# --- GrabCut


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("seed", range(3))
def test_own_grabcut_agrees_with_opencv(seed):
    rng = np.random.default_rng(seed)
    reference = disk((60, 54), (28, 26), 16) & ~disk((60, 54), (24, 30), 5)
    image = np.where(reference, 1.0, 0.0) + 0.5 * disk((60, 54), (50, 45), 12) + rng.normal(0, 0.25, reference.shape)
    crop = Crop(image[None].astype(np.float32), (1.0, 1.0))
    opencv, own = GrabCut(), GrabCut(foreground=5, background=5)
    opencv.begin(crop)
    own.begin(crop)
    nothing = np.zeros(reference.shape, np.uint8)
    a, b = opencv.segment(nothing), own.segment(nothing)
    assert dice(a, b) > 0.97 and dice(a, reference) > 0.9
    scribbles = marks(reference.shape, [(14, slice(20, 28))], [(24, slice(28, 33))])
    a, b = opencv.segment(scribbles), own.segment(scribbles)
    assert dice(a, b) > 0.97


@pytest.mark.parametrize("parameters", [{"foreground": 2}, {"background": 3}, {"gamma": 20}])
def test_opencv_serves_only_the_settings_that_it_has(parameters, monkeypatch):
    reference = disk((40, 40), (20, 20), 10)
    monkeypatch.setattr(GrabCut, "_opencv", lambda self, known, inside: inside)
    for method, by_opencv in ((GrabCut(), True), (GrabCut(**parameters), False)):
        method.begin(picture(reference))
        found = method.segment(np.zeros(reference.shape, np.uint8))
        assert (np.count_nonzero(found) == 38 * 38) == by_opencv  # what it starts from


def test_own_grabcut_learns_two_colours_that_no_threshold_separates():
    """An object both brighter and darker than what is around it needs a mixture."""
    reference = disk((50, 50), (25, 25), 15)
    sign = np.where(np.arange(50) < 25, 1.0, -1.0)[:, None]
    image = np.where(reference, 2.0 * sign, 0) + np.random.default_rng(0).normal(0, 0.3, reference.shape)
    method = GrabCut(gamma=20)
    method.begin(Crop(np.stack([image, image * 0]).astype(np.float32), (1.0, 1.0)))
    assert dice(method.segment(np.zeros(reference.shape, np.uint8)), reference) > 0.97


def test_grabcut_goes_on_from_its_last_answer():
    reference = disk((40, 40), (20, 20), 10)
    method = GrabCut()
    method.begin(picture(reference))
    first = method.segment(np.zeros(reference.shape, np.uint8))
    assert dice(first, reference) > 0.95
    again = method.segment(np.zeros(reference.shape, np.uint8))
    assert dice(first, again) > 0.99


# --- GeoS


def test_geodesic_distances_by_the_definition():
    shape = (6, 5)
    rng = np.random.default_rng(3)
    image, soft = rng.normal(size=(1, *shape)).astype(np.float32), rng.random(shape)
    method = GeoS(gamma=3, nu=7)
    method.begin(Crop(image, (2.0, 1.0)))
    graph = np.zeros((30, 30))
    for at, there, p, q, step in neighbours(shape):
        graph[p, q] = np.sqrt(
            (2 * step[0]) ** 2 + step[1] ** 2 + (3 * (method.image[0][at] - method.image[0][there])) ** 2
        )
    pairs = dijkstra(csr_array(graph))
    np.testing.assert_allclose(method._distance(soft).ravel(), (pairs + 7 * soft.ravel()).min(axis=1), rtol=1e-6)
    outside = soft > 0.4
    signed = np.where(outside.ravel(), pairs[:, ~outside.ravel()].min(axis=1), -pairs[:, outside.ravel()].min(axis=1))
    np.testing.assert_allclose(method._signed(outside).ravel(), signed, rtol=1e-6)


def test_the_symmetric_filter_removes_what_is_small_on_both_sides():
    """On a flat image distances are Euclidean steps, so a hole closes and a speck goes when θ exceeds their radius."""
    clean = disk((60, 60), (30, 30), 18)
    mask = clean & ~disk((60, 60), (30, 30), 1.5) | disk((60, 60), (6, 6), 1.5)
    method = GeoS()
    method.begin(Crop(np.zeros((1, 60, 60), np.float32), (1.0, 1.0)))
    signed = method._signed(~mask)
    closing, opening = method._signed(signed > 4) + 4, method._signed(signed > -4) - 4
    filtered = closing + opening < 0
    assert filtered[30, 30] and not filtered[6, 6] and dice(filtered, clean) > 0.97


def test_geos_chooses_the_candidate_of_least_energy():
    """Noise that leaves holes and specks in the thresholded soft mask; the filter removes those of low contrast."""
    crop = picture(disk((48, 48), (24, 24), 14), noise=0.45)
    scribbles = marks((48, 48), [(24, slice(14, 34))], [(2, slice(2, 46)), (46, slice(2, 46))])
    scores = []
    for thresholds in ((0,), (0, 1, 2, 4, 8)):
        method = GeoS(thresholds=thresholds)
        method.begin(crop)
        scores.append(dice(method.segment(scribbles), disk((48, 48), (24, 24), 14)))
    assert scores[1] > scores[0] + 0.01 and scores[1] > 0.85, scores


# --- Slic-Seg


def test_features_of_a_step_by_hand():
    image = np.zeros((1, 40, 40))
    image[0, :, 20:] = 1.0
    table = pixel_features(image).reshape(40, 40, 31)
    flat, at_step = table[20, 5], table[20, 20]
    np.testing.assert_allclose(table.reshape(-1, 31).mean(axis=0), 0, atol=1e-5)
    deviations = table.reshape(-1, 31).std(axis=0)
    assert set(np.round(deviations, 4)) <= {0.0, 1.0}
    assert (table[5, 5] == flat).all() and (table[20, 5] == table[30, 5]).all(), "the same in every row"
    raw = [0.0, 0.0, 0.0, 1.0, 0.0]  # mean, its square and cube, exp, deviation of zeros
    beyond = [1.0, 1.0, 1.0, np.e, 0.0]
    for k, (a, b) in enumerate(zip(raw, beyond, strict=True)):
        assert np.sign(table[20, 35, k] - flat[k]) == np.sign(b - a)
    assert at_step[5] == table[20, :, 5].max() and flat[5] == table[20, :, 5].min(), "the gradient"
    histogram = table[20, 20, 9:17]
    assert np.count_nonzero(histogram - table[20, 5, 9:17]) == 1, "a vertical edge has one orientation"
    # Bands of the first level: only HL or LH sees a step along columns.
    assert (deviations[17:31] > 0).sum() == 6, "mean and deviation of the band across, at two levels, and of LL"


def test_what_the_next_slice_inherits():
    mask = disk((60, 60), (30, 30), 15)
    seeds = seeds_of(mask, 5, 6)
    assert mask[seeds == FOREGROUND].all() and (seeds[disk((60, 60), (30, 30), 20.5)] != BACKGROUND).all()
    assert (seeds[~disk((60, 60), (30, 30), 22)] == BACKGROUND).all()
    ring = seeds_of(mask, 5, 6, ring=True)
    assert 0 < (ring == BACKGROUND).sum() < (seeds == BACKGROUND).sum() and ring[0, 0] == 0
    small = seeds_of(disk((60, 60), (30, 30), 3), 5, 6)
    assert (small == FOREGROUND).any(), "smaller than the erosion: its own skeleton"
    raised = with_shape(np.full(mask.shape, 0.6), mask)
    assert raised[0, 0] == pytest.approx(0.24) and raised[30, 30] == pytest.approx(0.8) and 0.6 < raised[30, 17] < 0.65
    assert (with_shape(np.full(mask.shape, 0.9), mask)[mask] == 0.9).all()


@pytest.mark.slow
def test_slic_seg_follows_an_object_through_slices():
    """One scribble in one slice; the object wanders by three pixels per slice."""
    reference = np.stack([disk((48, 64), (24, 14 + 3 * k), 9) for k in range(9)])
    crop = Crop(picture(reference, noise=0.1).image, (4.0, 1.0, 1.0))
    method = SlicSeg()
    method.begin(crop)
    scribbles = Robot().border(reference) * 0
    scribbles[4] = marks(reference.shape[1:], [(24, slice(20, 32))], [(2, slice(2, 62)), (45, slice(2, 62))])
    mask = method.segment(scribbles)
    assert min(dice(mask[k], reference[k]) for k in range(9)) > 0.9
    turned = SlicSeg()
    turned.begin(Crop(np.moveaxis(crop.image, 1, 3), (1.0, 1.0, 4.0)))
    assert (turned.segment(np.moveaxis(scribbles, 0, 2)) == np.moveaxis(mask, 0, 2)).all(), (
        "whichever axis the slices have"
    )
