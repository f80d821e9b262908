"""The leakage certificate: proof that no patient, file or near-duplicate is in two parts of a fold."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from lib.data.split import PARTS, split_problems
from lib.errors import BadInput
from lib.provenance import value_hash

if TYPE_CHECKING:
    from lib.data.cases import Case


def certify(cases: list[Case], check: dict, splits: dict) -> dict:
    """The certificate of `splits` for `cases`, or one BadInput that lists every violation with its files.

    `check` as in check.json: per case patient, image_sha256, label_sha256 and voxels per label value (equal label maps
    of one value, such as two empty ones, are no sign of a copy), data_hash, and near_duplicates {"exempt", "threshold",
    "action", "pairs": [{"cases", "patients", "similarity"}]}. A violation is a problem of the splits themselves; a case
    whose files were not checked; and, in any fold, an image or a label map in two parts, or a near-duplicate pair in
    two parts, unless the action is "list": then such pairs are accepted, and counted in the sentence.
    Returns {"dataset", "sound": True, "sentence" (for the report), "folds": per fold its name and patients and cases
    per part, "proofs": what was compared, "splits_hash", "data_hash"}.
    """
    by_name = {case.case: case for case in cases}
    problems = [f"splits: {text}" for text in split_problems(splits, {case.case: case.patient for case in cases})]
    checked = {entry["case"]: entry for entry in check["cases"] if entry["case"] in by_name}
    for name, case in sorted(by_name.items()):
        if name not in checked:
            problems.append(f"{_file(case, 'images')} was not checked; run the check of the dataset again")
        elif checked[name]["patient"] != case.patient:
            problems.append(
                f"{_file(case, 'images')} was checked as of patient '{checked[name]['patient']}', but the index says "
                f"'{case.patient}'; run the check again"
            )

    part_of = [{patient: part for part in PARTS for patient in parts[part]} for parts in splits["folds"]]

    def apart(names: list[str]) -> list[int]:
        """The folds in which the cases are in more than one part."""
        patients = {by_name[name].patient for name in names}
        return [number for number, part in enumerate(part_of) if len({part.get(p) for p in patients}) > 1]

    copies = {"image": 0, "label": 0}
    for kind, what in (("image", "image"), ("label", "label map")):
        same = defaultdict(list)
        for name, entry in sorted(checked.items()):
            if kind == "image" or len(entry.get("labels", "??")) > 1:
                same[entry[f"{kind}_sha256"]].append(name)
        for names in same.values():
            copies[kind] += len(names) - 1
            if where := apart(names):
                files = " and ".join(_file(by_name[name], kind + "s") for name in names)
                problems.append(
                    f"{files} hold the same {what}, but are in different parts {_folds(where)}; remove all but one, or "
                    "give them one patient"
                )

    near = check["near_duplicates"]
    pairs = [pair for pair in near["pairs"] if set(pair["cases"]) <= set(by_name)]
    accepted = []
    for pair in pairs:
        if where := apart(pair["cases"]):
            if near["action"] == "list":
                accepted.append({**pair, "folds": where})
                continue
            files = " and ".join(_file(by_name[name], "images") for name in pair["cases"])
            problems.append(
                f"{files} are near-duplicates (similarity {pair['similarity']:.3f}), but are in different parts "
                f"{_folds(where)}; delete the splits and run again, so that they stay together"
            )
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        text = "".join(f"\n  - {problem}" for problem in problems)
        raise BadInput(f"the splits of dataset '{check['dataset']}' are not sound, {count}:{text}")

    folds = []
    for parts in splits["folds"]:
        counts = {
            part: {"patients": len(parts[part]), "cases": sum(len(splits["cases"][p]) for p in parts[part])}
            for part in PARTS
        }
        folds.append({"name": parts["name"], **counts} if "name" in parts else counts)
    proofs = {
        "patients": len(splits["cases"]),
        "cases": len(cases),
        "copies_within_a_part": copies,
        "groups": len(splits.get("groups", [])),
        "near_duplicates": {
            "searched": not near["exempt"],
            "threshold": near["threshold"],
            "pairs": len(pairs),
            "accepted_apart": accepted,
        },
    }
    return {
        "dataset": check["dataset"],
        "sound": True,
        "sentence": _sentence(len(folds), proofs),
        "folds": folds,
        "proofs": proofs,
        "splits_hash": value_hash(splits),
        "data_hash": check["data_hash"],
    }


def require_certificate(certificate: dict | None, splits: dict) -> None:
    """Raise BadInput unless there is a certificate, it says that the splits are sound, and it is about `splits`.

    `splits` as read from the file, whole.
    """
    again = "run the rule certify, which makes it from index, check and splits"
    if not certificate:
        raise BadInput(f"there is no leakage certificate for the splits, so nothing is trained; {again}")
    if certificate.get("sound") is not True:
        raise BadInput(f"the leakage certificate does not say that the splits are sound; {again}")
    if certificate.get("splits_hash") != value_hash(splits):
        raise BadInput(f"the leakage certificate was made for other splits than these; {again}")


def _sentence(folds: int, proofs: dict) -> str:
    """What was proved, in one line."""
    where = "the one fold" if folds == 1 else f"any of {folds} folds"
    counted = f"{proofs['patients']} patients, {proofs['cases']} cases"
    text = f"No patient, image or label map is in two parts of {where} ({counted})"
    near = proofs["near_duplicates"]
    if not near["searched"]:
        return f"{text}; near-duplicates were not looked for."
    pairs, accepted = near["pairs"], len(near["accepted_apart"])
    text += f"; pairs of near-duplicates (correlation above {near['threshold']:g}): {pairs}"
    if accepted:
        return f"{text}, of which {accepted} lie in two parts, as the configuration accepts."
    return f"{text}{', each within one part' if pairs else ''}."


def _file(case: Case, kind: str) -> str:
    return f"{next(iter(getattr(case, kind).values()))} (patient {case.patient})"


def _folds(numbers: list[int]) -> str:
    return f"of fold{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
