"""The check of a dataset: what it records, and every fault of the data by its message."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from lib.data.cases import Case
from lib.data.check import check_cases, require_sound
from lib.errors import BadInput

STRUCTURES = {"rv": 1, "wall": [2, 3]}
AFFINE = np.diag([-1.5, -1.5, 8.0, 1.0])
SHAPE = (8, 7, 5)


def block(structures=STRUCTURES, **changes) -> dict:
    defaults = {
        "source": {"path": "data/hearts"}, "structures": structures, "palette": None, "ignore": [],
        "preprocess": {"colour": None},
        "check": {"on_error": "stop", "near_duplicates": {"threshold": 0.9, "action": "list"}},
    }  # fmt: skip
    return copy.deepcopy(defaults) | changes


def rules(on_error: str = "stop", action: str = "list", threshold: float | None = 0.9) -> dict:
    return {"check": {"on_error": on_error, "near_duplicates": {"threshold": threshold, "action": action}}}


def write(path, array, affine=AFFINE) -> str:
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def image_file(case: Case) -> str:
    return case.images["image"]


def label_file(case: Case) -> str:
    return case.labels["label"]


def voxels(path: str, kind=np.float32) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).astype(kind)


def edit(path: str, where, value, kind=np.float32) -> None:
    """Write a volume again with `value` at `where`."""
    array = voxels(path, kind)
    array[where] = value
    write(path, array, nib.load(path).affine)


@pytest.fixture
def cases(tmp_path) -> list[Case]:
    """Three sound cases of two patients."""
    rng = np.random.default_rng(0)
    made = []
    for name, patient in (("a_1", "a"), ("a_2", "a"), ("b_1", "b")):
        labels = np.zeros(SHAPE, np.uint8)
        labels[2, 2:5, 1], labels[3, 2:6, 1], labels[4, 2, 1:3] = 1, 2, 3
        image = write(tmp_path / f"{name}.nii.gz", rng.integers(0, 500, SHAPE).astype(np.int16))
        label = write(tmp_path / f"{name}_gt.nii.gz", labels)
        made.append(Case(name, patient, {"image": image}, {"label": label}, fields={"site": f"site of {patient}"}))
    return made


def check(cases: list[Case], settings: dict | None = None) -> dict:
    result = check_cases(cases, settings or block(), "hearts")
    assert json.loads(json.dumps(result, allow_nan=False)) == result  # check.json holds it
    return result


def message(cases: list[Case], settings: dict | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        require_sound(check(cases, settings))
    return str(caught.value)


# What is recorded


def test_sound_cases_are_described(cases):
    result = check(cases)
    require_sound(result)
    assert set(result) == {
        "dataset", "cases", "problems", "advice", "warnings", "dropped", "near_duplicates", "groups",
        "data_hash",
    }  # fmt: skip
    assert (result["dataset"], result["problems"], result["warnings"], result["dropped"]) == ("hearts", [], [], [])
    assert result["near_duplicates"] == {"threshold": 0.9, "action": "list", "exempt": False, "pairs": []}
    first = result["cases"][0]
    assert set(first) == {
        "case", "patient", "images", "labels", "mask", "fields", "shape", "spacing", "unit", "orientation", "affine",
        "channels", "intensity", "image_sha256", "label_sha256", "mask_sha256", "label_files",
    }  # fmt: skip
    assert [row["case"] for row in result["cases"]] == ["a_1", "a_2", "b_1"]
    assert (first["patient"], first["images"], first["mask"]) == ("a", cases[0].images, None)
    assert first["fields"] == {"site": "site of a"}
    assert (first["shape"], first["spacing"], first["unit"]) == ([8, 7, 5], [1.5, 1.5, 8.0], "mm")
    assert (first["orientation"], first["affine"]) == ("LPS", AFFINE.ravel().tolist())
    assert first["labels"] == {"0": 271, "1": 3, "2": 4, "3": 2}
    image = voxels(image_file(cases[0]))
    assert first["intensity"] == [{"min": image.min(), "max": image.max(), "mean": pytest.approx(image.mean())}]
    assert first["mask_sha256"] == ""


def test_the_data_hash_follows_contents_and_not_files(cases, tmp_path):
    before = check(cases)["data_hash"]
    # moved and written again without compression and in another number type: the same data
    moved = []
    for number, case in enumerate(cases):
        path = tmp_path / f"moved_{number}.nii"
        nib.save(nib.Nifti1Image(voxels(image_file(case)), AFFINE), path)
        moved.append(replace(case, images={"image": str(path)}))
    assert check(moved)["data_hash"] == before
    hashes = [before]
    edit(image_file(cases[0]), (0, 0, 0), voxels(image_file(cases[0]))[0, 0, 0] + 1)
    hashes.append(check(cases)["data_hash"])
    edit(label_file(cases[1]), (0, 0, 0), 1, np.uint8)
    hashes.append(check(cases)["data_hash"])
    for path in (image_file(cases[2]), label_file(cases[2])):  # the same voxels elsewhere in space
        write(path, voxels(path, np.int16), np.diag([1.0, 1, 1, 1]))
    hashes.append(check(cases)["data_hash"])
    cases[0] = replace(cases[0], patient="c")
    hashes.append(check(cases)["data_hash"])
    inside = np.ones(SHAPE, np.uint8)
    for corner in (1, 0):
        inside[0, 0, 0] = corner
        cases[1] = replace(cases[1], mask=write(tmp_path / "mask.nii.gz", inside))
        hashes.append(check(cases)["data_hash"])
    hashes.append(check(cases[:2])["data_hash"])
    assert len(set(hashes)) == len(hashes)


def picture(path: Path, array: np.ndarray) -> str:
    Image.fromarray(array).save(path)
    return str(path)


def test_pictures_with_a_mask_per_structure(tmp_path):
    rng = np.random.default_rng(1)
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 2:4, 3:9], masks[1, 10, 11:15] = 255, 1
    images = {"image": picture(tmp_path / "a.png", rng.integers(0, 255, (20, 30, 3), np.uint8))}
    labels = {name: picture(tmp_path / f"{name}.png", mask) for name, mask in zip(("rv", "wall"), masks, strict=True)}
    case = Case("a", "a", images, labels)
    result = check([case])
    require_sound(result)
    (row,) = result["cases"]
    assert row["labels"] == {"0": 584, "1": 12, "2": 4}
    assert (row["unit"], row["spacing"], row["orientation"], row["channels"]) == ("px", [1, 1, 1], "", 3)
    assert len(row["intensity"]) == 3
    grey = check([case], block(preprocess={"colour": "grey"}))["cases"][0]
    assert (grey["channels"], len(grey["intensity"])) == (1, 1)


def test_a_mask_that_is_empty_or_missing_says_that_the_structure_is_absent(tmp_path):
    rng = np.random.default_rng(1)
    inside = np.zeros((20, 30), np.uint8)
    inside[4:9, 4:9] = 255
    kinds = {"has": inside, "empty": inside * 0, "gone": None}
    cases = [
        Case(
            name, name, {"image": picture(tmp_path / f"{name}.png", rng.integers(0, 255, (20, 30), np.uint8))},
            {} if mask is None else {"nerve": picture(tmp_path / f"{name}_mask.png", mask)},
        )
        for name, mask in kinds.items()
    ]  # fmt: skip
    result = check(cases, block({"nerve": 1}))
    assert result["problems"] == []
    absent, patients = result["warnings"]
    assert absent == "structure nerve is absent from 2 cases: empty, gone"
    assert patients.startswith("each picture counts as a patient of its own")
    named = [replace(case, patient="anna") for case in cases]
    assert check(named, block({"nerve": 1}))["warnings"] == [absent]
    assert "structures.nerve: no label map has the value 1 (there are: none)" in message(cases[1:], block({"nerve": 1}))


# Problems


def test_all_problems_are_reported_at_once(cases):
    shutil.copy(__file__, image_file(cases[0]))
    edit(label_file(cases[1]), (0, 0, slice(4)), [7, 7, 7, 9], np.uint8)
    edit(image_file(cases[2]), (1, 1, slice(2)), [np.nan, np.inf])
    text = message(cases)
    assert text.startswith("dataset 'hearts' has 3 problems:\n  - ")
    assert f"{image_file(cases[0])}: not a readable NIfTI file" in text
    assert (
        f"{label_file(cases[1])}: label values that `structures` does not declare: 7 (3 voxels), 9 (1 voxels)" in text
    )
    assert f"{image_file(cases[2])}: 2 voxels are NaN or infinite" in text
    assert text.endswith("structures: {rv: 1, wall: [2, 3], label_7: 7, label_9: 9}")


def test_of_many_problems_alike_the_first_are_listed(cases):
    named = [
        replace(case, case=f"{case.case}{n}", patient=f"p{n}", images={"image": f"{n}.nii.gz"})
        for n in range(3)
        for case in cases[:2]
    ]
    edit(image_file(cases[2]), (1, 1, slice(2)), [np.nan, np.inf])
    result = check([*named, cases[2]])
    assert len(result["problems"]) == 4  # one for each file that is not there, one for the damaged image
    result["problems"] += [f"{n}.nii.gz: this file does not exist" for n in (3, 4)]
    with pytest.raises(BadInput) as caught:
        require_sound(result, page="check.html")
    lines = str(caught.value).splitlines()
    assert lines[:5] == [
        "dataset 'hearts' has 6 problems:",
        *[f"  - {n}.nii.gz: this file does not exist" for n in range(3)],
        "  - … and 2 more like these",
    ]
    assert "2 voxels are NaN" in lines[5]
    assert lines[6:] == ["The page about them: check.html"]


def test_one_problem_is_one(cases):
    edit(image_file(cases[0]), (0, 0, 0), np.nan)
    assert message(cases).startswith("dataset 'hearts' has 1 problem:\n  - ")


def test_missing_and_truncated_files(cases):
    Path(image_file(cases[0])).unlink()
    Path(label_file(cases[1])).unlink()
    whole = Path(image_file(cases[2])).read_bytes()
    Path(image_file(cases[2])).write_bytes(whole[:-9])
    text = message(cases)
    assert f"{image_file(cases[0])}: this file does not exist" in text
    assert f"{label_file(cases[1])}: this file does not exist" in text
    assert f"{image_file(cases[2])}: not a readable NIfTI file; it is truncated or" in text
    assert "3 problems" in text


def test_shape_and_affine(cases):
    paths = [label_file(case) for case in cases]
    write(paths[0], voxels(paths[0], np.uint8)[:-1])
    write(paths[1], voxels(paths[1], np.uint8), np.diag([-1.5, -1.5, 8.5, 1.0]))
    shifted = AFFINE.copy()
    shifted[0, 3] = 1.0
    write(paths[2], voxels(paths[2], np.uint8), shifted)
    text = message(cases)
    assert f"{paths[0]}: shape (7, 7, 5) differs from shape (8, 7, 5) of {image_file(cases[0])}" in text
    assert f"{paths[1]}: its affine puts voxels up to 2 mm away from those of {image_file(cases[1])}" in text
    assert f"{paths[2]}: its affine puts voxels up to 1 mm away from those of {image_file(cases[2])}" in text


def test_rounding_of_an_affine_is_no_problem(cases):
    near = AFFINE.copy()
    near[:3, 3] += 0.01
    write(label_file(cases[0]), voxels(label_file(cases[0]), np.uint8), near)
    result = check(cases)
    assert result["problems"] == result["warnings"] == []


def test_the_mask_of_a_case(cases, tmp_path):
    sound = write(tmp_path / "sound.nii.gz", np.ones(SHAPE, np.uint8))
    cases = [replace(case, mask=sound) for case in cases]
    result = check(cases)
    assert result["problems"] == []
    assert len(result["cases"][0]["mask_sha256"]) == 64
    small = write(tmp_path / "small.nii.gz", np.ones((8, 7, 4), np.uint8))
    empty = write(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8))
    three = write(tmp_path / "three.nii.gz", np.arange(280, dtype=np.int16).reshape(SHAPE) % 3)
    text = message([replace(case, mask=mask) for case, mask in zip(cases, (small, empty, three), strict=True)])
    assert f"{small}: shape (8, 7, 4) differs from shape (8, 7, 5) of {image_file(cases[0])}" in text
    assert f"{empty}: the mask is empty (all 0)" in text
    assert f"{three}: a binary mask has 0 and one other value, but here are 0, 1, 2" in text
    assert "3 problems" in text


def test_labels_that_are_not_whole_negative_or_empty(cases):
    paths = [label_file(case) for case in cases]
    write(paths[0], voxels(paths[0]) * 0.7)
    write(paths[1], voxels(paths[1], np.uint8) * 0)
    edit(paths[2], (0, 0, 0), -1, np.int16)
    text = message(cases)
    assert f"{paths[0]}: 9 voxels of this label map are not whole numbers" in text
    assert f"{paths[1]}: the label map is empty" in text
    assert f"{paths[2]}: label values that `structures` does not declare: -1 (1 voxels)" in text
    assert "label_minus_1: -1}" in text


def test_ignored_values_are_declared_but_no_structure(cases):
    edit(label_file(cases[0]), (0, 0, slice(2)), 255, np.uint8)
    assert "does not declare: 255 (2 voxels)" in message(cases)
    result = check(cases, block(ignore=[255]))
    assert result["problems"] == result["warnings"] == []
    assert result["cases"][0]["labels"]["255"] == 2
    array = voxels(label_file(cases[0]), np.uint8)
    write(label_file(cases[0]), np.where(array == 255, array, 0).astype(np.uint8))
    result = check(cases, block(ignore=[255]))  # nothing but ignored voxels
    assert result["problems"] == []
    assert [w.split(" is absent")[0] for w in result["warnings"]] == ["structure rv", "structure wall"]


def test_constant_image(cases):
    write(image_file(cases[1]), np.full(SHAPE, 12, np.int16))
    assert f"{image_file(cases[1])}: the image is constant (every voxel is 12)" in message(cases)


def test_bad_spacing(cases, tmp_path):
    path = tmp_path / "a_1.nii"
    nib.save(nib.load(image_file(cases[0])), path)
    data = bytearray(path.read_bytes())
    data[80:84] = np.float32(0).tobytes()  # pixdim[1]
    path.write_bytes(data)
    cases[0] = replace(cases[0], images={"image": str(path)})
    assert f"{path}: voxel size 0 × 1.5 × 8 mm in the header" in message(cases)


def test_an_unusual_number_of_channels(cases):
    write(image_file(cases[1]), np.random.default_rng(5).integers(0, 9, (*SHAPE, 2)).astype(np.int16))
    text = message(cases)
    assert f"{image_file(cases[1])}: has 2 channels, but most images have 1; a network takes one number" in text
    assert "1 problem:" in text


def test_a_structure_that_no_case_has(cases):
    structures = {**STRUCTURES, "aorta": 4}
    text = message(cases, block(structures))
    assert "structures.aorta: no label map has the value 4 (there are: 1, 2, 3); correct the value or remove" in text
    # with an unreadable label map nobody knows
    shutil.copy(__file__, label_file(cases[0]))
    assert "structures.aorta" not in message(cases, block(structures))


def test_a_structure_that_one_case_lacks_is_a_warning(cases):
    array = voxels(label_file(cases[1]), np.uint8)
    write(label_file(cases[1]), np.where(array == 1, 0, array).astype(np.uint8))
    assert check(cases)["warnings"] == ["structure rv is absent from 1 case: a_2"]
    array = voxels(label_file(cases[2]), np.uint8)
    write(label_file(cases[2]), np.where(array == 3, 0, array).astype(np.uint8))  # one of the two values is enough
    assert len(check(cases)["warnings"]) == 1


def test_regions_that_could_not_be_written(cases):
    with pytest.raises(BadInput, match=r"structures.core: all its values \[2\] belong to later structures"):
        check_cases(cases, block({"core": 2, "whole": [1, 2]}), "hearts")
    overlapping = check(cases, block({"whole": [1, 2, 3], "core": 2}))
    assert overlapping["problems"] == []


# The same image twice


def test_one_image_under_two_patients_is_a_leak(cases, tmp_path):
    # other bytes, other header: the voxels count
    duplicate = write(tmp_path / "copy.nii", voxels(image_file(cases[0])))
    cases[2] = replace(cases[2], images={"image": duplicate})
    text = message(cases)
    assert (
        f"{image_file(cases[0])} and {duplicate}: the same image under the patients a, b, so training would see" in text
    )
    assert "1 problem:" in text
    simulated = message(cases, block(source={"simulate": "icbm152"}))  # exempt from near duplicates alone
    assert "the same image under the patients a, b" in simulated


def test_one_image_twice_of_a_patient_is_a_warning(cases):
    shutil.copy(image_file(cases[0]), image_file(cases[1]))
    result = check(cases)
    (warning,) = result["warnings"]
    assert warning.endswith("the same image twice, of patient a")
    assert result["problems"] == []


@pytest.fixture
def film(cases, tmp_path) -> list[Case]:
    """Frames of one film under the patients c, d and e beside sound cases; a and b are strangers."""
    rng = np.random.default_rng(3)
    scene = gaussian_filter(rng.normal(size=(40, 50, 8)), 2) * 100
    labels = np.zeros(scene.shape, np.uint8)
    labels[3, 3, 3], labels[4:6, 4, 4] = 1, [2, 3]
    made = []
    for patient in "edc":
        noisy = (scene * rng.uniform(0.5, 2) + rng.normal(0, 0.3, scene.shape)).astype(np.float32)
        made.append(
            Case(
                f"{patient}_1", patient, {"image": write(tmp_path / f"{patient}.nii.gz", noisy)},
                {"label": write(tmp_path / f"{patient}_gt.nii.gz", labels)},
            )
        )  # fmt: skip
    return cases + made


def test_near_duplicates_are_listed(film):
    result = check(film)
    require_sound(result)
    pairs = result["near_duplicates"]["pairs"]
    assert {tuple(sorted(pair["patients"])) for pair in pairs} == {("c", "d"), ("c", "e"), ("d", "e")}
    assert all(0.9 < pair["similarity"] < 1 for pair in pairs)
    assert [pair["similarity"] for pair in pairs] == sorted((pair["similarity"] for pair in pairs), reverse=True)
    assert all(pair["cases"] == [f"{patient}_1" for patient in pair["patients"]] for pair in pairs)
    assert result["groups"] == {}


def test_near_duplicates_are_grouped_or_stop_the_run(film):
    assert check(film, block(**rules(action="group")))["groups"] == {"c": "c", "d": "c", "e": "c"}
    stopped = block(**rules(action="stop"))
    text = message(film, stopped)
    assert "3 problems" in text
    files = {case.patient: image_file(case) for case in film}
    assert f"{files['e']} and {files['d']}: images of the patients e and d are near duplicates (correlation 0.9" in text
    assert "remove one, or set check.near_duplicates.action to group or list" in text
    assert check(film[:4], stopped)["problems"] == []


def test_a_threshold_that_tells_nothing_apart_is_a_problem(film, monkeypatch):
    monkeypatch.setattr("lib.data.check.MOST_PAIRS", 0.2)
    assert "3 pairs of images of different patients are near duplicates" in (text := message(film))
    assert "threshold: 0.9; images of this kind are more alike than that, so raise it, or write null" in text


def test_simulated_images_and_no_threshold_are_exempt(film):
    for settings in (
        block(source={"simulate": "icbm152"}, **rules(action="stop")),
        block(**rules(action="stop", threshold=None)),
    ):
        result = check(film, settings)
        assert result["problems"] == []
        assert result["near_duplicates"]["exempt"] is True
        assert result["near_duplicates"]["pairs"] == []
    assert check(film)["near_duplicates"]["exempt"] is False


# on_error: drop


def test_cases_at_fault_are_left_out_with_reasons(cases):
    edit(image_file(cases[0]), (0, 0, 0), np.nan)
    edit(label_file(cases[0]), (0, 0, 0), 7, np.uint8)
    Path(label_file(cases[1])).unlink()
    result = check(cases, block(**rules("drop")))
    require_sound(result)
    assert [row["case"] for row in result["cases"]] == ["b_1"]
    assert [entry["case"] for entry in result["dropped"]] == ["a_1", "a_2"]
    reasons = result["dropped"][0]["reasons"]
    assert len(reasons) == 2
    assert "does not declare: 7 (1 voxels)" in reasons[0]
    assert f"{image_file(cases[0])}: 1 voxels are NaN or infinite" in reasons[1]
    assert "this file does not exist" in result["dropped"][1]["reasons"][0]
    assert result["data_hash"] == check(cases[2:])["data_hash"]


def test_of_one_image_under_two_patients_the_first_stays(cases, tmp_path):
    shutil.copy(image_file(cases[0]), image_file(cases[2]))
    result = check(cases, block(**rules("drop")))
    assert [row["case"] for row in result["cases"]] == ["a_1", "a_2"]
    assert "the same image under the patients a, b" in result["dropped"][0]["reasons"][0]


def test_what_dropping_cannot_mend(cases):
    structures = {**STRUCTURES, "aorta": 4}
    assert "structures.aorta: no label map has the value 4" in message(cases, block(structures, **rules("drop")))
    for case in cases:
        Path(image_file(case)).unlink()
    text = message(cases, block(**rules("drop")))
    assert f"no case is left; the first fault was {image_file(cases[0])}: this file does not exist" in text
    assert len(check(cases, block(**rules("drop")))["dropped"]) == 3


def test_dropped_cases_form_no_pairs(film):
    edit(image_file(film[3]), (0, 0, 0), np.nan)
    result = check(film, block(**rules("drop", "group")))
    assert result["groups"] == {"c": "c", "d": "c"}
    assert len(result["near_duplicates"]["pairs"]) == 1
