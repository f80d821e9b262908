"""Splits: disjoint by patient for every size, reproducible, and refused when they are not sound."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

from lib.data.split import PARTS, split_patients, verify_splits
from lib.errors import BadInput


def table(patients: int, cases_each: int = 2) -> pd.DataFrame:
    rows = [(f"p{n:02d}_c{c}", f"p{n:02d}") for n in range(patients) for c in range(cases_each)]
    return pd.DataFrame(rows, columns=["case", "patient"])


SIZES = [(n, k) for n in [*range(3, 21), 50, 101] for k in (2, 3, 5, 10) if k <= n and n - -(-n // k) >= 2]


@pytest.mark.parametrize(("patients", "folds"), SIZES)
def test_every_patient_is_tested_once_and_parts_are_disjoint(patients, folds):
    index = table(patients)
    for seed, validation in ((0, 0.2), (7, 0.01), (7, 0.99)):
        splits = split_patients(index, folds, seed, validation)
        assert len(splits["folds"]) == folds
        everyone = set(index["patient"])
        tested = [patient for parts in splits["folds"] for patient in parts["test"]]
        assert sorted(tested) == sorted(everyone)
        for parts in splits["folds"]:
            groups = [set(parts[part]) for part in PARTS]
            assert all(groups)
            assert set.union(*groups) == everyone
            assert sum(map(len, groups)) == patients
            others = patients - len(parts["test"])
            assert len(parts["validation"]) == min(max(1, round(validation * others)), others - 1)
        sizes = [len(parts["test"]) for parts in splits["folds"]]
        assert max(sizes) - min(sizes) <= 1
        assert {case for names in splits["cases"].values() for case in names} == set(index["case"])


def test_the_seed_decides_and_the_order_of_rows_does_not():
    index = table(20)
    splits = split_patients(index, 5, 3, 0.2)
    for seed in range(3):
        shuffled = index.sample(frac=1, random_state=seed)
        assert split_patients(shuffled, 5, 3, 0.2) == splits
    assert split_patients(index, 5, 4, 0.2) != splits
    validations = [tuple(parts["validation"]) for parts in splits["folds"]]
    assert len(set(validations)) > 1


def test_no_patient_is_favoured_over_seeds():
    tested = np.zeros(10)
    for seed in range(300):
        for patient in split_patients(table(10, 1), 5, seed, 0.2)["folds"][0]["test"]:
            tested[int(patient[1:])] += 1
    assert tested.sum() == 600
    assert tested.min() > 60 - 5 * np.sqrt(300 * 0.2 * 0.8)
    assert tested.max() < 60 + 5 * np.sqrt(300 * 0.2 * 0.8)


@pytest.mark.parametrize(
    ("patients", "folds", "validation", "expected"),
    [
        (1, 5, 0.2, "splits: there is 1 patient, but training, validation and test need one each"),
        (2, 2, 0.2, "splits: there are 2 patients, but"),
        (4, 5, 0.2, "splits.folds: 5 folds need as many patients, but there are 4; set folds: 4"),
        (3, 2, 0.2, "splits.folds: 3 patients in 2 folds leave 1 patient for training and validation; set folds: 3"),
        (9, 1, 0.2, "splits.folds: 1 must be at least 2"),
        (9, 3, 0.0, "splits.validation: 0.0 must lie between 0 and 1"),
        (9, 3, 1.0, "splits.validation: 1.0 must lie between 0 and 1"),
    ],
)
def test_too_few_patients_or_bad_settings(patients, folds, validation, expected):
    with pytest.raises(BadInput) as caught:
        split_patients(table(patients), folds, 0, validation)
    assert expected in str(caught.value)


def test_the_fix_for_too_few_patients_works():
    assert len(split_patients(table(3), 3, 0, 0.2)["folds"]) == 3
    assert len(split_patients(table(4), 4, 0, 0.2)["folds"]) == 4


@pytest.fixture
def sound():
    index = table(9)
    return split_patients(index, 3, 0, 0.2), patients_of(index)


def patients_of(index):
    return dict(zip(index["case"], index["patient"], strict=True))


def broken(sound, change) -> str:
    splits, patients = copy.deepcopy(sound)
    change(splits, patients)
    with pytest.raises(BadInput) as caught:
        verify_splits(splits, patients)
    return str(caught.value)


def test_sound_splits_pass(sound):
    for fold in range(3):
        verify_splits(*sound, fold=fold)


@pytest.mark.parametrize("fold", [3, -1])
def test_a_fold_out_of_range(sound, fold):
    with pytest.raises(BadInput, match=f"fold {fold} does not exist; the splits have 3 folds, numbered from 0"):
        verify_splits(*sound, fold=fold)


def test_a_patient_in_two_parts_of_a_fold(sound):
    patient = sound[0]["folds"][1]["test"][0]

    def leak(splits, patients):
        splits["folds"][1]["train"].append(patient)

    assert broken(sound, leak) == f"splits: fold 1 has patient '{patient}' in train and test; keep one"


def test_a_patient_tested_in_two_folds(sound):
    patient = sound[0]["folds"][0]["test"][0]

    def twice(splits, patients):
        for part in ("train", "validation"):
            if patient in splits["folds"][2][part]:
                splits["folds"][2][part].remove(patient)
                splits["folds"][2][part].append(splits["folds"][2]["test"].pop())
        splits["folds"][2]["test"].append(patient)

    assert broken(sound, twice) == f"splits: patient '{patient}' is tested in folds 0 and 2; keep one"


def test_cases_that_differ_from_the_index(sound):
    def added(splits, patients):
        patients["new_c0"] = "new"

    assert "case 'new_c0' of patient 'new' is missing" in broken(sound, added)

    def moved(splits, patients):  # the same case, now of another patient
        patients["p00_c0"] = "p01"

    assert "case 'p00_c0' of patient 'p01' is missing" in broken(sound, moved)

    def removed(splits, patients):
        for case in [case for case, patient in patients.items() if patient == "p08"]:
            del patients[case]

    assert "case 'p08_c0' of patient 'p08' and 1 more cases are not in the index" in broken(sound, removed)


def test_a_patient_that_a_fold_forgets_or_invents(sound):
    patient = sound[0]["folds"][0]["train"][0]
    assert broken(sound, lambda s, p: s["folds"][0]["train"].remove(patient)) == (
        f"splits: fold 0 does not place patient '{patient}'"
    )
    assert broken(sound, lambda s, p: s["folds"][0]["train"].append("ghost")) == (
        "splits: fold 0 has no cases for patient 'ghost'"
    )


def test_an_empty_part(sound):
    def empty(splits, patients):
        parts = splits["folds"][1]
        parts["train"], parts["validation"] = parts["train"] + parts["validation"], []

    assert broken(sound, empty) == "splits: fold 1 has no patient in validation"
