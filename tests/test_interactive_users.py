"""Simulated users: they tell the truth, a method never sees the reference, and the counts are those of hand."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import label

from lib.data.conditions import case_rng
from lib.errors import BadInput
from lib.interactive import BACKGROUND, FOREGROUND, Crop
from lib.interactive.measures import curves, measure
from lib.interactive.robot import MARKS, SMALLEST, STRATEGIES, Robot
from lib.interactive.session import Round, play
from lib.metrics import score_case


class Oracle:
    """Knows the object and shows it from the first scribble on."""

    def __init__(self, answer: np.ndarray, needs_seeds: bool = False):
        self.answer, self.needs_seeds = answer, needs_seeds

    def begin(self, crop: Crop) -> None:
        self.shape = crop.image.shape[1:]

    def segment(self, scribbles: np.ndarray) -> np.ndarray:
        return self.answer if scribbles.any() else np.zeros(self.shape, bool)


class Painter:
    """Believes the scribbles and nothing else; keeps all that it was ever given."""

    needs_seeds = False

    def begin(self, crop: Crop) -> None:
        self.crop, self.seen = crop, []

    def segment(self, scribbles: np.ndarray) -> np.ndarray:
        self.seen.append(scribbles)
        return scribbles == FOREGROUND


class Noise(Painter):
    def segment(self, scribbles: np.ndarray) -> np.ndarray:
        self.seen.append(scribbles)
        return np.random.default_rng(len(self.seen)).random(scribbles.shape) < 0.5


def disk(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def crop_of(reference: np.ndarray, spacing: tuple[float, ...] | None = None) -> Crop:
    return Crop(reference[None].astype(np.float32), spacing or (1.0,) * reference.ndim)


def table_of(rounds: list[Round], **names) -> pd.DataFrame:
    kept = [f.name for f in fields(Round) if f.name not in ("prediction", "foreground")]
    return pd.DataFrame([names | {name: getattr(r, name) for name in kept} for r in rounds])


DISK = disk((40, 36), (18, 17), 11)
BALL = np.stack([disk((20, 22), (9, 10), r) for r in (0, 3, 5, 6, 6, 5, 3, 0)])
ROBOTS = [(strategy, mark) for strategy in STRATEGIES for mark in MARKS]


# --- what robots mark


masks = st.one_of(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14), array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape), st.sampled_from([(3.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.7, 0.9, 2.0)]))
)  # fmt: skip


@given(masks, st.sampled_from(ROBOTS), st.integers(0, 3), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_marks_are_true_and_lie_in_one_error(drawn, kind, seed, smallest):
    prediction, reference, spacing = drawn
    spacing = spacing[: reference.ndim]
    robot = Robot(*kind, seed, length=5)
    marks = robot.scribble(prediction, reference, spacing, smallest)
    wrong = prediction != reference
    pieces = [label(wrong & side, np.ones((3,) * wrong.ndim))[0] for side in (reference, ~reference)]
    large = [np.flatnonzero(np.bincount(p.ravel())[1:] >= smallest) + 1 for p in pieces]
    if marks is None:
        assert not large[0].size and not large[1].size
        return
    marked, value = marks > 0, marks.max()
    assert set(np.unique(marks[marked])) == {value}
    assert (reference[marked] == (value == FOREGROUND)).all(), "true"
    labels, sizes = (pieces[0], large[0]) if value == FOREGROUND else (pieces[1], large[1])
    assert len(np.unique(labels[marked])) == 1 and labels[marked][0] in sizes, "one error, and not too small a one"
    assert not robot.converged(prediction, reference) or smallest < SMALLEST[reference.ndim]
    if kind[1] == "scribble":
        assert marked.sum() <= 5
    if reference.ndim == 3:
        assert len(np.unique(np.argwhere(marked)[:, int(np.argmax(spacing))])) == 1, "one slice, as a user sees it"
    border = robot.border(reference)
    assert not border[reference].any() and set(np.unique(border)) <= {0, BACKGROUND}


def test_the_centre_scribble_runs_along_the_middle_of_the_largest_error():
    reference = np.zeros((30, 60), bool)
    reference[10:17, 5:55] = True  # 7 x 50
    reference[20:29, 2:10] = True
    marks = Robot().scribble(np.zeros_like(reference), reference, (1.0, 1.0))
    at = np.argwhere(marks == FOREGROUND)
    assert len(at) == 20 and set(at[:, 0]) == {13}, "the middle row"
    assert abs(at[:, 1].mean() - 29.5) <= 1 and np.ptp(at[:, 1]) == 19, "around the middle of the bar, in one piece"


def test_the_middle_is_the_deepest_place():
    reference = np.zeros((30, 80), bool)
    reference[13:16, 5:75] = True
    reference |= disk((30, 80), (14, 60), 9)
    scribble = np.argwhere(Robot(length=9).scribble(np.zeros_like(reference), reference, (1.0, 1.0)))
    assert abs(scribble[:, 1].mean() - 60) < 3
    click = Robot(mark="click").scribble(np.zeros_like(reference), reference, (1.0, 1.0))
    assert (click.astype(bool) == disk((30, 80), (14, 60), 2)).all()


def test_the_larger_error_is_corrected_and_of_equal_ones_what_is_left_out():
    reference, prediction = np.zeros((2, 30, 30), bool)
    reference[2:6, 2:6] = True  # 16 missing
    prediction[20:24, 20:25] = True  # 20 too many
    for robot in (Robot(), Robot(mark="click")):
        assert robot.scribble(prediction, reference, (1.0, 1.0)).max() == BACKGROUND
    prediction[20:24, 24] = False
    assert Robot().scribble(prediction, reference, (1.0, 1.0)).max() == FOREGROUND
    prediction[10:12, 10:15] = True  # 26 in all, yet no larger component
    assert Robot().scribble(prediction, reference, (1.0, 1.0)).max() == FOREGROUND


def test_small_errors_are_left_alone():
    reference = np.zeros((20, 20), bool)
    reference[3, 3:12] = True
    nothing = np.zeros_like(reference)
    for kind in ROBOTS:
        robot = Robot(*kind)
        assert robot.converged(nothing, reference) and robot.scribble(nothing, reference, (1.0, 1.0)) is None, (
            "9 pixels"
        )
        reference[4, 12] = True
        assert not robot.converged(nothing, reference) and robot.scribble(nothing, reference, (1.0, 1.0)).any(), (
            "10, at a corner"
        )
        reference[4, 12] = False
    volume = np.zeros((4, 12, 12), bool)
    volume[1, 2:7, 2:7] = True
    volume[2, 2, 2:6] = True
    assert Robot().converged(np.zeros_like(volume), volume), "29 voxels"
    volume[2, 2, 6] = True
    assert not Robot().converged(np.zeros_like(volume), volume)


def test_in_a_volume_the_slice_across_the_largest_spacing_where_the_error_is_largest():
    nothing = np.zeros_like(BALL)
    marks = Robot().scribble(nothing, BALL, (3.0, 1.0, 1.0))
    assert set(np.argwhere(marks)[:, 0]) == {3}, "the first of the two largest slices"
    marks = Robot().scribble(nothing, BALL, (1.0, 1.0, 4.0))
    assert set(np.argwhere(marks)[:, 2]) == {int(BALL.sum(axis=(0, 1)).argmax())}


def test_the_random_robot_visits_errors_in_proportion_to_their_size():
    reference, prediction = np.zeros((2, 40, 40), bool)
    reference[2:12, 2:12] = True  # 100
    prediction[20:40, 20:35] = True  # 300
    robot = Robot("random", "click", seed=3)
    values = [robot.scribble(prediction, reference, (1.0, 1.0)).max() for _ in range(600)]
    assert abs(np.mean(np.array(values) == FOREGROUND) - 0.25) < 3.5 * np.sqrt(0.25 * 0.75 / 600)
    places = np.sum(
        [
            Robot("random", "click", seed, radius=0).scribble(prediction, reference, (1.0, 1.0)) > 0
            for seed in range(400)
        ],
        axis=0,
    )
    assert places.sum() == 400 and np.count_nonzero(places) > 200, "not always the same place"


def test_robots_repeat_themselves_by_their_seed():
    nothing = np.zeros_like(DISK)

    def marks(repeat: int, strategy: str) -> np.ndarray:
        return Robot(strategy, seed=case_rng("d", "c", "robot 0", repeat)).scribble(nothing, DISK, (1.0, 1.0))

    assert (marks(0, "random") == marks(0, "random")).all() and (marks(0, "random") != marks(1, "random")).any()
    assert (marks(0, "centre") == marks(1, "centre")).all()


def test_unknown_strategies_and_marks_are_named():
    with pytest.raises(BadInput, match="strategy is 'center'; it must be one of centre, random"):
        Robot("center")
    with pytest.raises(BadInput, match="mark is 'lasso'"):
        Robot("centre", "lasso")


# --- sessions


@pytest.mark.parametrize(("strategy", "mark"), ROBOTS)
@pytest.mark.parametrize("reference", [DISK, BALL], ids=["2d", "3d"])
def test_an_oracle_takes_one_interaction(reference, strategy, mark):
    for needs_seeds in (False, True):
        rounds = play(Oracle(reference, needs_seeds), crop_of(reference), reference, Robot(strategy, mark), 10, 1.0)
        assert [r.interactions for r in rounds] == [0, 1]
        assert [r.dice for r in rounds] == [0, 1] and rounds[1].hd95 == 0 and rounds[1].nsd == 1
        assert [r.converged for r in rounds] == [False, True] and [r.foreground for r in rounds] == [None, True]
        (row,) = measure(table_of(rounds, case="a"), 10).to_dict("records")
        assert [row["noi_85"], row["noi_90"], row["noi_95"], row["failed_95"]] == [1, 1, 1, False]
        assert row["auc"] == pytest.approx(0.95), "a line from 0 to 1, then 9 of 10 at 1"


def test_a_box_that_is_enough_takes_none():
    class Knows(Oracle):
        def segment(self, scribbles):
            return self.answer

    (only,) = play(Knows(DISK), crop_of(DISK), DISK, Robot(), 10, 1.0)
    assert only.converged and only.scribbled_pixels == 0 and only.foreground is None
    (row,) = measure(table_of([only], case="a"), 10).to_dict("records")
    assert row["noi_95"] == 0 and row["auc"] == 1 and row["dice_10"] == 1 and np.isnan(row["seconds_per_round"])


def test_noise_never_converges_and_counts_as_the_budget():
    rounds = play(Noise(), crop_of(DISK), DISK, Robot(), 10, 1.0)
    assert [r.interactions for r in rounds] == list(range(11)) and not any(r.converged for r in rounds)
    (row,) = measure(table_of(rounds, case="a"), 10).to_dict("records")
    assert row["noi_85"] == row["noi_95"] == 10 and row["failed_85"] and row["dice_10"] < 0.6


def test_scores_are_those_of_the_metrics():
    half = DISK & (np.arange(40) < 18)[:, None]
    rounds = play(Oracle(half), crop_of(DISK, (2.0, 0.5)), DISK, Robot(), 1, 1.5)
    want = score_case(half, DISK, (2.0, 0.5), {"object": 1}, 1.5).set_index("metric")["value"]
    assert [rounds[1].dice, rounds[1].hd95, rounds[1].nsd] == [want["dice"], want["hd95"], want["nsd"]]
    nothing = score_case(half & False, DISK, (2.0, 0.5), {"object": 1}, 1.5).set_index("metric")["value"]
    assert [rounds[0].dice, rounds[0].hd95] == [0, nothing["hd95"]]


def test_a_method_that_needs_seeds_starts_with_the_border_and_one_scribble():
    painter = Painter()
    painter.needs_seeds = True
    rounds = play(painter, crop_of(DISK), DISK, Robot(), 3, 1.0)
    first = painter.seen[0]
    inside = np.zeros_like(DISK)
    inside[1:-1, 1:-1] = True
    assert (first[~inside] == BACKGROUND).all() and (first[inside] != BACKGROUND).all()
    assert rounds[0].dice == 0 and not rounds[0].prediction.any() and len(painter.seen) == 3
    assert rounds[1].scribbled_pixels == np.count_nonzero(first == FOREGROUND) <= 20, "the border is not drawn"
    for before, after in zip(painter.seen, painter.seen[1:], strict=False):
        assert (after[before > 0] == before[before > 0]).all(), "marks stay"


def test_objects_at_the_border_of_one_pixel_all_of_the_box_and_none():
    touching = DISK[7:29, 6:29].copy()
    assert touching[0].any() and touching[:, 0].any()
    one = np.zeros((9, 9), bool)
    one[4, 5] = True
    seeded = Painter()
    seeded.needs_seeds = True
    for reference in (touching, one, np.ones((8, 9), bool), np.ones((1, 1), bool), np.ones((3, 8, 2), bool)):
        rounds = play(seeded, crop_of(reference), reference, Robot(), 2, 1.0)
        assert rounds[1].foreground and rounds[1].dice > 0, "one mark inside, however small the object"
        assert all((s[reference] != BACKGROUND).all() and (s[~reference] != FOREGROUND).all() for s in seeded.seen)
    rounds = play(Painter(), crop_of(one), one, Robot(), 5, 1.0)
    assert len(rounds) == 1 and rounds[0].converged and rounds[0].dice == 0, (
        "smaller than what a user corrects: left as it is"
    )
    empty = np.zeros((9, 9), bool)
    assert [r.dice for r in play(seeded, crop_of(empty), empty, Robot(), 5, 1.0)] == [1.0] and seeded.seen == []
    (wrong, right) = play(Full(), crop_of(empty), empty, Robot(), 5, 1.0)
    assert wrong.dice == 0 and right.foreground is False and right.dice == 1


def test_what_has_no_reference_is_neither_wrong_nor_marked_nor_scored():
    ignored = np.zeros_like(DISK)
    ignored[:6] = ignored[:, :3] = True
    assert not (ignored & DISK).any()
    painter = Painter()
    painter.needs_seeds = True
    play(painter, crop_of(DISK), DISK, Robot(), 3, 1.0, ignored=ignored)
    assert all((marks[ignored] == 0).all() and (marks == BACKGROUND).any() for marks in painter.seen)
    wrong, right = play(Full(), crop_of(DISK), DISK, Robot(), 1, 1.0, ignored=ignored)
    want = score_case(~ignored, DISK, (1.0, 1.0), {"object": 1}, 1.0).set_index("metric")["value"]
    assert wrong.dice == want["dice"] and right.foreground is False
    spilt = play(Oracle(DISK | ignored), crop_of(DISK), DISK, Robot(), 5, 1.0, ignored=ignored)
    assert spilt[-1].converged and spilt[-1].dice == 1


class Full(Painter):
    """Everything, until something is background."""

    def segment(self, scribbles):
        return np.full(scribbles.shape, not (scribbles == BACKGROUND).any())


def test_a_method_sees_the_image_in_the_box_and_marks_only():
    assert [f.name for f in fields(Crop)] == ["image", "spacing"]
    painter = Painter()
    rng = np.random.default_rng(0)
    crop = Crop(rng.normal(size=(2, *DISK.shape)).astype(np.float32), (1.0, 1.0))
    play(painter, crop, DISK, Robot(), 4, 1.0)
    assert vars(painter).keys() == {"crop", "seen"}
    assert all(value is not DISK for value in vars(painter.crop).values())
    assert (painter.crop.image == crop.image).all()
    with pytest.raises(ValueError, match="read-only"):
        painter.crop.image[0, 0, 0] = 1


def test_references_that_lead_to_the_same_marks_lead_to_the_same_answers():
    """Two references that differ in pixels too few to be corrected: all that reaches the method are the marks."""
    other = DISK.copy()
    other[0:2, 0:4] = True  # 8 pixels elsewhere
    crop = Crop(np.random.default_rng(0).normal(size=(1, *DISK.shape)).astype(np.float32), (1.0, 1.0))
    a, b = (play(Painter(), crop, reference, Robot(), 6, 1.0) for reference in (DISK, other))
    assert len(a) == len(b) == 7 and [r.dice for r in a] != [r.dice for r in b]
    for one, two in zip(a, b, strict=True):
        assert (one.prediction == two.prediction).all()


def test_sessions_share_nothing():
    """A method that changes what it is given, or hands out the same array, harms no round."""

    class Careless(Painter):
        def begin(self, crop):
            super().begin(crop)
            self.own = np.zeros(crop.image.shape[1:], bool)

        def segment(self, scribbles):
            self.own |= scribbles == FOREGROUND
            scribbles[:] = BACKGROUND
            return self.own

    careful, careless = (play(m, crop_of(DISK), DISK, Robot(), 4, 1.0) for m in (Painter(), Careless()))
    assert [r.dice for r in careful] == [r.dice for r in careless]
    assert not careless[0].prediction.any()


@pytest.mark.parametrize("wrong", [np.zeros((40, 36), np.uint8), np.zeros((36, 40), bool)])
def test_answers_that_are_no_mask_of_the_box_are_refused(wrong):
    class Wrong(Painter):
        def segment(self, scribbles):
            return wrong

    with pytest.raises(ValueError, match=r"Wrong returned .* must return bool"):
        play(Wrong(), crop_of(DISK), DISK, Robot(), 2, 1.0)


# --- measures


def rounds_table(**sessions: list[float]) -> pd.DataFrame:
    rows = [
        {
            "case": case,
            "slice": np.nan,
            "interactions": i,
            "dice": d,
            "hd95": 1.0,
            "nsd": d,
            "seconds": float(i),
            "scribbled_pixels": 10 * (i > 0),
            "mark": "",
            "converged": False,
        }
        for case, values in sessions.items()
        for i, d in enumerate(values)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_measures_by_hand():
    rounds = rounds_table(a=[0.5, 0.86, 0.8, 0.91, 0.94], b=[0.95], c=[0.0, 0.2, 0.4])
    table = measure(rounds, 4).set_index("case")
    assert table["noi_85"].tolist() == [1, 0, 4], "the first time, even if it falls again; never: the budget"
    assert table["noi_90"].tolist() == [3, 0, 4]
    assert table["noi_95"].tolist() == [4, 0, 4]
    assert table["failed_90"].tolist() == [False, False, True] and table["failed_95"].tolist() == [True, False, True]
    assert table["auc"].tolist() == pytest.approx(
        [(0.25 + 0.86 + 0.8 + 0.91 + 0.47) / 4, 0.95, (0.0 + 0.2 + 0.4 + 0.4 + 0.2) / 4]
    )
    assert table["dice_0"].tolist() == [0.5, 0.95, 0.0] and table["dice_3"].tolist() == [0.91, 0.95, 0.4]
    assert "dice_5" not in table, "beyond the budget"
    assert table["interactions"].tolist() == [4, 0, 2] and table["scribbled_pixels"].tolist() == [40, 0, 20]
    assert table["seconds_per_round"].tolist()[::2] == [2.5, 1.5] and np.isnan(table.loc["b", "seconds_per_round"])
    assert table["slice"].isna().all()
    assert curves(rounds, 4, "nsd").to_numpy()[2].tolist() == [0.0, 0.2, 0.4, 0.4, 0.4]


def test_reached_with_the_last_interaction_is_no_failure():
    table = measure(rounds_table(a=[0.1, 0.2, 0.9], b=[0.1, 0.2, 0.3]), 2)
    assert table["noi_90"].tolist() == [2, 2] and table["failed_90"].tolist() == [False, True]


def test_rounds_that_are_missing_doubled_or_too_many_are_named():
    rounds = rounds_table(a=[0.5, 0.6], b=[0.5, 0.6, 0.7])
    with pytest.raises(ValueError, match="case b, slice nan: has more than 1 interactions"):
        measure(rounds, 1)
    b = rounds["case"] == "b"
    without_first, without_middle = (
        rounds[~b | (rounds["interactions"] > 0)],
        rounds[~b | (rounds["interactions"] != 1)],
    )
    for broken in (
        without_first,
        without_middle,
        pd.concat([rounds, rounds[b]]),
        pd.concat([rounds, rounds[b & (rounds["interactions"] == 2)]]),
    ):
        with pytest.raises(ValueError, match="case b, slice nan: its rounds are not 0, 1, 2"):
            measure(broken, 4)
