"""Counts of lesions against counts by hand, and against a search that knows no label function."""

from __future__ import annotations

import numpy as np
import pytest

from lib.errors import BadInput
from lib.metrics.lesions import score_lesions, worst_lesions
from lib.metrics.names import LESION_METRICS

PANOPTIC = 0.5


def counts(prediction, reference, overlap="any", structures=None) -> tuple:
    table = score_lesions(prediction, reference, structures or {"lesion": 1}, overlap)
    assert table["metric"].tolist() == list(LESION_METRICS) * len(structures or [1])
    return tuple(table.groupby("structure").first().index), tuple(table["value"])


def picture(text: str) -> np.ndarray:
    return np.array([[int(c) for c in line] for line in text.split()], np.uint8)


REFERENCE = picture("""
    1100000010
    1100000000
    0000110000
    0000001000
    1110000000
    1110000001""")
PREDICTION = picture("""
    1100001000
    1000000000
    0000100000
    0000000000
    1010000000
    1010000011""")


def test_counts_by_hand():
    """Five lesions, the diagonal one being one. Found: the corner, the diagonal, the block in two parts, the last."""
    assert counts(PREDICTION, REFERENCE)[1] == (5, 6, 4, 1, 1, pytest.approx(8 / 10))
    # IoU: corner 3/4, diagonal 1/3, block 2/6 twice, last 1/2, which is not above 0.5
    assert counts(PREDICTION, REFERENCE, PANOPTIC)[1] == (5, 6, 1, 5, 4, pytest.approx(2 / 11))
    assert counts(PREDICTION, REFERENCE, 0.75)[1] == (5, 6, 0, 6, 5, 0)  # not above, again
    assert counts(PREDICTION, REFERENCE, 0.74)[1][2] == 1


def test_one_blob_over_two_lesions_finds_both_by_any_voxel_and_none_by_iou():
    reference = picture("11100111")
    blob = np.ones_like(reference)
    assert counts(blob, reference)[1] == (2, 1, 2, 0, 0, 1)
    assert counts(blob, reference, PANOPTIC)[1] == (2, 1, 0, 1, 2, 0)


def test_empties_and_failed_cells():
    nothing = np.zeros_like(REFERENCE)
    for prediction, reference, expected, status in (
        (nothing, nothing, (0, 0, 0, 0, 0, 1), "both_empty"),
        (nothing, REFERENCE, (5, 0, 0, 0, 5, 0), "missed"),
        (REFERENCE, nothing, (0, 5, 0, 5, 0, 0), "hallucinated"),
        (REFERENCE, REFERENCE, (5, 5, 5, 0, 0, 1), "scored"),
    ):
        table = score_lesions(prediction, reference, {"lesion": 1})
        assert tuple(table["value"]) == expected
        assert set(table["status"]) == {status}
    for reference, expected in ((REFERENCE, (5, 0, 0, 0, 5, 0)), (nothing, (0, 0, 0, 0, 0, 0))):
        failed = worst_lesions(reference, {"lesion": 1})
        assert (tuple(failed["value"]), set(failed["status"])) == (expected, {"failed"})


def flood(mask: np.ndarray) -> list[set]:
    """Components by a walk over neighbours."""
    left, components = set(map(tuple, np.argwhere(mask))), []
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * mask.ndim)).reshape(mask.ndim, -1).T
    while left:
        walk, component = [left.pop()], set()
        while walk:
            component.add(at := walk.pop())
            near = {tuple(at + step) for step in steps} & left
            left -= near
            walk += near
        components.append(component)
    return components


@pytest.mark.parametrize("shape", [(30, 26), (12, 9, 11), (1, 20, 30), (15, 20, 1)])
@pytest.mark.parametrize("overlap", ["any", 0.5, 0.7])
def test_agrees_with_a_flood_fill(shape, overlap):
    rng = np.random.default_rng(len(shape))
    share = 0.25 if max(shape) > 12 else 0.06
    reference = rng.random(shape) < share
    prediction = (reference & (rng.random(shape) < 0.8)) | (rng.random(shape) < share / 4)
    truth, guess = flood(reference), flood(prediction)
    if overlap == "any":
        tp = sum(any(t & g for g in guess) for t in truth)
        fp = sum(not any(t & g for t in truth) for g in guess)
    else:
        tp = sum(len(t & g) / len(t | g) > overlap for t in truth for g in guess)
        fp = len(guess) - tp
    fn = len(truth) - tp
    assert 0 < tp < len(truth) and fp  # the case tells them apart
    _, values = counts(np.asfortranarray(prediction), reference, overlap)
    assert values == (len(truth), len(guess), tp, fp, fn, pytest.approx(2 * tp / (2 * tp + fp + fn)))


def test_unions_and_overlapping_structures():
    """Structures are counted each for itself, a union of labels as one."""
    labels = np.zeros((6, 12), np.uint16)
    labels[1:3, 1:3], labels[1:3, 3:5], labels[1:3, 8:10] = 300, 7, 7
    names, values = counts(labels, labels, structures={"a": [300, 7], "b": 7, "c": 300})
    assert names == ("a", "b", "c")
    assert [values[6 * i] for i in range(3)] == [2, 2, 1]


@pytest.mark.parametrize("overlap", [0.1, 1, "iou", None])
def test_rules_that_do_not_pair_are_refused(overlap):
    with pytest.raises(BadInput, match=r"lesions.overlap is .*; give any, or an IoU from 0.5 to below 1"):
        score_lesions(REFERENCE, REFERENCE, {"lesion": 1}, overlap)
