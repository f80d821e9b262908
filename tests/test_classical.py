"""Methods that train no network, against references, by hand and by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lib.classical import CLASSICAL, Subject, build
from lib.classical.clusters import otsu_thresholds
from lib.classical.levels import best_mapping, where_inside
from lib.data.store import IGNORE
from lib.errors import BadInput
from lib.graph_cut import minimum_cut, neighbours
from lib.total_variation import (
    best_labels,
    best_levels,
    coupled,
    data_term,
    energy,
    estimated_sigma,
    minimise,
)

GAUSSIAN, RAYLEIGH = ("gaussian", 0.3), ("rayleigh", None)


def computed(_name, compute):
    """Remembers nothing."""
    return compute()


def grid(shape, spacing=None, diagonal=True):
    nodes = np.arange(np.prod(shape)).reshape(shape)
    return neighbours(nodes, spacing or [1.0] * len(shape), diagonal)


def subject(name, image, label, slices=False) -> Subject:
    return Subject(name, image[None].astype(np.float32), label, (1.0,) * image.ndim, slices)


def three_tissues(seed: int, noise: float = 0.05, shape=(4, 24, 24)) -> Subject:
    """Two structures on a background, with intensities in the order structure 2, background, structure 1."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[:, 4:12, 4 : 12 + seed % 4] = 1
    label[:, 14:21, 8:20] = 2
    image = np.array([1.0, 2.0, 0.2])[label] + rng.normal(0, noise, shape)
    return subject(f"case{seed}", image, label, slices=True)


# the graph


@pytest.mark.parametrize(
    ("shape", "diagonal", "count"),
    [((3, 4), False, 17), ((3, 4), True, 29), ((2, 2, 2), True, 28), ((3, 3, 3), False, 54)],
)
def test_every_pair_of_neighbours_comes_once(shape, diagonal, count):
    first, second, distance = grid(shape, diagonal=diagonal)
    places = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), 1)
    apart = places[first] - places[second]
    assert len(first) == count == len({frozenset(pair) for pair in zip(first, second, strict=True)})
    assert np.abs(apart).max() == 1 and np.allclose(distance, np.linalg.norm(apart, axis=1))
    assert diagonal or (np.abs(apart).sum(1) == 1).all()


def test_distances_are_of_the_spacing_and_no_edge_crosses_slices():
    first, second, distance = grid((1, 2, 2), [5.0, 3.0, 4.0])
    assert sorted(distance) == [3, 3, 4, 4, 5, 5]
    first, second, _ = grid((2, 2, 2), [np.inf, 1.0, 1.0])
    assert (first // 4 == second // 4).all() and len(first) == 12


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    n, edges = 9, 16
    first, second = rng.integers(0, n, (2, edges))
    first, second = first[first != second], second[first != second]
    unary, forward, backward = rng.normal(0, 1, n), rng.exponential(0.6, len(first)), rng.exponential(0.6, len(first))

    def cost(b):
        b = np.asarray(b, float)
        return unary @ b + forward @ (b[first] * (1 - b[second])) + backward @ ((1 - b[first]) * b[second])

    best = min(cost(b) for b in itertools.product((0, 1), repeat=n))
    assert cost(minimum_cut(unary, first, second, forward, backward)) == pytest.approx(best, abs=1e-6)


# coupled denoising and segmentation


@pytest.mark.parametrize("noise", [GAUSSIAN, RAYLEIGH])
@pytest.mark.parametrize(("shape", "levels"), [((3, 3), 2), ((3, 3), 3), ((2, 4), 4), ((2, 2, 2), 2), ((2, 2, 2), 3)])
@pytest.mark.parametrize("seed", range(3))
def test_labels_are_those_of_brute_force(shape, levels, noise, seed):
    rng = np.random.default_rng(seed)
    data, c = 0.05 + 2 * rng.random(np.prod(shape)), 0.05 + np.sort(1.5 * rng.random(levels))
    first, second, distance = grid(shape, list(rng.uniform(1, 2, len(shape))), diagonal=bool(seed % 2))
    weights = rng.uniform(0.1, 2) / distance
    terms = data_term(data[:, None], c, *noise)
    every = np.array(list(itertools.product(range(levels), repeat=len(data))))
    total = sum(terms[p, every[:, p]] for p in range(len(data)))
    total = total + sum(
        w * np.abs(c[every[:, i]] - c[every[:, j]]) for i, j, w in zip(first, second, weights, strict=True)
    )
    found = best_labels(data, c, first, second, weights, *noise)
    assert energy(data, found, c, first, second, weights, *noise) == pytest.approx(total.min(), abs=1e-6)


def test_where_single_cuts_cross_the_graph_of_all_levels_decides():
    """Rayleigh's term is not convex in the level, so that the cuts of two thresholds may contradict one another."""
    c, (first, second, distance) = np.array([0.1, 0.5, 2.0]), grid((2, 3))
    every = np.array(list(itertools.product(range(3), repeat=6)))
    crossed = 0
    for seed in range(20):
        data = np.random.default_rng(seed).uniform(0.05, 3, 6)
        terms, gaps = data_term(data[:, None], c, *RAYLEIGH), np.diff(c)
        unary, weights = np.diff(terms, axis=1), 1 / distance
        above = [minimum_cut(unary[:, k], first, second, weights * gaps[k], weights * gaps[k]) for k in (0, 1)]
        crossed += bool((above[1] & ~above[0]).any())
        best = min(energy(data, x, c, first, second, weights, *RAYLEIGH) for x in every)
        found = best_labels(data, c, first, second, weights, *RAYLEIGH)
        assert energy(data, found, c, first, second, weights, *RAYLEIGH) == pytest.approx(best)
    assert crossed > 0


def test_rayleigh_threshold_without_coupling():
    c0, c1 = 0.4, 1.3
    threshold = np.sqrt(4 * np.log(c1 / c0) / (1 / c0**2 - 1 / c1**2))
    data = np.array([threshold * (1 - 1e-6), threshold * (1 + 1e-6), 0.0, 5.0])
    none = np.zeros(0, int)
    assert best_labels(data, np.array([c0, c1]), none, none, np.zeros(0), *RAYLEIGH).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("noise", [GAUSSIAN, RAYLEIGH])
@pytest.mark.parametrize("shape", [(12, 14), (5, 6, 7)])
@pytest.mark.parametrize("weight", [0, 0.3, 3])
def test_energy_never_rises(noise, shape, weight):
    rng = np.random.default_rng(len(shape))
    data = (np.array([0.2, 0.9, 1.6])[rng.integers(0, 3, shape)] + rng.normal(0, 0.3, shape)).clip(0.01).ravel()
    first, second, distance = grid(shape)
    found = minimise(data, first, second, weight / distance, np.array([0.3, 0.6, 1.2]), *noise, 10)
    assert len(found.energies) > 3 and (np.diff(found.energies) <= 1e-9 * abs(found.energies[0])).all()
    assert found.energies[-1] == pytest.approx(
        energy(data, found.labels, found.levels, first, second, weight / distance, *noise)
    )
    assert found.energies[-1] < found.energies[0] and (np.diff(found.levels) >= 0).all()


def test_levels_are_the_means_without_coupling_and_draw_together_with_it():
    data, labels = np.array([0.0, 0.2, 1.0, 1.4, 1.2]), np.array([0, 0, 1, 1, 1], np.uint8)
    first, second, weights = np.array([1]), np.array([2]), np.array([0.5])
    start = np.array([0.3, 0.6])
    free = np.zeros(1)
    assert best_levels(data, labels, start, first, second, free, "gaussian", 0.5) == pytest.approx([0.1, 1.2])
    assert best_levels(data, labels, start, first, second, free, *RAYLEIGH) == pytest.approx(
        [np.sqrt(0.04 / 4), np.sqrt(4.4 / 6)]
    )
    # one edge of weight 0.5 between the regions: each mean moves by weight × σ² / (voxels of the region)
    assert best_levels(data, labels, start, first, second, weights, "gaussian", 0.5) == pytest.approx(
        [0.1 + 0.125 / 2, 1.2 - 0.125 / 3]
    )


@pytest.mark.parametrize("noise", [GAUSSIAN, RAYLEIGH])
def test_levels_are_at_a_minimum_of_the_energy(noise):
    rng = np.random.default_rng(5)
    data, labels = rng.uniform(0.1, 2, 60), rng.integers(0, 3, 60).astype(np.uint8)
    first, second, distance = grid((6, 10))
    weights = 0.05 / distance
    c = np.array([0.3, 0.7, 1.1])
    for _ in range(50):
        c = best_levels(data, labels, c, first, second, weights, *noise)
    best = energy(data, labels, c, first, second, weights, *noise)
    for k, step in itertools.product(range(3), (-1e-3, 1e-3)):
        other = c.copy()
        other[k] += step
        if (np.diff(other) >= 0).all():
            assert energy(data, labels, other, first, second, weights, *noise) >= best - 1e-9


def test_noise_is_estimated_across_edges_and_only_inside():
    rng = np.random.default_rng(0)
    image = np.zeros((40, 40, 6))
    image[10:30, 10:30] = 5
    inside = np.zeros(image.shape, bool)
    inside[5:35, 5:35] = True
    noisy = np.where(inside, image + rng.normal(0, 0.2, image.shape), 0)
    assert estimated_sigma(noisy, inside, np.array([1.0, 1.0, 3.0])) == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("noise", ["gaussian", "rayleigh"])
def test_coupling_finds_regions_that_levels_alone_do_not(noise):
    rng = np.random.default_rng(1)
    truth = np.zeros((48, 48), int)
    truth[10:38, 12:36] = 1
    clean = np.array([1.0, 3.0])[truth]
    noisy = clean + rng.normal(0, 1, clean.shape) if noise == "gaussian" else clean * rng.rayleigh(1, clean.shape)
    settings = {"levels": 2, "noise": noise, "sigma": None, "diagonal": True, "rounds": 10}
    everywhere = np.ones(clean.shape, bool)
    errors = [
        (
            coupled(noisy, everywhere, (1, 1), None, weight=weight, **settings).labels.reshape(truth.shape) != truth
        ).mean()
        for weight in (0, 3)
    ]
    assert errors[1] < 0.02 < 0.1 < errors[0]


# levels and structures


def test_the_mapping_is_the_best_of_all():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (5, 1 + 4, 3))

    def dice(mapping):
        chosen = np.array([0, *mapping])
        found = [
            2 * counts[:, chosen == c, c].sum(1) / (counts[:, chosen == c].sum((1, 2)) + counts[:, :, c].sum(1))
            for c in (1, 2)
        ]
        return np.mean(found)

    best = max(itertools.product(range(3), repeat=4), key=dice)
    mapping, value = best_mapping(counts)
    assert tuple(mapping) == best and value == pytest.approx(dice(best))


def test_outside_is_the_constant_that_surrounds():
    image = np.full((1, 8, 8), -1.0)
    image[0, 2:7, 2:7] = np.random.default_rng(0).random((5, 5))
    image[0, 4, 4] = -1.0  # fluid that a scan shows as zero
    inside = where_inside(image)
    assert inside.sum() == 25 and inside[4, 4]
    assert where_inside(np.random.default_rng(0).random((1, 8, 8))).all()
    two = np.concatenate([image, image])
    two[1, 0, 0] = 3.0
    assert where_inside(two)[0, 0] and where_inside(two).sum() == 26


def test_otsu_is_the_best_of_all_thresholds_and_agrees_with_itk():
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(mean, 0.4, n) for mean, n in ((0, 4000), (3, 2000), (5, 1000))])
    found = otsu_thresholds(values, 3)
    theirs = sitk.OtsuMultipleThresholdsImageFilter()
    theirs.SetNumberOfThresholds(2)
    theirs.SetNumberOfHistogramBins(256)
    theirs.Execute(sitk.GetImageFromArray(values[None].astype(np.float32)))
    assert found == pytest.approx(theirs.GetThresholds(), abs=2 * np.ptp(values) / 256)

    def between(thresholds):
        levels = np.digitize(values, thresholds)
        return sum((levels == k).sum() * values[levels == k].mean() ** 2 for k in range(3) if (levels == k).any())

    others = itertools.combinations(np.linspace(values.min(), values.max(), 40)[1:-1], 2)
    assert between(found) >= max(map(between, others)) * (1 - 1e-4)


@pytest.mark.parametrize("name", ["otsu", "kmeans", "gmm", "coupled_tv"])
def test_a_method_finds_tissues_by_what_training_patients_say(name):
    method = build({"name": name, "levels": 3})
    learned = method.fit([three_tissues(seed) for seed in range(3)], 3, computed)
    assert learned["mapping"] == [2, 0, 1] and learned["training_dice"] > 0.99
    test = three_tissues(7)
    assert (method.segment(test) == test.label).mean() > 0.99


def test_clusters_are_those_of_the_library():
    """k-means by hand on a few numbers; a mixture separates by spread what k-means cannot."""
    image = np.array([0, 1, 2, 10, 11, 30.0]).reshape(1, 1, 6)
    label = np.array([0, 0, 0, 1, 1, 2], np.uint8).reshape(1, 6)
    one = Subject("a", image.astype(np.float32), label, (1.0, 1.0), False)
    method = build({"name": "kmeans"})
    assert method.fit([one], 3, computed)["mapping"] == [0, 1, 2]
    assert method.segment(one).ravel().tolist() == label.ravel().tolist()
    rng = np.random.default_rng(0)
    wide = np.concatenate([rng.normal(0, 0.1, 500), rng.normal(2, 1.2, 500)])
    two = Subject(
        "b", wide.reshape(1, 1, -1).astype(np.float32), np.repeat([0, 1], 500).astype(np.uint8)[None], (1.0, 1.0), False
    )
    right = {}
    for name in ("kmeans", "gmm"):
        method = build({"name": name})
        method.fit([two], 2, computed)
        right[name] = (method.segment(two) == two.label).mean()
    assert right["gmm"] > right["kmeans"] + 0.02


@pytest.mark.parametrize("name", ["otsu", "coupled_tv", "atlas"])
def test_no_label_of_a_test_case_is_looked_at(name):
    recipe = {"name": name} | ({"atlases": 1, "deformable": False} if name == "atlas" else {"levels": 3})
    test = three_tissues(9)
    found = []
    for label in (test.label, 2 - test.label, None):
        method = build(recipe)
        method.fit([three_tissues(seed) for seed in range(2)], 3, computed)
        found.append(method.segment(Subject(test.name, test.image, label, test.spacing, test.slices)))
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


def test_ignored_voxels_say_nothing_of_the_mapping():
    training = three_tissues(0)
    label = training.label.copy()
    label[:, :13] = IGNORE
    method = build({"name": "otsu", "levels": 3})
    learned = method.fit([Subject("a", training.image, label, training.spacing, True)], 3, computed)
    assert learned["mapping"][0] == 2 and method.segment(training)[:, 16, 10].tolist() == [2] * 4


def test_the_weight_is_the_best_on_training_patients():
    method = build({"name": "coupled_tv", "levels": 3, "weight": [0, 1]})
    learned = method.fit([three_tissues(seed, noise=0.4) for seed in range(2)], 3, computed)
    assert learned["weight"] == method.weight == 1
    alone = build({"name": "coupled_tv", "levels": 3, "weight": 0})
    assert (
        learned["training_dice"]
        > alone.fit([three_tissues(seed, noise=0.4) for seed in range(2)], 3, computed)["training_dice"] + 0.02
    )


def test_an_atlas_follows_a_moved_and_larger_body():
    where = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"))

    def body(name, centre, radius):
        distance = np.sqrt(((where - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0))
        label = (distance < radius).astype(np.uint8) + (distance < radius / 2)
        image = np.array([0.0, 1.0, 2.5])[label] + 0.02 * np.random.default_rng(0).normal(size=label.shape)
        return Subject(name, image[None].astype(np.float32), label.astype(np.uint8), (1.0, 1.0, 1.0), False)

    test = body("c", (13, 10, 12), 7.5)
    training = [body("a", (10, 12, 11), 6.5), body("b", (11, 13, 13), 7), body("d", (12, 12, 11), 8)]
    for deformable, least in ((False, 0.7), (True, 0.85)):
        method = build({"name": "atlas", "atlases": 3, "deformable": deformable})
        assert method.fit(training, 3, computed) == {"atlases": ["a", "b", "d"]}
        found = method.segment(test)
        for structure in (1, 2):
            a, b, unmoved = found == structure, test.label == structure, training[0].label == structure
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > least > 2 * (unmoved & b).sum() / (unmoved.sum() + b.sum())


# what a configuration may say


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "otzu"}, "Did you mean 'otsu'"),
        ({"name": "otsu", "level": 3}, "Did you mean 'levels'"),
        ({"name": "kmeans", "levels": 1}, "levels: 1 must be a whole number from 2 to 10"),
        ({"name": "gmm", "channel": -1}, "channel: -1"),
        ({"name": "coupled_tv", "noise": "poisson"}, "noise: 'poisson' must be one of gaussian, rayleigh"),
        ({"name": "coupled_tv", "weight": [1, -1]}, "weight: -1"),
        ({"name": "coupled_tv", "weight": []}, "weight: \\[\\]"),
        ({"name": "coupled_tv", "sigma": 0}, "sigma: 0"),
        ({"name": "coupled_tv", "sigma": 0.1, "noise": "rayleigh"}, "no meaning for rayleigh"),
        ({"name": "coupled_tv", "rounds": 0}, "rounds: 0"),
        ({"name": "atlas", "atlases": 0}, "atlases: 0"),
    ],
)
def test_bad_recipes_are_refused_where_they_are_built(recipe, message):
    with pytest.raises(BadInput, match=message):
        build(recipe)


def test_a_fault_of_an_image_names_the_case():
    flat = subject("flat17", np.ones((2, 6, 6)), np.zeros((2, 6, 6), np.uint8))
    with pytest.raises(BadInput, match=r"case 'flat17': the image has no two different"):
        build({"name": "otsu"}).fit([flat], 2, computed)
    with pytest.raises(BadInput, match=r"case 'case0': channel: 2 is not there; the image has 1"):
        build({"name": "otsu", "levels": 3, "channel": 2}).fit([three_tissues(0)], 3, computed)


@pytest.mark.parametrize("name", ["otsu", "kmeans", "gmm", "coupled_tv"])
def test_an_image_of_few_intensities_has_them_as_levels(name):
    clear = three_tissues(0, noise=0)
    method = build({"name": name, "levels": 4})
    assert method.fit([clear], 3, computed)["mapping"][:2] == [2, 1]  # what surrounds them is outside
    assert (method.segment(clear) == clear.label).all()


def test_more_classes_than_levels_can_be_mapped_to_are_refused():
    with pytest.raises(BadInput, match="levels: null means one per class, here 12; give a number"):
        build({"name": "kmeans"}).fit([three_tissues(0)], 12, computed)


def test_the_catalogue_has_every_method():
    assert CLASSICAL.available() == ["atlas", "coupled_tv", "gmm", "kmeans", "otsu"]
