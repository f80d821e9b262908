"""Folds by patient, and the proof that no patient is on two sides."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from lib.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("train", "validation", "test")


def split_patients(index: pd.DataFrame, folds: int, seed: int, validation: float) -> dict:
    """Return {"folds": [{"train", "validation", "test": [patients]}, …], "cases": {patient: [cases]}}.
    Patients, shuffled by `seed`, are dealt into `folds` test parts whose sizes differ by at most one; of the
    others a share `validation`, rounded and at least one patient, validates. The result depends on the set of
    cases, not on the order of rows. Raises BadInput when there are too few patients for the three parts.
    """
    cases = index.groupby("patient")["case"].apply(sorted).to_dict()
    patients = sorted(cases)
    count = len(patients)
    if folds < 2:
        raise BadInput(
            f"splits.folds: {folds} must be at least 2, so that every patient is tested by a model of others"
        )
    if not 0 < validation < 1:
        raise BadInput(f"splits.validation: {validation} must lie between 0 and 1")
    if count < 3:
        raise BadInput(
            f"splits: there {'is 1 patient' if count == 1 else f'are {count} patients'}, but training, validation "
            "and test need one each; add patients, or correct {patient} in files if it names something else"
        )
    if folds > count:
        raise BadInput(f"splits.folds: {folds} folds need as many patients, but there are {count}; set folds: {count}")
    others = count - -(-count // folds)  # without the largest test part
    if others < 2:
        raise BadInput(
            f"splits.folds: {count} patients in {folds} folds leave {others} patient for training and "
            "validation; set folds: 3 or add patients"
        )
    shuffled = np.random.default_rng([seed, 0]).permutation(patients).tolist()
    tests = [shuffled[fold::folds] for fold in range(folds)]
    result = {"folds": [], "cases": cases}
    for fold, test in enumerate(tests):
        rest = np.random.default_rng([seed, 1, fold]).permutation(sorted(set(patients) - set(test))).tolist()
        held = min(max(1, round(validation * len(rest))), len(rest) - 1)
        parts = {"train": rest[held:], "validation": rest[:held], "test": test}
        result["folds"].append({part: sorted(names) for part, names in parts.items()})
    verify_splits(result, dict(zip(index["case"], index["patient"], strict=True)))
    return result


def verify_splits(splits: dict, patients: dict[str, str], fold: int | None = None) -> None:
    """Raise BadInput unless the splits are sound for `patients`, the patient of each case.
    In each fold every patient is in exactly one part and no part is empty; no patient is tested in two folds;
    each case is listed under its own patient, and no other; `fold`, if given, exists.
    """
    folds, cases = splits["folds"], splits["cases"]
    if fold is not None and not 0 <= fold < len(folds):
        raise BadInput(f"fold {fold} does not exist; the splits have {len(folds)} folds, numbered from 0")
    listed = {(case, patient) for patient, names in cases.items() for case in names}
    present = set(patients.items())
    if missing := sorted(present - listed):
        raise BadInput(f"splits: {_cases(missing)} missing; delete the splits file and run again")
    if unknown := sorted(listed - present):
        raise BadInput(f"splits: {_cases(unknown)} not in the index; delete the splits file and run again")
    for number, parts in enumerate(folds):
        counts = Counter(patient for part in PARTS for patient in parts[part])
        for patient, times in sorted(counts.items()):
            if times > 1:
                where = [part for part in PARTS for name in parts[part] if name == patient]
                raise BadInput(f"splits: fold {number} has patient '{patient}' in {' and '.join(where)}; keep one")
        if odd := sorted(set(counts) ^ set(cases)):
            problem = "does not place" if odd[0] in cases else "has no cases for"
            raise BadInput(f"splits: fold {number} {problem} patient '{odd[0]}'")
        if empty := [part for part in PARTS if not parts[part]]:
            raise BadInput(f"splits: fold {number} has no patient in {empty[0]}")
    tested = Counter(patient for parts in folds for patient in parts["test"])
    if twice := sorted(patient for patient, times in tested.items() if times > 1):
        where = [str(number) for number, parts in enumerate(folds) if twice[0] in parts["test"]]
        raise BadInput(f"splits: patient '{twice[0]}' is tested in folds {' and '.join(where)}; keep one")


def _cases(pairs: list[tuple[str, str]]) -> str:
    case, patient = pairs[0]
    more = f" and {len(pairs) - 1} more cases are" if len(pairs) > 1 else " is"
    return f"case '{case}' of patient '{patient}'{more}"
