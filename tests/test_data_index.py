"""File name patterns: which files are cases, and the messages when they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.data.index import index_cases, read_index
from lib.errors import BadInput
from lib.files import write_table

CARDIAC = {"image": "{patient}_{phase}.nii.gz", "label": "{patient}_{phase}_gt.nii.gz"}
BRAIN = {"image": "IBSR_{patient}_t1.nii.gz", "label": "IBSR_{patient}_seg.nii.gz"}


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_cases_with_two_fields_and_files_that_are_neither(tmp_path):
    make(tmp_path, *[f"p2_{e}{k}.nii.gz" for e in ("ED", "ES") for k in ("", "_gt", "_scribble")])
    make(tmp_path, "p1_ED.nii.gz", "p1_ED_gt.nii.gz", "TERMS.txt", "._p9_ED_gt.nii.gz")
    table = index_cases(tmp_path, CARDIAC)
    assert list(table.columns) == ["case", "patient", "image", "label"]
    assert table["case"].tolist() == ["p1_ED", "p2_ED", "p2_ES"]
    assert table["patient"].tolist() == ["p1", "p2", "p2"]
    assert table["image"][1] == str(tmp_path / "p2_ED.nii.gz")
    assert table["label"][1] == str(tmp_path / "p2_ED_gt.nii.gz")


def test_images_without_label_are_left_out_and_numbers_stay_text(tmp_path):
    make(tmp_path, *[f"IBSR_{n}_t1.nii.gz" for n in ("01", "02", "NA")])
    make(tmp_path, *[f"IBSR_{n}_seg.nii.gz" for n in ("01", "NA")])
    table = index_cases(tmp_path, BRAIN)
    assert table["patient"].tolist() == ["01", "NA"]
    write_table(tmp_path / "index.csv", table)
    again = read_index(tmp_path / "index.csv")
    assert again.to_dict("list") == table.to_dict("list")


def test_subfolders_and_a_repeated_field(tmp_path):
    make(tmp_path, *[f"{p}/anat/{p}_{k}.nii" for p in ("s1", "s2") for k in ("t1", "seg")], "s3/anat/s4_seg.nii")
    files = {"image": "{patient}/anat/{patient}_t1.nii", "label": "{patient}/anat/{patient}_seg.nii"}
    assert index_cases(tmp_path, files)["case"].tolist() == ["s1", "s2"]
    split = {"image": "images/{patient}.nii", "label": "labels/{site}/{patient}.nii"}
    make(tmp_path / "b", "images/p1.nii", "labels/oslo/p1.nii")
    assert index_cases(tmp_path / "b", split)["case"].tolist() == ["oslo_p1"]


def test_a_label_pattern_that_also_matches_images(tmp_path):
    make(tmp_path, "p1.nii.gz", "p1_t1.nii.gz", "p2.nii.gz", "p2_t1.nii.gz")
    table = index_cases(tmp_path, {"image": "{patient}_t1.nii.gz", "label": "{patient}.nii.gz"})
    assert table["patient"].tolist() == ["p1", "p2"]


def test_characters_with_a_meaning_to_globs_and_regular_expressions(tmp_path):
    make(tmp_path, "a[1]+p1.t1.nii", "a[1]+p1.seg.nii", "a1+p1xseg.nii")
    files = {"image": "a[1]+{patient}.t1.nii", "label": "a[1]+{patient}.seg.nii"}
    assert index_cases(tmp_path, files)["patient"].tolist() == ["p1"]


def test_relative_folder_gives_relative_paths(tmp_path, monkeypatch):
    make(tmp_path / "raw", "p1_t1.nii", "p1_seg.nii")
    monkeypatch.chdir(tmp_path)
    table = index_cases("raw", {"image": "{patient}_t1.nii", "label": "{patient}_seg.nii"})
    assert table["image"][0] == "raw/p1_t1.nii"


def message(folder, files) -> str:
    with pytest.raises(BadInput) as caught:
        index_cases(folder, files)
    return str(caught.value)


def test_nothing_matches(tmp_path):
    make(tmp_path, *[f"scan{n}.nii.gz" for n in range(7)])
    text = message(tmp_path, CARDIAC)
    assert "{patient}_{phase}_gt.nii.gz" in text
    assert str(tmp_path) in text
    assert "scan0.nii.gz, scan1.nii.gz, scan2.nii.gz, scan3.nii.gz, scan4.nii.gz and 2 more" in text
    (tmp_path / "empty").mkdir()
    assert "no files at all" in message(tmp_path / "empty", CARDIAC)
    assert f"the folder {tmp_path / 'gone'} does not exist" in message(tmp_path / "gone", CARDIAC)


def test_missing_image(tmp_path):
    make(tmp_path, "p1_ED_gt.nii.gz", "p1_ED.nii.gz", "p2_ES_gt.nii.gz")
    text = message(tmp_path, CARDIAC)
    assert f"{tmp_path / 'p2_ES.nii.gz'} does not exist" in text
    assert "p2_ES_gt.nii.gz needs it" in text


def test_file_names_that_can_be_read_in_two_ways(tmp_path):
    make(tmp_path, "case_01_ED.nii.gz", "case_01_ED_gt.nii.gz")
    text = message(tmp_path, CARDIAC)
    assert "patient=case_01 phase=ED or patient=case phase=01_ED" in text
    assert "case_{patient}_{phase}" in text
    fixed = {kind: "case_" + pattern for kind, pattern in CARDIAC.items()}
    assert index_cases(tmp_path, fixed)["patient"].tolist() == ["01"]


def test_two_label_maps_of_one_case(tmp_path):
    make(tmp_path, "x_y/z_t1.nii", "x_y/z_seg.nii", "x/y_z_t1.nii", "x/y_z_seg.nii")
    text = message(tmp_path, {"image": "{site}/{patient}_t1.nii", "label": "{site}/{patient}_seg.nii"})
    assert "both give the case 'x_y_z'" in text
    assert str(tmp_path / "x" / "y_z_seg.nii") in text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"image": "{id}.nii", "label": "{id}_seg.nii"}, "files.image: '{id}.nii' has no {patient}"),
        ({"image": "{patient}.nii", "label": "{id}_seg.nii"}, "files.label: '{id}_seg.nii' has no {patient}"),
        ({"image": "{patient}_{echo}.nii", "label": "{patient}_seg.nii"}, "has {echo}, which files.label"),
        ({"image": "{patient.nii", "label": "{patient}_seg.nii"}, "'{patient.nii' has braces that are not a {field}"),
        ({"image": "{patient}.nii", "label": "{patient}.nii"}, "is both image and label; the two patterns must differ"),
    ],
)
def test_patterns_that_cannot_work(tmp_path, files, expected):
    assert expected in message(make(tmp_path, "p1.nii", "p1_seg.nii"), files)
