"""The check of a dataset: what it records, and every fault of the data by its message."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from lib.data.check import check_cases
from lib.errors import BadInput

STRUCTURES = {"rv": 1, "wall": [2, 3]}
AFFINE = np.diag([-1.5, -1.5, 8.0, 1.0])


def write(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def dataset(tmp_path):
    """Three sound cases of two patients, with a function per file to spoil them."""
    rng = np.random.default_rng(0)
    rows = []
    for case, patient in (("a_1", "a"), ("a_2", "a"), ("b_1", "b")):
        image, label = tmp_path / f"{case}.nii.gz", tmp_path / f"{case}_gt.nii.gz"
        write(image, rng.integers(0, 500, (8, 7, 5)).astype(np.int16))
        labels = np.zeros((8, 7, 5), np.uint8)
        labels[2, 2:5, 1], labels[3, 2:6, 1], labels[4, 2, 1:3] = 1, 2, 3
        write(label, labels)
        rows.append((case, patient, str(image), str(label)))
    return pd.DataFrame(rows, columns=["case", "patient", "image", "label"])


def labels_of(dataset, row):
    return np.asarray(nib.load(dataset["label"][row]).dataobj).copy()


def image_of(dataset, row):
    return np.asarray(nib.load(dataset["image"][row]).dataobj).astype(np.float32)


def message(dataset, structures=STRUCTURES) -> str:
    with pytest.raises(BadInput) as caught:
        check_cases(dataset, structures, "hearts")
    return str(caught.value)


def test_sound_cases_are_described(dataset):
    result = check_cases(dataset, STRUCTURES, "hearts")
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"dataset", "cases", "warnings", "data_hash"}
    assert result["dataset"] == "hearts"
    assert result["warnings"] == []
    first = result["cases"][0]
    assert set(first) == {
        "case", "patient", "image", "label", "shape", "spacing", "orientation", "labels", "intensity",
        "image_sha256", "label_sha256",
    }  # fmt: skip
    assert first["case"] == "a_1"
    assert first["shape"] == [8, 7, 5]
    assert first["spacing"] == [1.5, 1.5, 8.0]
    assert first["orientation"] == "LPS"
    assert first["labels"] == {"0": 271, "1": 3, "2": 4, "3": 2}
    image = image_of(dataset, 0)
    assert first["intensity"] == {"min": image.min(), "max": image.max(), "mean": pytest.approx(image.mean())}


def test_the_data_hash_follows_contents_and_not_files(dataset, tmp_path):
    before = check_cases(dataset, STRUCTURES, "hearts")["data_hash"]
    # moved and written again with another compression: the same data
    moved = dataset.copy()
    moved["image"] = [str(tmp_path / f"moved_{n}.nii") for n in range(3)]
    for old, new in zip(dataset["image"], moved["image"], strict=True):
        nib.save(nib.load(old), new)
    assert check_cases(moved, STRUCTURES, "hearts")["data_hash"] == before
    hashes = {before}
    labels = labels_of(dataset, 1)
    labels[0, 0, 0] = 1
    write(dataset["label"][1], labels)
    hashes.add(check_cases(dataset, STRUCTURES, "hearts")["data_hash"])
    for column in ("image", "label"):  # the same voxels elsewhere in space
        write(dataset[column][2], np.asarray(nib.load(dataset[column][2]).dataobj), np.diag([1.0, 1, 1, 1]))
    hashes.add(check_cases(dataset, STRUCTURES, "hearts")["data_hash"])
    assert len(hashes) == 3


def test_all_problems_are_reported_at_once(dataset):
    shutil.copy(__file__, dataset["image"][0])
    labels = labels_of(dataset, 1)
    labels[0, 0, :4] = [7, 7, 7, 9]
    write(dataset["label"][1], labels)
    image = image_of(dataset, 2)
    image[1, 1, :2] = [np.nan, np.inf]
    write(dataset["image"][2], image)
    text = message(dataset)
    assert text.startswith("dataset 'hearts' has 3 problems:\n  - ")
    assert f"{dataset['image'][0]}: not a readable NIfTI file" in text
    assert f"{dataset['label'][1]}: label values that `structures` does not declare: 7 (3 voxels), 9 (1 voxels)" in text
    assert f"{dataset['image'][2]}: 2 voxels are NaN or infinite" in text
    assert text.endswith("structures: {rv: 1, wall: [2, 3], label_7: 7, label_9: 9}")


def test_missing_and_truncated_files(dataset, tmp_path):
    (tmp_path / "a_1.nii.gz").unlink()
    (tmp_path / "a_2_gt.nii.gz").unlink()
    whole = (tmp_path / "b_1.nii.gz").read_bytes()
    (tmp_path / "b_1.nii.gz").write_bytes(whole[:-9])
    text = message(dataset)
    assert f"{tmp_path / 'a_1.nii.gz'}: this file does not exist" in text
    assert f"{tmp_path / 'a_2_gt.nii.gz'}: this file does not exist" in text
    assert f"{tmp_path / 'b_1.nii.gz'}: not a readable NIfTI file; it is truncated or" in text
    assert "3 problems" in text


def test_shape_and_affine(dataset):
    write(dataset["label"][0], labels_of(dataset, 0)[:-1])
    write(dataset["label"][1], labels_of(dataset, 1), np.diag([-1.5, -1.5, 8.5, 1.0]))
    shifted = AFFINE.copy()
    shifted[0, 3] = 1.0
    write(dataset["label"][2], labels_of(dataset, 2), shifted)
    text = message(dataset)
    assert (
        f"{dataset['label'][0]}: shape (7, 7, 5) differs from shape (8, 7, 5) of its image {dataset['image'][0]}"
        in text
    )
    assert f"{dataset['label'][1]}: its affine puts voxels up to 2 mm away from those of its image" in text
    assert f"{dataset['label'][2]}: its affine puts voxels up to 1 mm away from those of its image" in text


def test_rounding_of_an_affine_is_no_problem(dataset):
    near = AFFINE.copy()
    near[:3, 3] += 0.01
    write(dataset["label"][0], labels_of(dataset, 0), near)
    assert check_cases(dataset, STRUCTURES, "hearts")["warnings"] == []


def test_labels_that_are_not_whole_negative_or_empty(dataset):
    write(dataset["label"][0], labels_of(dataset, 0).astype(np.float32) * 0.7)
    write(dataset["label"][1], labels_of(dataset, 1) * 0)
    labels = labels_of(dataset, 2).astype(np.int16)
    labels[0, 0, 0] = -1
    write(dataset["label"][2], labels)
    text = message(dataset)
    assert f"{dataset['label'][0]}: 9 voxels of this label map are not whole numbers" in text
    assert f"{dataset['label'][1]}: the label map is empty" in text
    assert f"{dataset['label'][2]}: label values that `structures` does not declare: -1 (1 voxels)" in text
    assert "label_minus_1: -1}" in text


def test_constant_image(dataset):
    write(dataset["image"][1], np.full((8, 7, 5), 12, np.int16))
    assert f"{dataset['image'][1]}: the image is constant (every voxel is 12)" in message(dataset)


def test_bad_spacing(dataset, tmp_path):
    path = tmp_path / "a_1.nii"
    nib.save(nib.load(dataset["image"][0]), path)
    data = bytearray(path.read_bytes())
    data[80:84] = np.float32(0).tobytes()  # pixdim[1]
    path.write_bytes(data)
    dataset.loc[0, "image"] = str(path)
    assert f"{path}: voxel size 0 × 1.5 × 8 mm in the header" in message(dataset)


def test_a_structure_that_no_case_has(dataset):
    text = message(dataset, {**STRUCTURES, "aorta": 4})
    assert "structures.aorta: no label map has the value 4 (there are: 1, 2, 3); correct the value or remove" in text
    # with an unreadable label map nobody knows
    shutil.copy(__file__, dataset["label"][0])
    assert "structures.aorta" not in message(dataset, {**STRUCTURES, "aorta": 4})


def test_a_structure_that_one_case_lacks_is_a_warning(dataset):
    labels = labels_of(dataset, 1)
    labels[labels == 1] = 0
    write(dataset["label"][1], labels)
    assert check_cases(dataset, STRUCTURES, "hearts")["warnings"] == ["structure rv is absent from 1 case: a_2"]
    labels = labels_of(dataset, 2)
    labels[labels == 3] = 0  # one of the two values of `wall` is enough
    write(dataset["label"][2], labels)
    assert len(check_cases(dataset, STRUCTURES, "hearts")["warnings"]) == 1


def test_one_image_under_two_patients_is_a_leak(dataset, tmp_path):
    # other bytes, other header: the voxels count
    nib.save(nib.Nifti1Image(image_of(dataset, 0), AFFINE), tmp_path / "copy.nii")
    dataset.loc[2, "image"] = str(tmp_path / "copy.nii")
    text = message(dataset)
    assert f"{dataset['image'][0]} and {dataset['image'][2]}: the same image under the patients a, b" in text


def test_one_image_twice_of_a_patient_is_a_warning(dataset):
    shutil.copy(dataset["image"][0], dataset["image"][1])
    (warning,) = check_cases(dataset, STRUCTURES, "hearts")["warnings"]
    assert warning.endswith("the same image twice, of patient a")
