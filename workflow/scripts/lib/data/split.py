"""Folds by patient: who trains, validates and tests; the rules that every split keeps (docs/splits.md)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from lib.errors import BadInput
from lib.registry import did_you_mean

if TYPE_CHECKING:
    from lib.data.cases import Case

PARTS = ("train", "validation", "test")
SCHEMES = ("folds", "holdout", "test", "leave_out")  # the ways to choose test patients

Unit = tuple[str, ...]  # patients that stay together: one patient, or a group; sorted


def split_settings(settings: dict) -> dict:
    """The `splits` block of a dataset, complete: the scheme (one of SCHEMES), seed, validation and stratify.

    Reads no data, so it can be called while planning. Raises BadInput on two schemes and on values out of range.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    schemes = [key for key in SCHEMES if key in given] or ["folds"]
    if len(schemes) > 1:
        raise BadInput(f"splits: {' and '.join(schemes)} are two ways to choose the test patients; keep one of them")
    result = {"seed": given.get("seed", 0), "stratify": given.get("stratify"), schemes[0]: given.get(schemes[0], 5)}
    if "folds" in result and result["folds"] < 2:
        raise BadInput(
            f"splits.folds: {result['folds']} must be at least 2, so that models of others test every patient; "
            "for a single fold use holdout: 0.2, or test: {FIELD: value}"
        )
    if "test" in result:
        result["test"] = _choice("test", result["test"])
    result["validation"] = given.get("validation", 0.2)
    if isinstance(result["validation"], dict):
        result["validation"] = _choice("validation", result["validation"])
        if "test" not in result:
            raise BadInput(
                "splits.validation: a fixed list of validation patients needs a fixed list splits.test as well"
            )
    for key in ("holdout", "validation"):
        if not isinstance(share := result.get(key, 0.5), dict) and not 0 < share < 1:
            raise BadInput(f"splits.{key}: {share} must lie between 0 and 1; it is a share of the patients")
    return result


def fold_count(settings: dict) -> int | None:
    """Number of folds that a `splits` block gives; None where the values of a field decide (leave_out)."""
    settings = split_settings(settings)
    return None if "leave_out" in settings else settings.get("folds", 1)


def split_patients(
    cases: list[Case], settings: dict, groups: dict[str, str] | None = None, previous: dict | None = None
) -> dict:
    """Divide the patients of `cases` into folds, each with the parts train, validation and test.

    `settings` as in `split_settings`: `folds` (every patient is tested once), `holdout` (a share is tested),
    `test: {FIELD: values}` (a fixed list is tested) or `leave_out: FIELD` (a fold per value, its "name", tests the
    patients with it). Patients of one group (`groups`: patient to group) stay in one part. With `stratify`, the values
    of a field are spread over test and validation parts as evenly as groups allow. `previous`, the result for former
    cases and equal settings (`validation` apart), keeps its patients where they are: a new one joins the test part that
    has the fewest of its stratum, and one that is gone disappears.
    Returns {"folds": [{"train", "validation", "test": [patients]}, …], "cases": {patient: [cases]},
    "groups": [[patients of one group], …], "strata": {patient: value} (with `stratify`), "settings", "notes": [str]}.
    The result does not depend on the order of `cases`. Raises BadInput for unknown fields and values, and when
    there are too few patients for the three parts.
    """
    settings = split_settings(settings)
    by_patient: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        by_patient[case.patient].append(case.case)
    units = _units(by_patient, groups or {})
    noun = "patients" if len(units) == len(by_patient) else "groups of patients"
    if len(units) < 3:
        there = f"is 1 {noun.removesuffix('s')}" if len(units) == 1 else f"are {len(units)} {noun}"
        raise BadInput(
            f"splits: there {there}, but training, validation and test need one each; add patients, or correct "
            "{patient} in files if it names something else"
        )
    strata, notes = dict.fromkeys(by_patient, ""), []
    if settings["stratify"]:
        strata, notes = _strata(cases, settings["stratify"])
    kept, kept_validation = _kept_folds(previous, settings)

    names: list[str] = []
    if "test" in settings:
        tests = [_chosen(cases, units, settings["test"], "test")]
    elif "leave_out" in settings:
        tests, names = _left_out(cases, units, settings["leave_out"], [fold["name"] for fold in kept])
    else:
        tests = _dealt_tests(units, strata, settings, kept, noun)
        if kept and not _usable(tests, units):
            print("too few of the former patients are left to keep their folds, so all patients are dealt anew")
            return split_patients(cases, settings, groups)

    fixed: set[Unit] = set()
    if isinstance(settings["validation"], dict):
        fixed = _chosen(cases, units, settings["validation"], "validation")
        if both := fixed & tests[0]:
            raise BadInput(f"splits: patient '{min(both)[0]}' is in splits.test and splits.validation; keep it in one")
        if len(tests[0]) + len(fixed) == len(units):
            raise BadInput("splits: test and validation leave no patient for training; shorten them")
    folds = []
    for number, test in enumerate(tests):
        rest = [unit for unit in units if unit not in test]
        name = names[number] if names else None
        if len(rest) < 2:
            what = f"leave_out: {settings['leave_out']} '{name}'" if names else "test: the list"
            raise BadInput(
                f"splits.{what} leaves {len(rest)} of {len(units)} {noun} for training and validation; add patients"
            )
        key, before = [settings["seed"], 1, number], kept_validation.get(name or number, {})
        validation = fixed or _draw(rest, strata, settings["validation"], key, before, leave=1)
        train = [unit for unit in rest if unit not in validation]
        parts = {"train": train, "validation": validation, "test": test}
        listed = {part: sorted(p for unit in some for p in unit) for part, some in parts.items()}
        folds.append({"name": name, **listed} if names else listed)

    result = {
        "folds": folds,
        "cases": {patient: sorted(by_patient[patient]) for patient in sorted(by_patient)},
        "groups": [list(unit) for unit in units if len(unit) > 1],
        **({"strata": strata} if settings["stratify"] else {}),
        "settings": settings,
        "notes": notes,
    }
    verify_splits(result, {case.case: case.patient for case in cases})
    return result


def verify_splits(splits: dict, patients: dict[str, str], fold: int | None = None) -> None:
    """Raise BadInput, listing every problem, unless the splits are sound for `patients`, the patient of each case.

    In each fold every patient is in exactly one part, no part is empty, and no group is on two sides; no patient is
    tested in two folds; each case is listed under its own patient, and no other; `fold`, if given, exists.
    """
    folds = len(splits["folds"])
    if fold is not None and not 0 <= fold < folds:
        count = "1 fold, number 0" if folds == 1 else f"{folds} folds, numbered from 0"
        raise BadInput(f"fold {fold} does not exist; the splits have {count}")
    if problems := split_problems(splits, patients):
        raise BadInput("splits: " + "\nsplits: ".join(problems))


def split_problems(splits: dict, patients: dict[str, str]) -> list[str]:
    """What `verify_splits` raises, one text per problem."""
    folds, cases, problems = splits["folds"], splits["cases"], []
    listed = {(case, patient) for patient, names in cases.items() for case in names}
    present = set(patients.items())
    if missing := sorted(present - listed):
        problems.append(f"{_cases(missing)} missing; delete the splits file and run again")
    if unknown := sorted(listed - present):
        problems.append(f"{_cases(unknown)} not in the index; delete the splits file and run again")
    for number, parts in enumerate(folds):
        places: dict[str, list[str]] = defaultdict(list)
        for part in PARTS:
            for patient in parts[part]:
                places[patient].append(part)
        for patient, where in sorted(places.items()):
            if len(where) > 1:
                problems.append(f"fold {number} has patient '{patient}' in {' and '.join(where)}; keep one")
        for patient in sorted(set(places) ^ set(cases)):
            problem = "does not place" if patient in cases else "has no cases for"
            problems.append(f"fold {number} {problem} patient '{patient}'")
        problems += [f"fold {number} has no patient in {part}" for part in PARTS if not parts[part]]
        for group in splits.get("groups", []):
            where = {part: [p for p in group if part in places[p]] for part in PARTS}
            if sum(map(bool, where.values())) > 1:
                text = ", ".join(f"{' and '.join(some)} in {part}" for part, some in where.items() if some)
                problems.append(f"fold {number} separates patients that belong together: {text}")
    tested = Counter(patient for parts in folds for patient in set(parts["test"]))
    for patient in sorted(patient for patient, times in tested.items() if times > 1):
        where = [str(number) for number, parts in enumerate(folds) if patient in parts["test"]]
        problems.append(f"patient '{patient}' is tested in folds {' and '.join(where)}; keep one")
    return problems


def cases_of(splits: dict, fold: int, part: str, train_patients: float | None = None) -> list[str]:
    """Names of the cases of one part of a fold; `train_patients`, the share or number that a condition leaves."""
    patients = splits["folds"][fold][part]
    if part == "train" and train_patients is not None:
        patients = fewer_patients(patients, train_patients, splits["settings"]["seed"], fold)
    return [case for patient in patients for case in splits["cases"][patient]]


def fewer_patients(patients: Iterable[str], wanted: float, seed: int, fold: int) -> list[str]:
    """The training patients that stay: a share (float, up to 1.0; rounded, at least one) or a number (int).

    Patients are ranked by a hash of seed, fold and name, and the first ones stay. So smaller subsets lie within
    larger ones, every method that asks with the same seed gets the same, and a new patient does not reorder the others.
    Returns sorted names. Raises BadInput when `wanted` is out of range.
    """
    patients = list(patients)
    share = isinstance(wanted, float)
    if isinstance(wanted, bool) or not (0 < wanted <= 1 if share else 1 <= wanted <= len(patients)):
        raise BadInput(
            f"train_patients: {wanted} must be a share between 0 and 1, such as 0.25, or a number of patients, at "
            f"most the {len(patients)} training patients of fold {fold}"
        )
    count = max(1, round(wanted * len(patients))) if share else wanted
    ranked = sorted(patients, key=lambda name: hashlib.sha256(f"{seed} {fold} {name}".encode()).digest())
    return sorted(ranked[:count])


def _units(patients: Iterable[str], groups: dict[str, str]) -> list[Unit]:
    members = defaultdict(list)
    for patient in sorted(patients):
        members[(1, groups[patient]) if patient in groups else (0, patient)].append(patient)
    return sorted(tuple(some) for some in members.values())


def _kept_folds(previous: dict | None, settings: dict) -> tuple[list[dict], dict[str | int, dict[str, bool]]]:
    """The folds of `previous` whose test patients stay; for each fold, who was in validation (True) or training."""
    if previous is None:
        return [], {}
    before = previous.get("settings", {})
    if {**before, "validation": None} != {**settings, "validation": None}:
        print("the settings of the splits changed, so all patients are dealt anew")
        return [], {}
    folds = previous["folds"]
    if before["validation"] != settings["validation"]:
        print("splits.validation changed, so the validation patients are drawn anew")
        return folds, {}
    return folds, {
        fold.get("name") or number: {p: part == "validation" for part in ("validation", "train") for p in fold[part]}
        for number, fold in enumerate(folds)
    }


def _strata(cases: list[Case], field: str) -> tuple[dict[str, str], list[str]]:
    """The stratum of each patient, and notes about values that cannot be spread."""
    strata = _values(cases, field, "stratify")
    sizes = Counter(strata.values())
    if max(sizes.values()) == 1:
        raise BadInput(
            f"splits.stratify: every patient has another value of '{field}' ({', '.join(sorted(sizes)[:5])}, …), so "
            "there is nothing to spread; name a field with few values, or remove stratify"
        )
    notes = []
    if lonely := sorted(value for value, count in sizes.items() if count == 1):
        notes.append(f"stratify: {field} {', '.join(map(repr, lonely))} has one patient, who is in one part of a fold")
    if "" in sizes:
        notes.append(f"stratify: {sizes['']} patients without {field} are a stratum of their own")
    return strata, notes


def _values(cases: list[Case], field: str, key: str) -> dict[str, str]:
    """The value of a declared field, or of `patient`, for each patient; raises BadInput unless it is one."""
    known = {"patient"}.union(*(case.fields for case in cases))
    if field not in known:
        raise BadInput(
            f"splits.{key}: no case has a field '{field}'; write {{{field}}} into the patterns of files, or take it "
            f"from a table with files.table.fields.{did_you_mean(field, known)}"
        )
    found = defaultdict(set)
    for case in cases:
        found[case.patient].add(case.patient if field == "patient" else case.fields.get(field, ""))
    for patient, values in sorted(found.items()):
        if len(values) > 1:
            raise BadInput(
                f"splits.{key}: the cases of patient '{patient}' have {field} {' and '.join(sorted(values))}; give "
                "all its cases one value, because a patient stays whole"
            )
    return {patient: found[patient].pop() for patient in sorted(found)}


def _choice(key: str, choice: dict) -> dict[str, list[str]]:
    """{FIELD: value or values} with a list of texts."""
    example = f"{key}: {{source_split: {key}}}, or {key}: {{patient: [p01, p02]}}"
    if not isinstance(choice, dict) or len(choice) != 1:
        raise BadInput(f"splits.{key}: {choice} must be one field and its value, such as {example}")
    ((field, values),) = choice.items()
    values = [str(value) for value in (values if isinstance(values, list) else [values])]
    if not values:
        raise BadInput(f"splits.{key}: the list of {field} is empty; fill it, such as {example}")
    return {field: sorted(set(values))}


def _chosen(cases: list[Case], units: list[Unit], choice: dict[str, list[str]], key: str) -> set[Unit]:
    """The units whose field has one of the chosen values."""
    ((field, wanted),) = choice.items()
    values = _values(cases, field, key)
    for value in wanted:
        if value not in values.values():
            known = set(values.values())
            hint = did_you_mean(value, known) if len(known) <= 30 else ""
            what = "there is no patient" if field == "patient" else f"no patient has {field}"
            raise BadInput(f"splits.{key}: {what} '{value}'.{hint}")
    _stay_whole(
        units, {patient: f"{key if value in wanted else 'not ' + key}" for patient, value in values.items()}, key
    )
    return {unit for unit in units if values[unit[0]] in wanted}


def _left_out(cases: list[Case], units: list[Unit], field: str, before: list[str]) -> tuple[list[set[Unit]], list[str]]:
    """Test parts and their names, one per value; values named `before` keep their place."""
    values = _values(cases, field, "leave_out")
    if unknown := sorted(patient for patient, value in values.items() if not value):
        raise BadInput(
            f"splits.leave_out: {len(unknown)} patients have no {field} ({', '.join(unknown[:5])}), so nobody knows "
            "whether they may train; fill the field or remove them"
        )
    present = set(values.values())
    if len(present) < 2:
        raise BadInput(f"splits.leave_out: every patient has {field} '{present.pop()}'; at least two values are needed")
    _stay_whole(units, values, "leave_out")
    names = [name for name in before if name in present]
    names += sorted(present - set(names))
    return [{unit for unit in units if values[unit[0]] == name} for name in names], names


def _stay_whole(units: list[Unit], side: dict[str, str], key: str) -> None:
    """Raise BadInput where patients of one unit would be on two sides."""
    if torn := [unit for unit in units if len({side[patient] for patient in unit}) > 1]:
        text = "".join("\n  - " + ", ".join(f"{patient} ({side[patient]})" for patient in unit) for unit in torn)
        raise BadInput(
            f"splits.{key}: patients that belong together, such as near-duplicates, would be on two sides:{text}\n"
            "remove the images of one side, use folds instead, or accept these pairs with "
            "check: {near_duplicates: {action: list}}"
        )


def _dealt_tests(
    units: list[Unit], strata: dict[str, str], settings: dict, kept: list[dict], noun: str
) -> list[set[Unit]]:
    """Test parts of `folds` or `holdout`; the test patients of the folds `kept` stay where they are."""
    folds, key = settings.get("folds"), [settings["seed"], 0]
    if folds and folds > len(units):
        raise BadInput(
            f"splits.folds: {folds} folds need as many {noun}, but there are {len(units)}; set folds: {len(units)}"
        )

    if not folds:
        before = {patient: part == "test" for fold in kept for part in PARTS for patient in fold[part]}
        return [_draw(units, strata, settings["holdout"], key, before, leave=2)]
    tests = _deal(units, strata, folds, key, {patient: n for n, fold in enumerate(kept) for patient in fold["test"]})
    if not kept and not _usable(tests, units):
        others = len(units) - max(map(len, tests))
        raise BadInput(
            f"splits.folds: {len(units)} {noun} in {folds} folds leave {others} for training and validation; "
            "set folds: 3 or add patients"
        )
    return tests


def _usable(tests: list[set[Unit]], units: list[Unit]) -> bool:
    """Whether every fold has one unit to test and two others to train and validate."""
    return all(0 < len(test) <= len(units) - 2 for test in tests)


def _deal(
    units: list[Unit], strata: dict[str, str], folds: int, key: list[int], kept: dict[str, int]
) -> list[set[Unit]]:
    """Each unit goes to the fold with the fewest patients of its stratum, then with the fewest patients.

    Large units go first, within a size stratum by stratum, in an order shuffled by `key`; so without groups the folds
    differ by at most one patient, in each stratum and in all. `kept` (patient to fold) is placed before.
    """
    tests: list[set[Unit]] = [set() for _ in range(folds)]
    counts: list[Counter[str]] = [Counter() for _ in range(folds)]

    def place(unit: Unit, fold: int) -> None:
        tests[fold].add(unit)
        counts[fold].update(strata[patient] for patient in unit)

    new = []
    for unit in units:
        votes = Counter(kept[patient] for patient in unit if patient in kept)
        if not votes:
            new.append(unit)
            continue
        fold = min(votes, key=lambda fold: (-votes[fold], fold))
        place(unit, fold)
        if moved := [patient for patient in unit if kept.get(patient, fold) != fold]:
            print(f"{', '.join(moved)} moved to test fold {fold}: {', '.join(unit)} are together now")
    new = sorted(_shuffled(new, key), key=lambda unit: (-len(unit), _main(unit, strata)))  # stable
    for unit in new:
        own = Counter(strata[patient] for patient in unit)
        place(unit, min(range(folds), key=lambda f: (sum(counts[f][s] * n for s, n in own.items()), counts[f].total())))
    return tests


def _draw(
    units: list[Unit], strata: dict[str, str], share: float, key: list[int], before: dict[str, bool], leave: int
) -> set[Unit]:
    """Units that together hold a share of the patients, rounded, in each stratum the same.

    At least one is drawn, and at least `leave` are left over; `key` shuffles. `before` tells of each former patient
    whether it was drawn, and that stays, so only new ones fill up the share, unless none of those drawn is left.
    """
    total = sum(map(len, units))
    target = max(1, round(share * total))
    drawn = {unit for unit in units if any(before.get(patient) for patient in unit)}
    if not drawn or len(units) - len(drawn) < leave:
        before, drawn = {}, set()
    queues: dict[str, deque[Unit]] = defaultdict(deque)
    lacking: Counter = Counter()  # patients that each stratum should still give
    for unit in _shuffled(units, key):
        lacking[_main(unit, strata)] += share * len(unit)
        if unit in drawn:
            lacking[_main(unit, strata)] -= len(unit)
        elif not before.keys() >= set(unit):
            queues[_main(unit, strata)].append(unit)
    held = sum(map(len, drawn))
    while held < target and len(units) - len(drawn) > leave and any(queues.values()):
        stratum = max((s for s in queues if queues[s]), key=lambda s: (lacking[s], s))
        unit = queues[stratum].popleft()
        if held + len(unit) <= target:
            drawn.add(unit)
            held += len(unit)
            lacking[stratum] -= len(unit)
    return drawn or {min(units, key=len)}


def _shuffled(units: list[Unit], key: list[int]) -> list[Unit]:
    return [units[i] for i in np.random.default_rng(key).permutation(len(units))]


def _main(unit: Unit, strata: dict[str, str]) -> str:
    """The commonest stratum of a unit's patients, the first by name among equals."""
    counts = Counter(strata[patient] for patient in unit)
    return min(counts, key=lambda s: (-counts[s], s))


def _cases(pairs: list[tuple[str, str]]) -> str:
    case, patient = pairs[0]
    more = f" and {len(pairs) - 1} more cases are" if len(pairs) > 1 else " is"
    return f"case '{case}' of patient '{patient}'{more}"
