"""Graph cut and geodesic distance: exact against all labelings, other solvers, and values computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lib.errors import BadInput
from lib.interactive import BACKGROUND, FOREGROUND
from lib.interactive.geodesic import geodesic_distance
from lib.interactive.graph_cut import NEIGHBOURHOODS, Edges, edges_of, energy, minimum_cut

GRIDS = [((3, 4), 4), ((3, 4), 8), ((2, 2, 3), 6), ((2, 2, 3), 26)]


def random_problem(shape: tuple[int, ...], neighbourhood: int, seed: int):
    rng = np.random.default_rng(seed)
    edges = edges_of(rng.normal(size=(2, *shape)), neighbourhood)
    scribbles = np.where(rng.random(shape) < 0.2, rng.integers(1, 3, shape), 0).astype(np.uint8)
    return rng.exponential(size=(2, *shape)), edges, rng.uniform(0, 3) * edges.weights(0.7), scribbles


def every_labeling(shape: tuple[int, ...]):
    for bits in itertools.product((False, True), repeat=math.prod(shape)):
        yield np.array(bits).reshape(shape)


# --- edges


def test_edges_by_hand():
    image = np.array([[[0.0, 1.0], [3.0, 7.0]]])
    edges = edges_of(image, 8)
    found = {
        (int(a), int(b)): (d, r)
        for a, b, d, r in zip(edges.first, edges.second, edges.difference, edges.distance, strict=True)
    }
    root2 = math.sqrt(2)
    assert found == {
        (0, 1): (1, 1), (2, 3): (4, 1), (0, 2): (3, 1), (1, 3): (6, 1), (0, 3): (7, root2), (1, 2): (2, root2),
    }  # fmt: skip
    expected = [math.exp(-(d**2) / (2 * 2.0**2)) / r for d, r in found.values()]
    np.testing.assert_allclose(edges.weights(sigma=2.0), expected)


@pytest.mark.parametrize(("shape", "neighbourhood"), [((5, 7), 4), ((5, 7), 8), ((3, 4, 5), 6), ((3, 4, 5), 26)])
def test_every_pair_of_neighbours_comes_once(shape, neighbourhood):
    image = np.random.default_rng(0).normal(size=(1, *shape))
    edges = edges_of(image, neighbourhood)
    places = list(np.ndindex(*shape))
    expected = {}
    for a, b in itertools.combinations(range(len(places)), 2):
        offset = np.subtract(places[a], places[b])
        if np.abs(offset).max() == 1 and (neighbourhood > 2 * len(shape) or np.abs(offset).sum() == 1):
            expected[frozenset((a, b))] = abs(image[0][places[a]] - image[0][places[b]]), np.linalg.norm(offset)
    pairs = [frozenset(pair) for pair in zip(edges.first.tolist(), edges.second.tolist(), strict=True)]
    assert len(pairs) == len(set(pairs))
    values = dict(zip(pairs, zip(edges.difference, edges.distance, strict=True), strict=True))
    assert values.keys() == expected.keys()
    for pair, value in expected.items():
        np.testing.assert_allclose(values[pair], value)


def test_difference_over_channels_is_a_root_mean_square():
    one = np.random.default_rng(0).normal(size=(1, 4, 5))
    two = np.concatenate([one, np.zeros_like(one)])
    np.testing.assert_allclose(edges_of(two, 4).difference, edges_of(one, 4).difference / math.sqrt(2))
    np.testing.assert_allclose(edges_of(np.repeat(one, 3, 0), 4).difference, edges_of(one, 4).difference)


def test_a_grid_of_one_pixel_has_no_edges():
    unary = np.array([[[2.0]], [[1.0]]])
    edges = edges_of(np.zeros((1, 1, 1)), 8)
    assert not len(edges.first)
    assert minimum_cut(unary, edges, edges.weights(1.0)).all()
    assert not minimum_cut(unary, edges, edges.weights(1.0), np.array([[BACKGROUND]], np.uint8)).any()


def test_an_impossible_neighbourhood_is_explained():
    with pytest.raises(BadInput, match=r"neighbourhood: 6 must be one of \(4, 8\) in 2D"):
        edges_of(np.zeros((1, 3, 3)), 6)


# --- energy and its minimum


def test_energy_by_hand():
    unary = np.array([[[1.0, 2.0]], [[0.5, 4.0]]])
    edges = Edges(np.array([0]), np.array([1]), np.array([0.3]), np.array([1.0]))
    weights = 3 * edges.weights(0.2)  # 3 exp(-0.09 / 0.08)
    assert weights[0] == pytest.approx(3 * math.exp(-1.125))
    assert energy(np.array([[True, False]]), unary, edges, weights) == pytest.approx(0.5 + 2 + weights[0])
    assert energy(np.array([[True, True]]), unary, edges, weights) == pytest.approx(0.5 + 4)
    marks = np.array([[FOREGROUND, 0]], np.uint8)
    assert energy(np.array([[True, False]]), unary, edges, weights, marks) == pytest.approx(2 + weights[0])
    assert energy(np.array([[False, False]]), unary, edges, weights, marks) == math.inf


@pytest.mark.parametrize(("shape", "neighbourhood"), GRIDS)
@pytest.mark.parametrize("scribbled", [False, True])
def test_no_labeling_has_less_energy(shape, neighbourhood, scribbled):
    for seed in range(3):
        unary, edges, weights, scribbles = random_problem(shape, neighbourhood, seed)
        scribbles = scribbles if scribbled else None
        found = energy(minimum_cut(unary, edges, weights, scribbles), unary, edges, weights, scribbles)
        best = min(energy(labels, unary, edges, weights, scribbles) for labels in every_labeling(shape))
        assert found == pytest.approx(best, abs=1e-6)


def test_another_solver_finds_the_same_energy():
    networkx = pytest.importorskip("networkx")
    unary, edges, weights, _ = random_problem((12, 14), 8, 5)
    graph = networkx.DiGraph()
    for pixel, (background, foreground) in enumerate(unary.reshape(2, -1).T):
        graph.add_edge("source", pixel, capacity=background)  # cut where the pixel is background
        graph.add_edge(pixel, "sink", capacity=foreground)
    for a, b, weight in zip(edges.first, edges.second, weights, strict=True):
        graph.add_edge(int(a), int(b), capacity=weight)
        graph.add_edge(int(b), int(a), capacity=weight)
    expected, _ = networkx.minimum_cut(graph, "source", "sink")
    labels = minimum_cut(unary, edges, weights)
    assert 0 < labels.sum() < labels.size
    assert energy(labels, unary, edges, weights) == pytest.approx(expected, abs=1e-6)


def test_extremes_of_lambda_and_sigma():
    rng = np.random.default_rng(1)
    image, unary = rng.normal(size=(1, 9, 9)), rng.exponential(size=(2, 9, 9))
    edges = edges_of(image, 8)
    alone = unary[1] < unary[0]
    assert 0 < alone.sum() < alone.size
    np.testing.assert_array_equal(minimum_cut(unary, edges, 0 * edges.weights(1.0)), alone)  # λ = 0
    np.testing.assert_array_equal(minimum_cut(unary, edges, 3 * edges.weights(1e-3)), alone)  # σ → 0: edges are free
    all_foreground = unary[1].sum() < unary[0].sum()
    assert (minimum_cut(unary, edges, 1e4 * edges.weights(10.0)) == all_foreground).all()  # λ → ∞: one label
    np.testing.assert_allclose(edges.weights(1e6), 1 / edges.distance)  # σ → ∞: blind to the image


def test_scribbles_hold_against_everything():
    shape = (6, 6)
    edges = edges_of(np.zeros((1, *shape)), 8)
    unary = np.stack([np.zeros(shape), np.full(shape, 27.0)])  # surely background
    scribbles = np.zeros(shape, np.uint8)
    scribbles[2, 2], scribbles[2, 3] = FOREGROUND, BACKGROUND
    labels = minimum_cut(unary, edges, 100 * edges.weights(1.0), scribbles)
    assert labels[2, 2] and labels.sum() == 1
    # With equal terms the scribbles decide alone: all pixels follow the one scribble there is.
    equal, only = np.ones((2, *shape)), np.where(scribbles == FOREGROUND, FOREGROUND, 0).astype(np.uint8)
    assert minimum_cut(equal, edges, edges.weights(1.0), only).all()


def test_ties_go_to_the_background():
    edges = edges_of(np.zeros((1, 3, 3)), 4)
    assert not minimum_cut(np.ones((2, 3, 3)), edges, edges.weights(1.0)).any()


# --- geodesic distance


def on_image(image: np.ndarray, seeds: np.ndarray, limit: float = np.inf) -> np.ndarray:
    return geodesic_distance(edges_of(image, NEIGHBOURHOODS[image.ndim - 1][-1]), seeds, limit)


def slow_geodesic(image: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Bellman-Ford over all neighbours, until nothing changes."""
    shape = image.shape[1:]
    found = np.where(seeds, 0.0, np.inf)
    while True:
        before = found.copy()
        for here in np.ndindex(*shape):
            for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
                there = tuple(np.add(here, offset))
                if any(offset) and all(0 <= t < n for t, n in zip(there, shape, strict=True)):
                    step = math.sqrt(np.mean((image[(slice(None), *here)] - image[(slice(None), *there)]) ** 2))
                    found[here] = min(found[here], found[there] + step)
        if np.array_equal(before, found):
            return found


@pytest.mark.parametrize("shape", [(1, 7, 6), (2, 7, 6), (1, 3, 4, 4)])
def test_geodesic_distance_against_bellman_ford(shape):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape)
    seeds = rng.random(shape[1:]) < 0.08
    assert seeds.any()
    expected = slow_geodesic(image, seeds)
    np.testing.assert_allclose(on_image(image, seeds), expected, atol=1e-6)
    limited = on_image(image, seeds, limit=0.8)
    assert 0 < np.isfinite(limited).sum() < limited.size
    np.testing.assert_array_equal(np.isfinite(limited), expected <= 0.8)


def test_geodesic_distance_by_hand():
    row = np.array([[[0.0, 1.0, 1.0, 4.0, 2.0]]])
    seeds = np.array([[True, False, False, False, False]])
    np.testing.assert_allclose(on_image(row, seeds), [[0, 1, 1, 4, 6]], atol=1e-6)
    # A wall of 5 around the low middle: the way in costs 5 up and 5 down from outside, a gap saves both.
    image = np.zeros((1, 5, 5))
    image[0, 1:4, 1:4], image[0, 2, 2] = 5, 0
    corner = np.zeros((5, 5), bool)
    corner[0, 0] = True
    assert on_image(image, corner)[2, 2] == pytest.approx(10, abs=1e-6)
    image[0, 1, 2] = 0
    assert on_image(image, corner)[2, 2] == pytest.approx(0, abs=1e-6)


def test_equal_intensities_are_no_distance_but_connected():
    seeds = np.zeros((4, 4), bool)
    seeds[0, 0] = True
    assert on_image(np.ones((1, 4, 4)), seeds).max() < 1e-6
    assert np.isinf(on_image(np.ones((1, 4, 4)), np.zeros((4, 4), bool))).all()
    lone = geodesic_distance(edges_of(np.zeros((1, 1, 1)), 8), np.ones((1, 1), bool))
    assert lone.tolist() == [[0]]
