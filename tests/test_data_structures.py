"""Structures as classes or regions, and predicted regions as one label map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lib.data.structures import classes_of, label_of_regions
from lib.errors import BadInput

BRATS = {"whole": [1, 2, 4], "core": [1, 4], "enhancing": 4}  # 1 necrotic core, 2 oedema, 4 enhancing


def test_disjoint_structures_are_classes_in_their_order():
    classes = classes_of({"rv": 3, "wall": [5, 2], "lv": 1})
    assert classes.names == ["background", "rv", "wall", "lv"]
    assert classes.values == [[0], [3], [5, 2], [1]]
    assert classes.regions is None


def test_nested_structures_are_regions_of_elementary_classes():
    classes = classes_of(BRATS)
    assert classes.names == ["background", "whole+core", "whole", "whole+core+enhancing"]
    assert classes.values == [[0], [1], [2], [4]]
    assert classes.regions == [[1, 2, 3], [1, 3], [3]]


def test_values_of_the_same_structures_are_one_class():
    classes = classes_of({"whole": [1, 2, 3, 9], "core": [9, 3]})
    assert classes.values == [[0], [1, 2], [9, 3]] or classes.values == [[0], [1, 2], [3, 9]]
    assert classes.regions == [[1, 2], [2]]


def test_partly_overlapping_structures():
    classes = classes_of({"a": [1, 2], "b": [2, 3], "c": 7})
    assert classes.names == ["background", "a", "a+b", "b", "c"]
    assert classes.regions == [[1, 2], [2, 3], [4]]


@pytest.mark.parametrize("structures", [{"core": [1, 4], "whole": [1, 2, 4]}, {"core": [1, 2], "same": [2, 1]}])
def test_a_region_that_could_not_be_written(structures):
    with pytest.raises(
        BadInput,
        match=r"structures.core: all its values \[1, \d\] belong to later structures too.*list larger regions first",
    ):
        classes_of(structures)


def test_a_region_inside_two_later_ones_together():
    with pytest.raises(BadInput, match=r"structures.middle: all its values \[2, 3\]"):
        classes_of({"middle": [2, 3], "left": [1, 2], "right": [3, 4]})


def test_regions_of_a_tumour_become_labels():
    """All eight predictions of whole, core, enhancing; classes 1, 2, 3 are the labels 1, 2, 4."""
    regions = classes_of(BRATS).regions
    expected = {
        (0, 0, 0): 0,
        (1, 0, 0): 2,  # oedema
        (1, 1, 0): 1,  # necrosis
        (1, 1, 1): 3,  # enhancing
        # nesting is broken, and the last region in the declared order decides
        (0, 1, 0): 1,
        (0, 0, 1): 3,
        (0, 1, 1): 3,
        (1, 0, 1): 3,
    }
    inside = np.array(list(expected), bool).T.reshape(3, 2, 2, 2)
    labels = label_of_regions(inside, regions)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.ravel(), list(expected.values()))


def test_the_part_that_no_later_region_has_stands_for_a_region():
    classes = classes_of({"whole": [1, 2, 4], "core": [1, 4], "enhancing": 1})  # the innermost has the lowest value
    assert classes.regions == [[1, 2, 3], [1, 3], [1]]
    alone = np.eye(3, dtype=bool)  # each region predicted without the others
    np.testing.assert_array_equal(label_of_regions(alone, classes.regions), [2, 3, 1])


STRUCTURES = st.lists(st.sets(st.integers(1, 7), min_size=1, max_size=5), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(STRUCTURES, st.integers(0, 2**32 - 1))
def test_regions_of_a_reference_come_back_as_its_classes(members, seed):
    structures = {f"s{number}": sorted(values) for number, values in enumerate(members)}
    try:
        classes = classes_of(structures)
    except BadInput:
        assume(False)
    # classes partition the declared values, and a region is the union of its classes' values
    listed = list(itertools.chain(*classes.values[1:]))
    assert sorted(listed) == sorted(set().union(*members))
    regions = classes.regions or [[number + 1] for number in range(len(members))]
    for region, values in zip(regions, members, strict=True):
        assert {value for number in region for value in classes.values[number]} == values
    reference = np.random.default_rng(seed).integers(0, len(classes.names), (5, 6, 3)).astype(np.uint8)
    inside = np.stack([np.isin(reference, region) for region in regions])
    np.testing.assert_array_equal(label_of_regions(inside, regions), reference)


@settings(max_examples=40, deadline=None)
@given(STRUCTURES)
def test_every_prediction_can_be_written(members):
    """Whatever regions are predicted, a voxel in one of them is no background, and the label lies in a region of them."""
    try:
        regions = classes_of({f"s{number}": sorted(values) for number, values in enumerate(members)}).regions
    except BadInput:
        return
    assume(regions is not None)
    inside = np.array(list(itertools.product([False, True], repeat=len(regions)))).T
    labels = label_of_regions(inside, regions)
    for predicted, label in zip(inside.T, labels, strict=True):
        assert (label > 0) == predicted.any()
        assert label == 0 or any(label in region for region in np.array(regions, object)[predicted].tolist())
