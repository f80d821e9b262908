"""The leakage certificate: hand-made leaks are found and named by file, and nothing else can pass for a certificate."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.cases import Case
from lib.data.certificate import certify, require_certificate
from lib.data.split import PARTS, split_patients
from lib.errors import BadInput


def situation(patients: int = 9, folds: int = 3, **split) -> tuple[list[Case], dict, dict]:
    """Two cases for each patient, with their check and splits."""
    cases = [
        Case(f"p{n}_c{c}", f"p{n}", {"image": f"raw/p{n}_c{c}.png"}, {"label": f"raw/p{n}_c{c}_mask.png"})
        for n in range(patients)
        for c in range(2)
    ]
    check = {
        "dataset": "scans",
        "cases": [
            {
                "case": case.case,
                "patient": case.patient,
                "labels": {"0": 90, "1": 10},
                "image_sha256": f"i{number}",
                "label_sha256": f"l{number}",
            }
            for number, case in enumerate(cases)
        ],
        "near_duplicates": {"threshold": 0.9, "action": "group", "exempt": False, "pairs": []},
        "data_hash": "d" * 64,
    }
    return cases, check, split_patients(cases, {"folds": folds, **split})


def pair(first: str, second: str, similarity: float = 0.987) -> dict:
    patients = [name.split("_")[0] for name in (first, second)]
    return {"cases": [first, second], "patients": patients, "similarity": similarity}


def refused(cases, check, splits) -> str:
    with pytest.raises(BadInput) as caught:
        certify(cases, check, splits)
    return str(caught.value)


def entry(check: dict, case: str) -> dict:
    return next(entry for entry in check["cases"] if entry["case"] == case)


def test_what_a_certificate_says():
    cases, check, splits = situation()
    certificate = certify(cases, check, splits)
    assert certificate["dataset"] == "scans" and certificate["sound"] is True
    assert certificate["data_hash"] == "d" * 64
    assert certificate["folds"][0] == {
        "train": {"patients": 5, "cases": 10},
        "validation": {"patients": 1, "cases": 2},
        "test": {"patients": 3, "cases": 6},
    }
    assert certificate["proofs"] == {
        "patients": 9,
        "cases": 18,
        "copies_within_a_part": {"image": 0, "label": 0},
        "groups": 0,
        "near_duplicates": {"searched": True, "threshold": 0.9, "pairs": 0, "accepted_apart": []},
    }
    assert certificate["sentence"] == (
        "No patient, image or label map is in two parts of any of 3 folds (9 patients, 18 cases); pairs of "
        "near-duplicates (correlation above 0.9): 0."
    )
    assert certify(cases[::-1], check, splits) == certificate
    require_certificate(json.loads(json.dumps(certificate)), json.loads(json.dumps(splits)))


def test_a_certificate_names_its_folds():
    cases, check, _ = situation()
    sites = [replace(case, fields={"site": "NY" if case.patient < "p4" else "LA"}) for case in cases]
    certificate = certify(sites, check, split_patients(sites, {"leave_out": "site"}))
    assert [fold["name"] for fold in certificate["folds"]] == ["LA", "NY"]
    single = certify(cases, check, split_patients(cases, {"holdout": 0.2}))
    assert single["sentence"].startswith("No patient, image or label map is in two parts of the one fold (9 patients")


def test_one_patient_under_two_parts():
    cases, check, splits = situation()
    leaked = splits["folds"][1]["test"][0]
    splits["folds"][1]["train"].append(leaked)
    assert refused(cases, check, splits) == (
        f"the splits of dataset 'scans' are not sound, 1 problem:\n  - splits: fold 1 has patient '{leaked}' in train "
        "and test; keep one"
    )


def test_a_case_listed_under_another_patient():
    cases, check, splits = situation()
    splits["cases"]["p1"].append(splits["cases"]["p0"].pop())
    assert "case 'p0_c1' of patient 'p0' is missing" in refused(cases, check, splits)


@pytest.mark.parametrize(("kind", "what", "suffix"), [("image", "image", ""), ("label", "label map", "_mask")])
def test_one_file_under_two_names(kind, what, suffix):
    cases, check, splits = situation()
    a = next(p for p in splits["folds"][0]["test"])
    b = next(p for p in splits["folds"][1]["test"])
    entry(check, f"{b}_c1")[f"{kind}_sha256"] = entry(check, f"{a}_c0")[f"{kind}_sha256"]
    text = refused(cases, check, splits)
    first, second = sorted([f"{a}_c0", f"{b}_c1"])
    assert text.startswith(
        "the splits of dataset 'scans' are not sound, 1 problem:\n"
        f"  - raw/{first}{suffix}.png (patient {first[:2]}) and raw/{second}{suffix}.png (patient {second[:2]}) hold the "
        f"same {what}, but are in different parts of folds 0, 1"
    )
    assert text.endswith("remove all but one, or give them one patient")


def test_copies_that_stay_together_are_counted():
    cases, check, splits = situation()
    entry(check, "p0_c1")["image_sha256"] = entry(check, "p0_c0")["image_sha256"]
    assert certify(cases, check, splits)["proofs"]["copies_within_a_part"] == {"image": 1, "label": 0}


def test_empty_label_maps_are_no_copies():
    cases, check, splits = situation()
    for case in cases:
        entry(check, case.case).update(labels={"0": 100}, label_sha256="empty")
    assert certify(cases, check, splits)["sound"] is True
    a, b = (splits["folds"][n]["test"][0] for n in (0, 1))
    same = copy.deepcopy(check)
    entry(same, f"{b}_c1")["image_sha256"] = entry(same, f"{a}_c0")["image_sha256"]
    assert "hold the same image" in refused(cases, same, splits)  # images count whatever their label maps
    for case in cases:
        del entry(check, case.case)["labels"]  # not known to be empty
    assert "hold the same label map" in refused(cases, check, splits)


def test_near_duplicates_across_parts():
    cases, check, splits = situation()
    a, b = splits["folds"][0]["test"][0], splits["folds"][2]["test"][0]
    check["near_duplicates"]["pairs"] = [pair(f"{a}_c0", f"{b}_c1"), pair(f"{b}_c0", f"{a}_c1", 0.91)]
    text = refused(cases, check, splits)
    assert "not sound, 2 problems:" in text
    assert (
        f"raw/{a}_c0.png (patient {a}) and raw/{b}_c1.png (patient {b}) are near-duplicates (similarity 0.987)" in text
    )
    assert (
        f"raw/{b}_c0.png (patient {b}) and raw/{a}_c1.png (patient {a}) are near-duplicates (similarity 0.910)" in text
    )

    check["near_duplicates"]["action"] = "list"
    certificate = certify(cases, check, splits)
    accepted = certificate["proofs"]["near_duplicates"]["accepted_apart"]
    assert [p["cases"] for p in accepted] == [[f"{a}_c0", f"{b}_c1"], [f"{b}_c0", f"{a}_c1"]]
    assert {0, 2} <= set(accepted[0]["folds"])
    assert certificate["sentence"].endswith(
        "pairs of near-duplicates (correlation above 0.9): 2, of which 2 lie in two parts, as the configuration accepts."
    )


def test_grouped_near_duplicates_are_sound():
    cases, check, _ = situation()
    check["near_duplicates"]["pairs"] = [pair("p0_c0", "p5_c1"), pair("p5_c0", "p7_c0"), pair("p5_c0", "gone_c0")]
    splits = split_patients(cases, {"folds": 3}, {"p0": "p0", "p5": "p0", "p7": "p0"})
    certificate = certify(cases, check, splits)
    assert certificate["proofs"]["groups"] == 1
    assert certificate["sentence"].endswith("(correlation above 0.9): 2, each within one part.")

    torn = copy.deepcopy(splits)  # by hand, one fold; the pair and the group both tell
    fold = next(n for n, parts in enumerate(torn["folds"]) if "p0" not in parts["test"])
    part = next(part for part in PARTS if "p0" in torn["folds"][fold][part])
    torn["folds"][fold][part].remove("p0")
    torn["folds"][fold]["validation" if part == "train" else "train"].append("p0")
    text = refused(cases, check, torn)
    assert f"fold {fold} separates patients that belong together" in text
    assert f"are near-duplicates (similarity 0.987), but are in different parts of fold {fold};" in text


def test_exempt_data_says_so():
    cases, check, splits = situation()
    check["near_duplicates"].update(exempt=True, threshold=None)
    assert certify(cases, check, splits)["sentence"].endswith("18 cases); near-duplicates were not looked for.")


def test_files_that_were_not_checked():
    cases, check, splits = situation()
    check["cases"] = [e for e in check["cases"] if e["case"] != "p3_c0"]
    entry(check, "p4_c1")["patient"] = "p5"
    text = refused(cases, check, splits)
    assert "raw/p3_c0.png (patient p3) was not checked; run the check of the dataset again" in text
    assert "raw/p4_c1.png (patient p4) was checked as of patient 'p5', but the index says 'p4'" in text


def test_training_refuses_what_is_no_certificate_for_its_splits():
    cases, check, splits = situation()
    certificate = certify(cases, check, splits)
    for missing in (None, {}):
        with pytest.raises(BadInput, match="there is no leakage certificate for the splits, so nothing is trained"):
            require_certificate(missing, splits)
    for doubt in (False, "yes", None):
        with pytest.raises(BadInput, match="does not say that the splits are sound"):
            require_certificate({**certificate, "sound": doubt}, splits)
    other = copy.deepcopy(splits)
    other["folds"][0]["train"].append(other["folds"][0]["validation"].pop())
    with pytest.raises(BadInput, match="was made for other splits than these; run the rule certify"):
        require_certificate(certificate, other)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 17), st.integers(0, 17), st.integers(0, 3), st.sampled_from(["image", "label", "near"]))
def test_a_leak_is_found_exactly_where_there_is_one(first, second, seed, kind):
    cases, check, splits = situation(seed=seed)
    a, b = cases[first], cases[second]
    if kind == "near":
        check["near_duplicates"]["pairs"] = [pair(a.case, b.case)]
    else:
        entry(check, b.case)[f"{kind}_sha256"] = entry(check, a.case)[f"{kind}_sha256"]
    leaks = any((a.patient in fold[part]) != (b.patient in fold[part]) for fold in splits["folds"] for part in PARTS)
    if leaks:
        assert a.case in (text := refused(cases, check, splits)) and b.case in text
    else:
        assert certify(cases, check, splits)["sound"] is True
