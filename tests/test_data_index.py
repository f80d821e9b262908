"""File name patterns, tables and ready-made layouts: which files are cases, and the messages when they cannot be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.cases import Case, read_index, write_index
from lib.data.index import index_cases
from lib.data.layouts import declared_structures, source_files
from lib.errors import BadInput

CARDIAC = {"image": "{patient}_{phase}.nii.gz", "label": "{patient}_{phase}_gt.nii.gz"}
BRAIN = {"image": "IBSR_{patient}_t1.nii.gz", "label": "IBSR_{patient}_seg.nii.gz"}


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(path: Path, text: str | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def index(folder: Path, files: dict | None = None, **block) -> list[Case]:
    return index_cases(folder, block | ({"files": files} if files else {}))


def message(folder: Path, files: dict | None = None, **block) -> str:
    with pytest.raises(BadInput) as caught:
        index(folder, files, **block)
    return str(caught.value)


def names(cases: list[Case]) -> list[str]:
    return [case.case for case in cases]


# One image and one label map per case


def test_cases_with_two_fields_and_files_that_are_neither(tmp_path):
    make(tmp_path, *[f"p2_{e}{k}.nii.gz" for e in ("ED", "ES") for k in ("", "_gt", "_scribble")])
    make(tmp_path, "p1_ED.nii.gz", "p1_ED_gt.nii.gz", "TERMS.txt", "._p9_ED_gt.nii.gz")
    cases = index(tmp_path, CARDIAC)
    assert names(cases) == ["p1_ED", "p2_ED", "p2_ES"]
    assert [case.patient for case in cases] == ["p1", "p2", "p2"]
    assert cases[1] == Case(
        "p2_ED",
        "p2",
        {"image": str(tmp_path / "p2_ED.nii.gz")},
        {"label": str(tmp_path / "p2_ED_gt.nii.gz")},
        None,
        {"phase": "ED"},
    )


def test_images_without_label_are_left_out_and_numbers_stay_text(tmp_path):
    make(tmp_path, *[f"IBSR_{n}_t1.nii.gz" for n in ("01", "02", "NA")])
    make(tmp_path, *[f"IBSR_{n}_seg.nii.gz" for n in ("01", "NA")])
    cases = index(tmp_path, BRAIN)
    assert [case.patient for case in cases] == ["01", "NA"]
    write_index(tmp_path / "index.csv", cases)
    assert read_index(tmp_path / "index.csv") == cases


def test_subfolders_and_a_repeated_field(tmp_path):
    make(tmp_path, *[f"{p}/anat/{p}_{k}.nii" for p in ("s1", "s2") for k in ("t1", "seg")], "s3/anat/s4_seg.nii")
    files = {"image": "{patient}/anat/{patient}_t1.nii", "label": "{patient}/anat/{patient}_seg.nii"}
    assert names(index(tmp_path, files)) == ["s1", "s2"]
    split = {"image": "images/{patient}.nii", "label": "./labels/{site}/{patient}.nii"}
    make(tmp_path / "b", "images/p1.nii", "labels/oslo/p1.nii")
    (case,) = index(tmp_path / "b", split)
    assert (case.case, case.fields) == ("oslo_p1", {"site": "oslo"})


def test_a_label_pattern_that_also_matches_images_and_masks(tmp_path):
    make(tmp_path, *[f"{p}{k}.nii.gz" for p in ("p1", "p2") for k in ("", "_t1", "_brain")])
    cases = index(
        tmp_path, {"image": "{patient}_t1.nii.gz", "label": "{patient}.nii.gz", "mask": "{patient}_brain.nii.gz"}
    )
    assert [case.patient for case in cases] == ["p1", "p2"]


def test_characters_with_a_meaning_to_globs_and_regular_expressions(tmp_path):
    make(tmp_path, "a[1]+p1.t1.nii", "a[1]+p1.seg.nii", "a1+p1xseg.nii")
    files = {"image": "a[1]+{patient}.t1.nii", "label": "a[1]+{patient}.seg.nii"}
    assert [case.patient for case in index(tmp_path, files)] == ["p1"]


def test_relative_folder_gives_relative_paths(tmp_path, monkeypatch):
    make(tmp_path / "raw", "p1_t1.nii", "p1_seg.nii")
    monkeypatch.chdir(tmp_path)
    (case,) = index(Path("raw"), {"image": "{patient}_t1.nii", "label": "{patient}_seg.nii"})
    assert case.images["image"] == "raw/p1_t1.nii"


def test_text_that_does_not_matter(tmp_path):
    make(tmp_path, "a/2019/x/p1_v3_t1.nii", "a/2019/x/p1_seg.nii", "p2_v1_t1.nii", "a/p2_seg.nii")
    files = {"image": "**/{patient}_*_t1.nii", "label": "**/{patient}_seg.nii"}
    cases = index(tmp_path, files)
    assert [case.images["image"] for case in cases] == [
        str(tmp_path / "a/2019/x/p1_v3_t1.nii"),
        str(tmp_path / "p2_v1_t1.nii"),
    ]
    make(tmp_path, "b/p2_v2_t1.nii")
    text = message(tmp_path, files)
    assert "matches 2 files for the label map" in text
    assert "b/p2_v2_t1.nii, p2_v1_t1.nii; make it match one" in text


def test_a_link_to_the_folder_above_is_not_followed_for_ever(tmp_path):
    make(tmp_path, "a/p1_t1.nii", "a/p1_seg.nii")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert names(index(tmp_path, {"image": "**/{patient}_t1.nii", "label": "**/{patient}_seg.nii"})) == ["p1"]


def test_the_field_case_names_the_case_alone(tmp_path):
    make(tmp_path, "images/train_07.png", "masks/train_07.png")
    files = {"image": "images/{part}_{case}.png", "label": "masks/{part}_{case}.png", "patient": "{patient}"}
    (case,) = index(tmp_path, files)
    assert (case.case, case.patient, case.fields) == ("07", "07", {"part": "train"})
    make(tmp_path, "images/valid_07.png", "masks/valid_07.png")
    text = message(tmp_path, files)
    assert "masks/train_07.png" in text
    assert "both give the case '07'" in text
    assert "{case}, where there is one, names the case alone" in text


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
    make(tmp_path, "p1_ED_gt.nii.gz", "p1_ED.nii.gz", "p2_ES_gt.nii.gz", "p3_ES_gt.nii.gz")
    text = message(tmp_path, CARDIAC)
    assert f"{tmp_path / 'p2_ES.nii.gz'} does not exist" in text
    assert "p2_ES_gt.nii.gz needs it (and 1 more)" in text


def test_a_link_to_nothing_is_a_missing_image(tmp_path):
    make(tmp_path, "p1_ED_gt.nii.gz")
    (tmp_path / "p1_ED.nii.gz").symlink_to(tmp_path / "annex" / "key")
    assert f"{tmp_path / 'p1_ED.nii.gz'} is a link to a file that is not there" in message(tmp_path, CARDIAC)


def test_file_names_that_can_be_read_in_two_ways(tmp_path):
    make(tmp_path, "case_01_ED.nii.gz", "case_01_ED_gt.nii.gz")
    text = message(tmp_path, CARDIAC)
    assert "patient=case_01 phase=ED or patient=case phase=01_ED" in text
    assert "case_{patient}_{phase}" in text
    fixed = {kind: "case_" + pattern for kind, pattern in CARDIAC.items()}
    assert [case.patient for case in index(tmp_path, fixed)] == ["01"]


def test_two_label_maps_of_one_case(tmp_path):
    make(tmp_path, "x_y/z_t1.nii", "x_y/z_seg.nii", "x/y_z_t1.nii", "x/y_z_seg.nii")
    text = message(tmp_path, {"image": "{site}/{patient}_t1.nii", "label": "{site}/{patient}_seg.nii"})
    assert "both give the case 'x_y_z'" in text
    assert str(tmp_path / "x" / "y_z_seg.nii") in text
    make(tmp_path / "b", "one/p1_seg.nii", "two/p1_seg.nii", "p1_t1.nii")
    text = message(tmp_path / "b", {"image": "{patient}_t1.nii", "label": "*/{patient}_seg.nii"})
    assert f"{tmp_path}/b/one/p1_seg.nii and {tmp_path}/b/two/p1_seg.nii both give the case 'p1'" in text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"image": "{id}.nii", "label": "{id}_seg.nii"},
            "p1_seg.nii, and cases are split by patient: write {patient} into",
        ),
        (
            {"image": "{patient}.nii", "label": "{id}_seg.nii"},
            "'{patient}.nii' has no field of files.label '{id}_seg.nii'",
        ),
        ({"image": "{patient}_{echo}.nii", "label": "{patient}_seg.nii"}, "has {echo}, which files.label"),
        ({"image": "p1.nii", "label": "{patient}_seg.nii"}, "'p1.nii' has no field of files.label '{patient}_seg.nii'"),
        (
            {"image": "{patient}.nii", "label": "p1_seg.nii"},
            "files.label: 'p1_seg.nii' has no field, such as {patient}",
        ),
        ({"image": "{patient.nii", "label": "{patient}_seg.nii"}, "'{patient.nii' has braces that are not a {field}"),
        ({"image": "{1st}.nii", "label": "{patient}_seg.nii"}, "'{1st}.nii' has braces that are not a {field}"),
        ({"image": "{patient}.nii", "label": "{patient}.nii"}, "is both image and label; the two patterns must differ"),
        ({"image": "**{patient}.nii", "label": "{patient}_seg.nii"}, "write ** as a whole folder"),
        ({"image": "../{patient}.nii", "label": "{patient}_seg.nii"}, "files.image: '../{patient}.nii' leads out"),
        ({"image": "/data/{patient}.nii", "label": "{patient}_seg.nii"}, "make source.path a folder above both"),
        ({"image": "{patient}.nii", "label": "{patient}_{mask}.nii"}, "{mask} has a meaning of its own"),
        ({"image": "{patient}.nii", "label": "{patient}_{channel}.nii"}, "{channel} has a meaning of its own"),
        ({"image": "{patient}.nii"}, "files: give image and label, or a layout: nnunet, msd, bids, folders, csv"),
    ],
)
def test_patterns_that_cannot_work(tmp_path, files, expected):
    assert expected in message(make(tmp_path, "p1.nii", "p1_seg.nii"), files)


# Channels, structures, masks, DICOM


def tumours(folder: Path) -> Path:
    return make(folder, *[f"{p}_{k}.nii.gz" for p in ("p1", "p2") for k in ("t1c", "flair", "seg", "brainmask")])


def test_channels_by_name_and_a_mask(tmp_path):
    tumours(tmp_path)
    image = {"flair": "{patient}_flair.nii.gz", "t1c": "{patient}_t1c.nii.gz"}
    files = {"image": image, "label": "{patient}_seg.nii.gz", "mask": "{case}_brainmask.nii.gz"}
    cases = index(tmp_path, files)
    assert list(cases[0].images) == ["flair", "t1c"]
    assert cases[1].images["t1c"] == str(tmp_path / "p2_t1c.nii.gz")
    assert cases[1].mask == str(tmp_path / "p2_brainmask.nii.gz")
    (tmp_path / "p2_t1c.nii.gz").unlink()
    text = message(tmp_path, files)
    assert f"files.image.t1c: {tmp_path / 'p2_t1c.nii.gz'} does not exist" in text
    make(tmp_path, "p2_t1c.nii.gz")
    (tmp_path / "p1_brainmask.nii.gz").unlink()
    text = message(tmp_path, files)
    assert f"files.mask: {tmp_path / 'p1_brainmask.nii.gz'} does not exist, but the case 'p1' needs one mask" in text
    assert "has {site}, which the cases lack; they have: case, patient" in message(
        tmp_path, files | {"mask": "{site}.nii"}
    )


def test_channels_as_a_field(tmp_path):
    tumours(tmp_path)
    # p2_x is another patient, whose images could also be channels "x_flair" and "x_t1c" of p2
    make(tmp_path, *[f"p2_x_{k}.nii.gz" for k in ("t1c", "flair", "seg", "brainmask")])
    files = {
        "image": "{patient}_{channel}.nii.gz",
        "label": "{patient}_seg.nii.gz",
        "mask": "{patient}_brainmask.nii.gz",
    }
    cases = index(tmp_path, files)
    assert names(cases) == ["p1", "p2", "p2_x"]
    assert all(list(case.images) == ["flair", "t1c"] for case in cases)
    assert cases[1].images["flair"] == str(tmp_path / "p2_flair.nii.gz")
    assert cases[2].images["flair"] == str(tmp_path / "p2_x_flair.nii.gz")
    assert cases[2].fields == {}

    (tmp_path / "p1_t1c.nii.gz").unlink()
    text = message(tmp_path, files)
    assert "2 of 3 have 't1c' (such as p2_t1c.nii.gz); the images of these labels lack it: p1_seg.nii.gz" in text
    text = message(tmp_path, {key: files[key] for key in ("image", "label")})
    assert "all cases need the same channels" in text
    for name in tmp_path.iterdir():
        if "seg" not in name.name or "_x_" in name.name:
            name.unlink()
    text = message(tmp_path, files)
    assert "files.image: no image has a label map of the same fields; there are: p1_seg.nii.gz" in text


def test_one_binary_mask_per_structure(tmp_path):
    make(
        tmp_path, *[f"images/{n}.png" for n in "ab"], *[f"masks/{n}_{s}.png" for n in "ab" for s in ("nerve", "vessel")]
    )
    label = {"nerve": "masks/{case}_nerve.png", "vessel": "masks/{case}_vessel.png"}
    files = {"image": "images/{case}.png", "label": label, "patient": "{patient}"}
    structures = {"nerve": 1, "vessel": 2}
    cases = index(tmp_path, files, structures=structures)
    assert names(cases) == ["a", "b"]
    assert cases[0].labels == {s: str(tmp_path / f"masks/a_{s}.png") for s in structures}

    (tmp_path / "masks/b_vessel.png").unlink()
    text = message(tmp_path, files, structures=structures)
    assert "the case 'b' has no file of the structure 'vessel' (1 missing in all; it has masks/b_nerve.png)" in text
    assert "missing_labels: empty" in text
    cases = index(tmp_path, files | {"missing_labels": "empty"}, structures=structures)
    assert list(cases[1].labels) == ["nerve"]
    write_index(tmp_path / "index.csv", cases)
    assert read_index(tmp_path / "index.csv") == cases

    text = message(tmp_path, files, structures={"nerve": 1, "artery": 2})
    assert "the names in structures (nerve, artery); 'vessel' is not one of them" in text
    text = message(tmp_path, files, structures=structures | {"bone": 3})
    assert "there is none of 'bone'" in text
    files = files | {"label": label | {"vessel": "masks/{case}_{rater}_vessel.png"}}
    text = message(tmp_path, files, structures=structures)
    assert "files.label.vessel: " in text
    assert "must have the same fields" in text


def test_folders_of_dicom_files(tmp_path):
    make(tmp_path, *[f"p{n}/ct/{k}.dcm" for n in (1, 2) for k in range(2)], "p1/seg.nii.gz", "p2/seg.nii.gz")
    expected = [str(tmp_path / "p1/ct"), str(tmp_path / "p2/ct")]
    for image in ("{patient}/ct/", "{patient}/ct", "{patient}/*t"):
        cases = index(tmp_path, {"image": image, "label": "{patient}/seg.nii.gz"})
        assert [case.images["image"] for case in cases] == expected
    # DICOM files often have no suffix: then only the slash says that the folder is one image
    make(tmp_path, "p3/ct/IM0001", "p3/seg.nii.gz", "p4/seg.nii.gz")
    (tmp_path / "p4/ct").mkdir()
    text = message(tmp_path, {"image": "{patient}/ct", "label": "{patient}/seg.nii.gz"})
    assert (
        f"files.image: {tmp_path}/p3/ct is a folder without .dcm files (if all are DICOM, end the pattern in /)" in text
    )
    text = message(tmp_path, {"image": "{patient}/ct/", "label": "{patient}/seg.nii.gz"})
    assert (
        f"files.image: {tmp_path}/p4/ct is an empty folder, but the label map {tmp_path}/p4/seg.nii.gz needs it" in text
    )


def test_patient_from_the_name_of_the_case(tmp_path):
    make(tmp_path, "images/s1_p1_2.png", "masks/s1_p1_2.png")
    files = {"image": "images/{case}.png", "label": "masks/{case}.png"}
    (case,) = index(tmp_path, files | {"patient": "{site}_{patient}_{visit}"})
    assert (case.case, case.patient, case.fields) == ("s1_p1_2", "p1", {"site": "s1", "visit": "2"})
    (case,) = index(tmp_path, files | {"patient": "{patient}_p*"})
    assert (case.patient, case.fields) == ("s1", {})
    text = message(tmp_path, files | {"patient": "{patient}_{visit}"})
    assert "files.patient: s1_p1_2 matches '{patient}_{visit}' in two ways" in text
    assert "does not match the case 's1_p1_2'" in message(tmp_path, files | {"patient": "x{patient}"})
    assert "'{site}' has no {patient}" in message(tmp_path, files | {"patient": "{site}"})
    twice = {"image": "images/{patient}.png", "label": "masks/{patient}.png", "patient": "{patient}"}
    assert "has a patient already, 's1_p1_2'; remove one of the two" in message(tmp_path, twice)


# Tables


TABLE = {"file": "subjects.csv", "match": {"subject": "{patient}", "phase": "{phase}"}, "fields": {"group": "group"}}


def cardiac(folder: Path, table: str, name: str = "subjects.csv") -> Path:
    make(folder, *[f"{p}_{e}{k}.nii.gz" for p in ("p1", "p2") for e in ("ED", "ES") for k in ("", "_gt")])
    write(folder / name, table)
    return folder


ROWS = "subject,phase,group\np1,ED,DCM\np1,ES,DCM\np2,ED,NOR\np2,ES,\n"


@pytest.mark.parametrize("text", [ROWS, "\ufeff" + ROWS, ROWS.replace(",", ";"), ROWS.replace(",", " , ") + "\n\n"])
def test_fields_from_a_table(tmp_path, text):
    cases = index(cardiac(tmp_path, text), CARDIAC | {"table": TABLE})
    assert [case.fields for case in cases] == [
        {"phase": "ED", "group": "DCM"},
        {"phase": "ES", "group": "DCM"},
        {"phase": "ED", "group": "NOR"},
        {"phase": "ES", "group": ""},
    ]
    write_index(tmp_path / "index.csv", cases)
    assert read_index(tmp_path / "index.csv") == cases


def test_a_table_with_tabs_and_rows_that_agree(tmp_path):
    cardiac(tmp_path, ROWS.replace(",", "\t").replace("NOR", ""), "subjects.tsv")
    by_patient = {"file": "subjects.tsv", "match": {"subject": "{patient}"}, "fields": {"disease": "group"}}
    cases = index(tmp_path, CARDIAC | {"table": by_patient})
    assert [case.fields["disease"] for case in cases] == ["DCM", "DCM", "", ""]


def test_the_patient_from_a_table(tmp_path):
    make(tmp_path, *[f"{k}/{n}.png" for k in ("images", "masks") for n in ("01", "02", "03")])
    write(tmp_path / "subjects.csv", "image,similar\n01.png,7\n02.png,7\n03.png,\n")
    table = {"file": "subjects.csv", "match": {"image": "{case}.png"}, "fields": {"patient": "similar"}}
    assert "subjects.csv, line 4: similar is empty" in message(tmp_path, {"table": table}, layout="folders")
    write(tmp_path / "subjects.csv", "image,similar\n01.png,7\n02.png,7\n03.png,8\n")
    for block in (
        {"layout": "folders", "files": {"table": table}},
        {"files": {"image": "images/{case}.png", "label": "masks/{case}.png", "table": table}},
    ):
        cases = index_cases(tmp_path, block)
        assert [(case.case, case.patient) for case in cases] == [("01", "7"), ("02", "7"), ("03", "8")]
    twice = {"image": "images/{patient}.png", "label": "masks/{patient}.png"}
    table = table | {"match": {"image": "{patient}.png"}}
    assert "has the field 'patient' already, from its name; rename one" in message(tmp_path, twice | {"table": table})


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        (ROWS.replace("p2,ES", "p02,ES"), {}, "the case 'p2_ES' needs the row of"),
        (
            ROWS.replace("p2,ES", "p02,ES"),
            {},
            "with subject 'p2' and phase 'ES', which is not there; add it, or correct",
        ),
        (ROWS.replace("p2,ES", "p02,ES"), {}, "Close to it: p02 ES"),
        (ROWS.replace("p2", "P2"), {}, "(nor for 1 more cases)"),
        (ROWS + "p2,ED,HCM\n", {}, "lines 4 and 6 of"),
        (ROWS + "p2,ED,HCM\n", {}, "differ in group ('NOR', 'HCM'); make match tell them apart"),
        (ROWS, {"match": {"subject": "{patient}"}}, "both have subject 'p2', which the case 'p2_ED' needs"),
        (ROWS, {"match": {"patient": "{patient}"}}, "files.table.match: "),
        (ROWS, {"match": {"subjet": "{patient}"}}, "has no column 'subjet'; close to it: subject"),
        (ROWS, {"match": {"subject": "{patinet}"}}, "there is no field {patinet}; there are: phase, case, patient"),
        (ROWS, {"fields": {"group": "Group"}}, "files.table.fields: "),
        (ROWS, {"fields": {"phase": "phase"}}, "has the field 'phase' already, from its name; rename one"),
        (ROWS, {"fields": {"mask": "group"}}, "a field cannot be called 'mask'"),
        (ROWS, {"file": "patients.csv"}, "patients.csv does not exist; correct file. There are: p1_ED.nii.gz"),
        (ROWS + "p3,ED\n", {}, "line 6 has 2 columns, the header 3"),
        (ROWS.replace("group", "phase"), {}, "line 1: the column name 'phase' is empty or there twice"),
        ("subject,phase,group\n", {}, "has no rows"),
    ],
)
def test_tables_that_cannot_work(tmp_path, text, change, expected):
    assert expected in message(cardiac(tmp_path, text), CARDIAC | {"table": TABLE | change})


def test_a_table_that_is_not_text(tmp_path):
    cardiac(tmp_path, "")
    (tmp_path / "subjects.csv").write_bytes(ROWS.replace("DCM", "Ödem").encode("latin-1"))
    assert "subjects.csv cannot be read as a table" in message(tmp_path, CARDIAC | {"table": TABLE})


# Layouts


def nnunet(folder: Path, channels: int = 2, ending: str = ".nii.gz", **about) -> Path:
    cases = ("BR_001", "BR_002")
    make(folder, *[f"imagesTr/{c}_{k:04d}{ending}" for c in cases for k in range(channels)])
    make(
        folder,
        *[f"labelsTr/{c}{ending}" for c in cases],
        "imagesTr/._BR_001_0000.nii.gz",
        "imagesTs/BR_003_0000.nii.gz",
    )
    default = {
        "channel_names": {str(k): f"echo{k}" for k in range(channels)},
        "labels": {"background": 0, "whole tumor": [1, 2], "core": 2, "ignore": 3},
        "numTraining": 2,
        "file_ending": ending,
    }
    write(folder / "dataset.json", default | about)
    return folder


def test_nnunet(tmp_path):
    cases = index(nnunet(tmp_path), layout="nnunet")
    assert names(cases) == ["BR_001", "BR_002"]
    assert cases[1] == Case(
        "BR_002",
        "BR_002",
        {f"echo{k}": str(tmp_path / f"imagesTr/BR_002_000{k}.nii.gz") for k in range(2)},
        {"label": str(tmp_path / "labelsTr/BR_002.nii.gz")},
    )
    assert declared_structures(tmp_path, "nnunet") == {"whole_tumor": [1, 2], "core": 2}
    (case, _) = index(tmp_path, {"patient": "BR_{patient}"}, layout="nnunet")
    assert (case.case, case.patient) == ("BR_001", "001")


def test_nnunet_in_the_only_folder_of_an_archive_and_of_version_1(tmp_path):
    nnunet(tmp_path / "raw/Task009_Spleen", 1)
    write(
        tmp_path / "raw/Task009_Spleen/dataset.json",
        {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "Spleen", "2": "2nd part"}},
    )
    (case, _) = index(tmp_path, layout={"nnunet": {}})
    assert case.images == {"image": str(tmp_path / "raw/Task009_Spleen/imagesTr/BR_001_0000.nii.gz")}
    assert declared_structures(tmp_path, "nnunet") == {"spleen": 1, "label_2nd_part": 2}
    nnunet(tmp_path / "raw/Task010")
    text = message(tmp_path, layout="nnunet")
    assert "holds several datasets: raw/Task009_Spleen/, raw/Task010/; set source.path to one" in text


def test_nnunet_pictures_repeated_channels_and_files_by_name(tmp_path):
    rgb = nnunet(tmp_path / "rgb", 1, ".png", channel_names={"0": "R", "1": "G", "2": "B"})
    assert list(index(rgb, layout="nnunet")[0].images) == ["image"]
    ct = nnunet(tmp_path / "ct", 2, channel_names={"1": "CT", "0": "CT"})
    assert list(index(ct, layout="nnunet")[0].images) == ["CT_0", "CT_1"]
    named = {"A1": {"images": ["imagesTr/BR_001_0000.nii.gz"], "label": "./labelsTr/BR_001.nii.gz"}}
    by_name = nnunet(tmp_path / "named", 1, dataset=named)
    assert index(by_name, layout="nnunet")[0].images == {"image": str(by_name / "imagesTr/BR_001_0000.nii.gz")}
    three = {"A1": {"images": ["imagesTr/BR_001_0000.nii.gz"] * 3, "label": "labelsTr/BR_001.nii.gz"}}
    text = message(nnunet(by_name, 2, dataset=three), layout="nnunet")
    assert "has 3 images, but there are 2 channels: echo0, echo1" in text
    nnunet(by_name, 1, dataset={"A1": {"label": "x"}})
    assert 'dataset: A1 is {"label": "x"}; it needs images and label' in message(by_name, layout="nnunet")


def test_nnunet_that_cannot_work(tmp_path):
    make(tmp_path / "none", "a/b.nii")
    assert f"nnunet: {tmp_path / 'none'} has no dataset.json; there are: a/b.nii" in message(
        tmp_path / "none", layout="nnunet"
    )
    a = nnunet(tmp_path / "a")
    (a / "imagesTr/BR_002_0001.nii.gz").unlink()
    text = message(a, layout="nnunet")
    assert f"{a}/imagesTr/BR_002_0001.nii.gz does not exist, but the label map labelsTr/BR_002.nii.gz needs it" in text
    assert "2 channels in dataset.json: echo0, echo1" in text
    assert "numTraining: 3, but labelsTr holds 2 label maps" in message(
        nnunet(tmp_path / "b", numTraining=3), layout="nnunet"
    )
    c = nnunet(tmp_path / "c", channel_names=None)
    assert "dataset.json needs the channels" in message(c, layout="nnunet")
    d = nnunet(tmp_path / "d")
    write(d / "dataset.json", "{")
    assert f"{d}/dataset.json is not valid JSON" in message(d, layout="nnunet")
    e = nnunet(tmp_path / "e", file_ending=".mha")
    assert "labelsTr must hold a file that ends in .mha" in message(e, layout="nnunet")
    f = make(tmp_path / "f", "imagesTr/x.nii.gz", "labelsTr/x.nii.gz")
    write(f / "dataset.json", {"modality": {"0": "CT"}, "training": []})
    assert "is there without a channel number: the layout may be msd" in message(f, layout="nnunet")


def msd(folder: Path, **about) -> Path:
    make(folder, *[f"{k}/la_{n}.nii.gz" for k in ("imagesTr", "labelsTr") for n in ("003", "004")])
    training = [{"image": f"./imagesTr/la_{n}.nii.gz", "label": f"./labelsTr/la_{n}.nii.gz"} for n in ("004", "003")]
    default = {"modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"0": "background", "1": "left atrium"}}
    write(folder / "dataset.json", default | {"training": training} | about)
    return folder


def test_msd(tmp_path):
    msd(tmp_path / "Task02_Heart")
    make(tmp_path / "Task02_Heart", "imagesTr/._la_003.nii.gz", "imagesTs/la_001.nii.gz")
    cases = index(tmp_path, {"patient": "la_{patient}"}, layout="msd")
    assert [(case.case, case.patient) for case in cases] == [("la_003", "003"), ("la_004", "004")]
    assert cases[0].images == {"image": str(tmp_path / "Task02_Heart/imagesTr/la_003.nii.gz")}
    assert declared_structures(tmp_path, "msd") == {"left_atrium": 1}


def test_a_list_of_images_per_case_as_msd(tmp_path):
    make(tmp_path, *[f"p{n}/{k}.nii" for n in (1, 2) for k in ("a", "b")], *[f"l/p{n}.nii" for n in (1, 2)])
    training = [{"fold": n, "image": [f"p{n}/a.nii", f"p{n}/b.nii"], "label": f"l/p{n}.nii"} for n in (1, 2)]
    write(tmp_path / "dataset.json", {"modality": {"0": "FLAIR", "1": "T1w"}, "training": training})
    cases = index(tmp_path, layout="msd")
    assert [case.fields for case in cases] == [{"fold": "1"}, {"fold": "2"}]
    assert cases[0].images == {"FLAIR": str(tmp_path / "p1/a.nii"), "T1w": str(tmp_path / "p1/b.nii")}


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"training": [{"image": "imagesTr/la_003.nii.gz"}]}, "training[0] is"),
        ({"training": ["imagesTr/la_003.nii.gz"]}, "it needs image and label, which are paths"),
        (
            {"training": [{"image": "imagesTr/x.nii.gz", "label": "labelsTr/la_003.nii.gz"}]},
            "which does not exist; unpack it",
        ),
        (
            {"training": [{"image": "imagesTr/x.nii.gz", "label": "labelsTr/la_003.nii.gz"}]},
            "There are: imagesTr/la_003",
        ),
        (
            {"training": [], "channel_names": {}},
            "has no list 'training' of images and labels; the layout may be nnunet",
        ),
        (
            {"training": [{"image": ["imagesTr/la_003.nii.gz"] * 3, "label": "labelsTr/la_003.nii.gz"}]},
            "has 3 images, but",
        ),
    ],
)
def test_msd_that_cannot_work(tmp_path, about, expected):
    assert expected in message(msd(tmp_path, **about), layout="msd")


def bids(folder: Path) -> Path:
    for sub, ses in (("01", "a"), ("01", "b"), ("02", "a")):
        name = f"sub-{sub}/ses-{ses}/anat/sub-{sub}_ses-{ses}"
        make(folder, f"{name}_T1w.nii.gz", f"{name}_FLAIR.nii.gz", f"{name}_T1w.json")
        make(folder, f"derivatives/manual/{name}_space-orig_desc-x_dseg.nii.gz")
    make(folder, "sub-03/ses-a/anat/sub-03_ses-a_T1w.nii.gz", "participants.tsv", "derivatives/manual/dataset.json")
    return folder


def test_bids(tmp_path):
    bids(tmp_path)
    write(tmp_path / "participants.tsv", "participant_id\tsite\nsub-01\toslo\nsub-02\tlima\n")
    table = {"file": "participants.tsv", "match": {"participant_id": "{patient}"}, "fields": {"site": "site"}}
    cases = index(tmp_path, {"table": table}, layout={"bids": {"image": "T1w"}})
    assert names(cases) == ["sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a"]
    assert cases[1] == Case(
        "sub-01_ses-b",
        "sub-01",
        {"image": str(tmp_path / "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz")},
        {"label": str(tmp_path / "derivatives/manual/sub-01/ses-b/anat/sub-01_ses-b_space-orig_desc-x_dseg.nii.gz")},
        None,
        {"ses": "b", "site": "oslo"},
    )
    cases = index(tmp_path, layout={"bids": {"image": ["T1w", "FLAIR"]}})
    assert list(cases[0].images) == ["T1w", "FLAIR"]
    write(tmp_path / "derivatives/manual/desc-x_dseg.tsv", "index\tname\n0\tBackground\n1\tGM\n12\tLeft-Caudate\n")
    assert declared_structures(tmp_path, {"bids": {"image": "T1w"}}) == {"gm": 1, "left_caudate": 12}


def test_bids_with_runs_masks_by_structure_and_no_sessions(tmp_path):
    raw, out = "sub-01/anat/sub-01", "derivatives/sub-01/anat/sub-01"
    make(
        tmp_path,
        f"{raw}_run-1_T2w.nii",
        f"{raw}_run-2_T2w.nii",
        f"{out}_run-2_label-a_mask.nii",
        f"{out}_run-2_label-b_mask.nii",
    )
    layout = {"bids": {"label": {"a": "label-a_mask", "b": "label-b_mask"}}}
    (case,) = index(tmp_path, layout=layout, structures={"a": 1, "b": 2})
    assert (case.case, case.fields) == ("sub-01_run-2", {"run": "2"})
    assert case.images == {"image": str(tmp_path / f"{raw}_run-2_T2w.nii")}
    assert case.labels["b"] == str(tmp_path / f"{out}_run-2_label-b_mask.nii")
    assert "both labels of sub-01_run-2; say which, as in layout: {bids: {label: label-b_mask}}" in message(
        tmp_path, layout="bids"
    )
    # images in the derivatives, as in archives without the raw data
    shutil.rmtree(tmp_path / "sub-01")
    make(tmp_path, f"{out}_run-2_space-MNI_T2w.nii")
    (case,) = index(tmp_path, layout=layout, structures={"a": 1, "b": 2})
    assert case.images == {"image": str(tmp_path / f"{out}_run-2_space-MNI_T2w.nii")}


def test_bids_does_not_mix_kinds_of_images(tmp_path):
    for sub, kind in (("01", "T1w"), ("02", "T2w")):
        make(tmp_path, f"sub-{sub}/sub-{sub}_{kind}.nii", f"derivatives/x/sub-{sub}/sub-{sub}_dseg.nii")
    assert "the labels have images of 2 kinds (T1w, T2w)" in message(tmp_path, layout="bids")
    make(tmp_path, "sub-01/sub-01_T2w.nii")
    (first, _) = index(tmp_path, layout={"bids": {"image": "T2w"}})
    assert first.images == {"image": str(tmp_path / "sub-01/sub-01_T2w.nii")}


def test_bids_that_cannot_work(tmp_path):
    make(tmp_path / "flat", "sub-01/anat/sub-01_T1w.nii.gz")
    assert "has no derivatives/; there are: sub-01/anat" in message(tmp_path / "flat", layout="bids")
    a = bids(tmp_path / "a")
    text = message(a, layout="bids")
    assert "the labels have images of 2 kinds (FLAIR, T1w); say which, as in layout: {bids: {image: FLAIR}}" in text
    text = message(a, layout={"bids": {"image": "T2w"}})
    assert (
        "sub-01_ses-a_space-orig_desc-x_dseg.nii.gz needs one image 'T2w' of the same entities, and there are 0" in text
    )
    assert "There are: sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz" in text
    make(a, "sub-02/ses-a/anat/sub-02_ses-a_acq-hi_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_acq-lo_T1w.nii.gz")
    assert len(index(a, layout={"bids": {"image": "T1w"}})) == 3  # the one without acq, as the label
    (a / "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz").unlink()
    text = message(a, layout={"bids": {"image": "T1w"}})
    assert "there are 2; correct image, with entities where needed, as in acq-mprage_T1w" in text
    text = message(a, layout={"bids": {"image": "T1w", "label": "msk"}})
    assert "no label _msk in" in text
    text = message(a, layout={"bids": {"image": "T1w", "label": "desc-y_dseg", "pipeline": "manual"}})
    assert "no file of derivatives/manual fits label: desc-y_dseg" in text
    make(a, "derivatives/auto/sub-01/sub-01_ses-a_dseg.nii.gz")
    text = message(a, layout={"bids": {"image": "T1w"}})
    assert "several pipelines have labels: auto, manual; choose one, as in layout: {bids: {pipeline: auto}}" in text
    text = message(a, layout={"bids": {"pipeline": "hand"}})
    assert "derivatives/hand has no images or labels in folders sub-…; there are: auto, manual" in text


@pytest.mark.parametrize("labels", ["masks", "labels", "Masks"])
def test_folders(tmp_path, labels):
    images = ["a.jpg", "b.PNG", "c.tif", "d_seg.bmp", "ward/e.png", "f.nii.gz", "unlabelled.png", "notes.txt"]
    masks = ["a.png", "b_mask.png", "c_GT.png", "d_seg.png", "ward/e_label.png", "f_seg.nii.gz", "Thumbs.db"]
    make(tmp_path / "set", *[f"images/{n}" for n in images], *[f"{labels}/{n}" for n in masks], "images/g/1.dcm")
    make(tmp_path / "set", f"{labels}/g.nii.gz")
    cases = index(tmp_path, layout="folders")
    assert names(cases) == ["a", "b", "c", "d_seg", "f", "g", "ward_e"]
    pairs = {c.case: (Path(c.images["image"]).name, Path(c.labels["label"]).name) for c in cases}
    assert pairs["b"] == ("b.PNG", "b_mask.png")
    assert pairs["d_seg"] == ("d_seg.bmp", "d_seg.png")
    assert pairs["g"] == ("g", "g.nii.gz")
    assert all(case.patient == case.case for case in cases)


def test_folders_that_cannot_work(tmp_path):
    a = make(tmp_path / "a", "images/x1.png", "masks/x2.png")
    text = message(a, layout="folders")
    assert f"no image in {a}/images has the name of {a}/masks/x2.png; add x2 with one of .nii, .nii.gz" in text
    assert "Close to it: x1" in text
    b = make(tmp_path / "b", "images/x.png", "images/x.jpg", "masks/x.png")
    assert "images/x.jpg and images/x.png have one name" in message(b, layout="folders")
    c = make(tmp_path / "c", "images/x.png", "masks/x.png", "masks/x_mask.png")
    assert "are both labels of images/x.png; keep one" in message(c, layout="folders")
    d = make(tmp_path / "d", "images/x.png", "masks/x.png", "labels/x.png")
    assert "has labels/ and masks/; say which holds the labels" in message(d, layout="folders")
    e = make(tmp_path / "e", "imgs/x.png", "masks/x.png")
    assert "has no images/ and masks/ (or labels/); there are: imgs/x.png, masks/x.png" in message(e, layout="folders")
    f = make(tmp_path / "f", "images/x.png", "masks/x.svg")
    assert "masks must hold a label map (.nii, .nii.gz" in message(f, layout="folders")
    g = make(tmp_path / "g", "images/a_b.png", "images/a/b.png", "masks/a_b.png", "masks/a/b.png")
    assert "both give the case 'a_b'" in message(g, layout="folders")


def test_csv(tmp_path):
    make(tmp_path, "in/1.png", "in/2.png", "in/1b.png", "in/2b.png", "out/1.png", "out/2.png", "elsewhere.png")
    write(
        tmp_path / "lists/all.csv",
        "case,patient,image:a,image:b,label:x,label:y,mask,site\n"
        f"c2,7,../in/2.png,../in/2b.png,../out/2.png,,,NA\nc1,07,../in/1.png,../in/1b.png,../out/1.png,{tmp_path}/elsewhere.png,../in/1.png,\n",
    )
    block = {"layout": {"csv": {"file": "lists/all.csv"}}, "structures": {"x": 1, "y": 2}}
    text = message(tmp_path, **block)
    assert "all.csv, line 2: label:y is empty; write the path; or set files: missing_labels: empty" in text
    cases = index(tmp_path, {"missing_labels": "empty"}, **block)
    assert [(c.case, c.patient, c.fields) for c in cases] == [("c1", "07", {"site": ""}), ("c2", "7", {"site": "NA"})]
    assert Path(cases[0].images["b"]).resolve() == tmp_path / "in/1b.png"
    assert cases[0].labels["y"] == f"{tmp_path}/elsewhere.png"
    assert Path(cases[0].mask).resolve() == tmp_path / "in/1.png"
    assert (list(cases[1].labels), cases[1].mask) == (["x"], None)
    write_index(tmp_path / "index.csv", cases)
    assert read_index(tmp_path / "index.csv") == cases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "case,patient,image\nc,p,i.png\n",
            "needs either the column label or columns label:NAME; it has: case, patient, image",
        ),
        (
            "case,patient,image,image:b,label\nc,p,i.png,i.png,l.png\n",
            "needs either the column image or columns image:NAME",
        ),
        ("patient,image,label\np,i.png,l.png\n", "has no column case; add one. It has: patient, image, label"),
        ("case,image,label\nc,i.png,l.png\n", "no patient is known for"),
        ("case,patient,image,label\nc,,i.png,l.png\n", "cases.csv, line 2, and cases are split by patient"),
        ("case,patient,image,label\nc,p,,l.png\n", "line 2: image is empty; write the path"),
        (
            "case,patient,image,label\nc,p,x.png,l.png\n",
            "x.png does not exist; paths are relative to the table. Close to it:",
        ),
        ("case,patient,image,label\nc,p,x/i.png,l.png\n", "there is no folder"),
        ("case,patient,image,label\nc/1,p,i.png,l.png\n", "line 2: the case 'c/1' cannot name a file"),
        ("case,patient,image,label\nc,p,i.png,l.png\nc,p,i.png,l.png\n", "cases.csv, line 3 both give the case 'c'"),
        ("case,patient,image,label\nc,p,i.png,i.png\n", "i.png is both image and label"),
        ("case,patient,image,label,x:y\nc,p,i.png,l.png,1\n", "a field cannot be called 'x:y'"),
        ("case,patient,image,label\nc,p,i.png,l.png,5\n", "line 2 has 5 columns, the header 4"),
    ],
)
def test_csv_that_cannot_work(tmp_path, text, expected):
    make(tmp_path, "i.png", "l.png")
    assert "cases.csv does not exist; write it with the columns case" in message(tmp_path, layout="csv")
    write(tmp_path / "cases.csv", text)
    assert expected in message(tmp_path, layout="csv")


def test_layouts_and_options_that_do_not_exist(tmp_path):
    assert "layout: there is no 'nnUnet'; close to it: nnunet" in message(tmp_path, layout="nnUnet")
    assert "layout: bids has no option 'images'; it has: pipeline, image, label" in message(
        tmp_path, layout={"bids": {"images": 1}}
    )
    assert "files.image: the layout says where the files are" in message(tmp_path, CARDIAC, layout="msd")


# What planning needs


@pytest.mark.parametrize(
    ("build", "block", "count"),
    [
        (lambda f: cardiac(f, ROWS), {"files": CARDIAC | {"table": TABLE}}, 9),
        (lambda f: cardiac(f, ROWS), {"files": CARDIAC}, 8),
        (tumours, {"files": {"image": "{patient}_{channel}.nii.gz", "label": "{patient}_seg.nii.gz"}}, 8),
        (lambda f: nnunet(f / "a"), {"layout": "nnunet"}, 8),
        (msd, {"layout": "msd"}, 5),
        (bids, {"layout": {"bids": {"image": "T1w"}}}, 11),
        (
            lambda f: make(f, "images/a.png", "masks/a.png", "images/b/1.dcm", "images/b/2.dcm", "x.txt"),
            {"layout": "folders"},
            4,
        ),
        (
            lambda f: make(f, "p/ct/1", "p/ct/2", "p/s.nii"),
            {"files": {"image": "{patient}/ct/", "label": "{patient}/s.nii"}},
            3,
        ),
    ],
)
def test_source_files(tmp_path, build, block, count):
    build(tmp_path)
    make(tmp_path, "README.md", "logs/run.txt", ".hidden.nii.gz")
    found = source_files(tmp_path, block)
    assert found == sorted(set(found))
    assert len(found) == count
    assert not any(path.suffix in (".md", ".txt") for path in found)
    assert all(path.is_file() for path in found)


def test_source_files_hold_all_files_of_the_cases(tmp_path):
    make(tmp_path, "i/1.png", "l/1.png", "i/2.png")
    write(tmp_path / "cases.csv", "case,patient,image,label\nc,p,i/1.png,l/1.png\n")
    assert {path.name for path in source_files(tmp_path, {"layout": "csv"})} == {"cases.csv", "1.png"}
    with pytest.raises(BadInput, match="does not exist"):
        source_files(tmp_path / "gone", {"layout": "csv"})


def test_planning_imports_neither_pandas_nor_numpy(tmp_path):
    code = "import sys; import lib.data.layouts; print([m for m in ('pandas', 'numpy', 'torch') if m in sys.modules])"
    scripts = Path(__file__).parents[1] / "workflow" / "scripts"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True).stdout.strip() == "[]"
    )


def test_structures_that_files_do_not_declare(tmp_path):
    make(tmp_path, "images/a.png", "masks/a.png")
    assert declared_structures(tmp_path, "folders") == {}
    assert declared_structures(tmp_path, None) == {}


def test_each_directory_is_read_once(tmp_path, monkeypatch):
    make(tmp_path, *[f"{s}/p{n}_{k}.nii" for s in "ab" for n in range(50) for k in ("flair", "t1c", "seg")])
    scanned, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(str(path)) or scandir(path))
    cases = index(tmp_path, {"image": "{site}/{patient}_{channel}.nii", "label": "{site}/{patient}_seg.nii"})
    assert len(cases) == 100
    assert sorted(scanned) == [str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/b"]


# Any names


NAME = st.text(st.sampled_from("aB1.-+[(*?é "), min_size=1, max_size=5).filter(lambda text: text.strip(".") == text)
WITH_SEPARATOR = st.text(st.sampled_from("ab_"), min_size=1, max_size=4)
FORMS = ("{patient}_{phase}", "{phase}/x_{patient}", "x{patient}/{phase}_{patient}", "a/{patient}_*/**/{phase}")


def written(folder: Path, form: str, cases: set[tuple[str, str]]) -> None:
    for patient, phase in cases:
        name = form.replace("_*/**/", "_/x/y/").format(patient=patient, phase=phase)
        make(folder, f"i/{name}.t1", f"l/{name}.seg")


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(NAME, NAME), min_size=1, max_size=6), st.sampled_from(FORMS))
def test_names_written_by_a_pattern_are_read_back(tmp_path_factory, cases, form):
    folder = tmp_path_factory.mktemp("names")
    written(folder, form, cases)
    found = index(folder, {"image": f"i/{form}.t1", "label": f"l/{form}.seg"})
    assert {(case.patient, case.fields["phase"]) for case in found} == cases
    assert len(found) == len(cases)
    for case in found:
        assert Path(case.images["image"]).relative_to(folder / "i").with_suffix("") == (
            Path(case.labels["label"]).relative_to(folder / "l").with_suffix("")
        )


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(WITH_SEPARATOR, WITH_SEPARATOR), min_size=1, max_size=4))
def test_names_that_hold_the_separator_are_read_back_or_refused(tmp_path_factory, cases):
    folder = tmp_path_factory.mktemp("separators")
    written(folder, "{patient}_{phase}", cases)
    texts = {f"{patient}_{phase}" for patient, phase in cases}
    # "a_b" + "c" and "a" + "b_c" are one file; a name is unambiguous when one place alone can be the separator
    splits = {text: [m.start() for m in re.finditer("_", text[1:-1])] for text in texts}
    try:
        found = index(folder, {"image": "i/{patient}_{phase}.t1", "label": "l/{patient}_{phase}.seg"})
    except BadInput as error:
        assert "in two ways" in str(error)
        assert any(len(places) > 1 for places in splits.values())
    else:
        assert all(len(places) == 1 for places in splits.values())
        assert {(case.patient, case.fields["phase"]) for case in found} == cases
