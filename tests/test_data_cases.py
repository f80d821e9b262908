"""Cases: index.csv keeps them, and loading puts channels, structures and masks of several files together."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.data.cases import Case, load_image, load_label, load_mask, read_index, write_index
from lib.errors import BadInput

SHAPE = (3, 4, 5)
AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])


def volume(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return str(path)


def picture(path: Path, array: np.ndarray) -> str:
    Image.fromarray(array.astype(np.uint8)).save(path)
    return str(path)


# index.csv


def test_the_table_has_one_row_per_case_and_one_column_per_file(tmp_path):
    cases = [
        Case("b", "p2", {"flair": "b_f.nii", "t1": "b_t.nii"}, {"nerve": "b_n.png"}, None, {"site": "oslo"}),
        Case(
            "a",
            "p1",
            {"flair": "a,f.nii", "t1": "a_t.nii"},
            {"nerve": "a_n.png", "vein": "a_v.png"},
            "a_m.nii",
            {"site": ""},
        ),
    ]
    write_index(tmp_path / "index.csv", cases)
    table = pd.read_csv(tmp_path / "index.csv", keep_default_na=False)
    assert table["case"].tolist() == ["a", "b"]
    expected = {"case", "patient", "site", "image:flair", "image:t1", "label:nerve", "label:vein", "mask"}
    assert set(table.columns) == expected
    assert table["label:vein"].tolist() == ["a_v.png", ""]
    again = read_index(tmp_path / "index.csv")
    assert again == [cases[1], cases[0]]
    assert list(again[0].images) == ["flair", "t1"]  # the order of the channels
    write_index(tmp_path / "hashed.csv", cases, {"a": "12", "b": "34"})
    assert read_index(tmp_path / "hashed.csv") == again
    assert pd.read_csv(tmp_path / "hashed.csv")["data:sha256"].tolist() == [12, 34]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6)
NAMES = st.lists(st.from_regex(r"[A-Za-z]\w{0,5}", fullmatch=True), min_size=1, max_size=3, unique=True)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_cases_are_read_back(tmp_path_factory, data):
    channels, structures = data.draw(NAMES), data.draw(NAMES)
    fields = [name for name in data.draw(NAMES) if name not in ("case", "patient", "mask")]
    cases = [
        Case(
            name,
            data.draw(TEXT),
            {channel: data.draw(TEXT) for channel in channels},
            {structure: data.draw(TEXT) for structure in structures},
            data.draw(st.none() | TEXT),
            {field: data.draw(st.just("") | TEXT) for field in fields},
        )
        for name in sorted(
            data.draw(st.sets(TEXT | st.sampled_from(["NA", "01", "1e5", "None"]), min_size=1, max_size=3))
        )
    ]
    path = tmp_path_factory.mktemp("index") / "index.csv"
    write_index(path, cases)
    assert read_index(path) == cases


# Images


def test_channels_are_put_together_in_order(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=SHAPE).astype(np.float32) for _ in range(2)]
    files = {
        name: volume(tmp_path / f"{name}.nii.gz", array) for name, array in zip(("t1", "flair"), arrays, strict=True)
    }
    image, geometry = load_image(Case("c", "p", files, {}))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, np.stack(arrays))
    np.testing.assert_array_equal(geometry.spacing, [1, 1, 4])
    four = volume(tmp_path / "four.nii.gz", np.stack(arrays, axis=-1))
    np.testing.assert_array_equal(load_image(Case("c", "p", {"image": four}, {}))[0], np.stack(arrays))


def test_channels_on_different_grids(tmp_path):
    first = volume(tmp_path / "t1.nii.gz", np.zeros(SHAPE, np.float32))
    smaller = volume(tmp_path / "small.nii.gz", np.zeros((3, 4, 4), np.float32))
    with pytest.raises(
        BadInput, match=r"small.nii.gz: shape \(3, 4, 4\) differs from shape \(3, 4, 5\) of .*t1.nii.gz"
    ):
        load_image(Case("c", "p", {"t1": first, "flair": smaller}, {}))
    moved = AFFINE.copy()
    moved[2, 3] = 2.5
    shifted = volume(tmp_path / "moved.nii.gz", np.zeros(SHAPE, np.float32), moved)
    with pytest.raises(BadInput, match=r"moved.nii.gz: its affine puts voxels up to 2.5 mm away from those of"):
        load_image(Case("c", "p", {"t1": first, "flair": shifted}, {}))
    moved[2, 3] = 0.01  # rounding of a header
    nearly = volume(tmp_path / "nearly.nii.gz", np.zeros(SHAPE, np.float32), moved)
    assert load_image(Case("c", "p", {"t1": first, "flair": nearly}, {}))[0].shape == (2, *SHAPE)


def test_colours_as_one_channel_or_three(tmp_path):
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[0, 0], colours[0, 1], colours[0, 2], colours[1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    case = Case("c", "p", {"image": picture(tmp_path / "a.png", colours)}, {})
    image, geometry = load_image(case)
    assert image.shape == (3, 2, 3, 1)
    assert (geometry.unit, geometry.spacing.tolist()) == ("px", [1, 1, 1])
    np.testing.assert_array_equal(image[:, 0, 1, 0], [0, 255, 0])
    grey, _ = load_image(case, colour="grey")
    assert grey.shape == (1, 2, 3, 1)
    np.testing.assert_allclose(grey[0, :, :, 0], [[76.245, 149.685, 29.07], [255, 0, 0]], rtol=1e-5)  # ITU-R BT.601
    one = Case("c", "p", {"image": picture(tmp_path / "b.png", colours[..., 0])}, {})
    same, _ = load_image(one, colour="rgb")
    assert same.shape == (3, 2, 3, 1)
    assert (same == load_image(one, colour="grey")[0]).all()
    two = volume(tmp_path / "two.nii.gz", np.zeros((*SHAPE, 2), np.float32))
    with pytest.raises(BadInput, match=r"two.nii.gz: has 2 channels; preprocess.colour is for pictures with 1 or 3"):
        load_image(Case("c", "p", {"image": two}, {}), colour="grey")


# Labels


def structures(tmp_path: Path, vessel: np.ndarray) -> Case:
    nerve = np.zeros((4, 4))
    nerve[0] = 255
    image = picture(tmp_path / "image.png", np.zeros((4, 4)))
    labels = {"nerve": picture(tmp_path / "nerve.png", nerve), "vessel": picture(tmp_path / "vessel.png", vessel)}
    return Case("c", "p", {"image": image}, labels)


def test_masks_of_structures_become_a_label_map(tmp_path):
    vessel = np.zeros((4, 4))
    vessel[2:, 1] = 1
    case = structures(tmp_path, vessel)
    label, geometry = load_label(case, {"vessel": [7, 8], "nerve": 300})
    expected = np.zeros((4, 4, 1))
    expected[0], expected[2:, 1] = 300, 7
    np.testing.assert_array_equal(label, expected)
    assert geometry.shape == (4, 4, 1)
    assert load_label(case, {"nerve": 1, "vessel": 2})[0].dtype == np.uint8
    alone = Case("c", "p", case.images, {"nerve": case.labels["nerve"]})  # the other structure is absent
    assert np.unique(load_label(alone, {"nerve": 1, "vessel": 2})[0]).tolist() == [0, 1]


def test_masks_that_overlap_or_are_none(tmp_path):
    vessel = np.zeros((4, 4))
    vessel[:, 1] = 1
    with pytest.raises(BadInput, match=r"vessel.png: 1 voxels lie in the mask of another structure of the same case"):
        load_label(structures(tmp_path, vessel), {"nerve": 1, "vessel": 2})
    with pytest.raises(BadInput, match=r"vessel.png: a binary mask has 0 and one other value, but here are 0, 1, 2, 3"):
        load_label(structures(tmp_path, np.arange(16).reshape(4, 4) % 4), {"nerve": 1, "vessel": 2})
    with pytest.raises(BadInput, match=r"vessel.png: shape \(4, 5, 1\) differs from shape \(4, 4, 1\) of .*image.png"):
        load_label(structures(tmp_path, np.zeros((4, 5))), {"nerve": 1, "vessel": 2})


def test_one_label_map_and_one_in_colours(tmp_path):
    labels = np.arange(60).reshape(SHAPE).astype(np.int16)
    case = Case("c", "p", {"image": "unused"}, {"label": volume(tmp_path / "l.nii.gz", labels)})
    np.testing.assert_array_equal(load_label(case, {})[0], labels)
    colours = np.zeros((2, 2, 3))
    colours[0, 1], colours[1, 1] = (128, 0, 0), (0, 128, 0)
    case = Case("c", "p", {"image": "unused"}, {"label": picture(tmp_path / "l.png", colours)})
    label, _ = load_label(case, {}, {1: [128, 0, 0], 2: [0, 128, 0]})
    assert label[..., 0].tolist() == [[0, 1], [0, 2]]


def test_the_mask_of_a_case(tmp_path):
    inside = np.zeros(SHAPE, np.uint8)
    inside[1] = 1
    path = volume(tmp_path / "brain.nii.gz", inside)
    mask, geometry = load_mask(Case("c", "p", {}, {}, path))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, inside == 1)
    np.testing.assert_array_equal(geometry.affine, AFFINE)
    assert load_mask(Case("c", "p", {}, {})) is None
