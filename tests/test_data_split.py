"""Splits: sound for every cohort and setting, stable when patients come and go, and refused when they are not sound."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from lib.data.cases import Case
from lib.data.split import PARTS, fewer_patients, fold_count, split_patients, verify_splits
from lib.errors import BadInput

quick = rules(max_examples=60, deadline=None, derandomize=True, database=None)


def cohort(sites: list[str] | int, cases_each: int = 1, **fields: list[str]) -> list[Case]:
    """Patients p00, p01, … with a site each, or as many of site A."""
    sites = ["A"] * sites if isinstance(sites, int) else sites
    return [
        Case(f"p{n:02d}_c{c}", f"p{n:02d}", {}, {}, fields={"site": site} | {k: v[n] for k, v in fields.items()})
        for n, site in enumerate(sites)
        for c in range(cases_each)
    ]


def names(cases: list[Case]) -> list[str]:
    return sorted({case.patient for case in cases})


def patients_of(cases: list[Case]) -> dict[str, str]:
    return {case.case: case.patient for case in cases}


def assert_sound(splits: dict, cases: list[Case], groups: dict[str, str] | None = None) -> None:
    everyone = set(names(cases))
    for parts in splits["folds"]:
        some = [set(parts[part]) for part in PARTS]
        assert all(some)
        assert set.union(*some) == everyone
        assert sum(len(parts[part]) for part in PARTS) == len(everyone)
        for group in set((groups or {}).values()):
            members = {patient for patient in everyone if (groups or {}).get(patient) == group}
            assert sum(bool(members & part) for part in some) <= 1
    tested = Counter(patient for parts in splits["folds"] for patient in parts["test"])
    assert max(tested.values()) == 1
    assert {case for cases in splits["cases"].values() for case in cases} == {case.case for case in cases}


def fold_that_tests(splits: dict) -> dict[str, int]:
    return {patient: number for number, parts in enumerate(splits["folds"]) for patient in parts["test"]}


site_lists = st.lists(st.sampled_from("ABCD"), min_size=5, max_size=40).filter(lambda s: len(set(s)) < len(s))


@st.composite
def grouped(draw):
    """A cohort, and groups that leave five units or more."""
    cases = cohort(draw(site_lists), draw(st.integers(1, 2)))
    patients = names(cases)
    free = patients[5:]
    groups = {p: draw(st.sampled_from(["g1", "g2", "g3"])) for p in free if draw(st.booleans())}
    if groups:
        groups[patients[0]] = draw(st.sampled_from(["g1", "g2"]))
    return cases, groups


@quick
@given(grouped(), st.integers(3, 5), st.integers(0, 5), st.sampled_from([0.01, 0.2, 0.5, 0.99]), st.booleans())
def test_folds_are_sound_and_keep_groups_together(some, folds, seed, validation, stratify):
    cases, groups = some
    settings = {"folds": folds, "seed": seed, "validation": validation} | ({"stratify": "site"} if stratify else {})
    splits = split_patients(cases, settings, groups)
    assert len(splits["folds"]) == fold_count(settings) == folds
    assert_sound(splits, cases, groups)
    assert sorted(fold_that_tests(splits)) == names(cases)  # everyone is tested
    verify_splits(splits, patients_of(cases), folds - 1)
    together = Counter(groups.values())
    assert sorted(map(len, splits["groups"])) == sorted(n for n in together.values() if n > 1)


@quick
@given(site_lists, st.integers(2, 5), st.integers(0, 5), st.sampled_from([0.01, 0.2, 0.34, 0.5, 0.99]))
def test_parts_are_balanced_within_strata(sites, folds, seed, validation):
    cases = cohort(sites)
    splits = split_patients(cases, {"folds": folds, "seed": seed, "validation": validation, "stratify": "site"})
    site_of = {case.patient: case.fields["site"] for case in cases}
    assert splits["strata"] == site_of
    sizes = [len(parts["test"]) for parts in splits["folds"]]
    assert max(sizes) - min(sizes) <= 1
    for site in set(sites):
        counts = [sum(site_of[p] == site for p in parts["test"]) for parts in splits["folds"]]
        assert max(counts) - min(counts) <= 1
    for parts in splits["folds"]:
        rest = [p for p in site_of if p not in parts["test"]]
        assert len(parts["validation"]) == min(max(1, round(validation * len(rest))), len(rest) - 1)
        if len(parts["validation"]) == round(validation * len(rest)):
            for site in set(sites):
                held, there = (sum(site_of[p] == site for p in some) for some in (parts["validation"], rest))
                assert abs(held - validation * there) <= 1


@quick
@given(st.lists(st.integers(1, 6), min_size=4, max_size=12), st.integers(3, 4), st.integers(0, 5))
def test_groups_are_balanced_as_far_as_their_sizes_allow(sizes, folds, seed):
    cases = cohort(sum(sizes))
    groups = dict(zip(names(cases), np.repeat([f"g{n}" for n in range(len(sizes))], sizes).tolist(), strict=True))
    result = split_patients(cases, {"folds": folds, "seed": seed}, groups)["folds"]
    tested = [len(parts["test"]) for parts in result]
    assert max(tested) - min(tested) <= max(sizes)

    def smallest_left(parts: dict) -> int:
        return min(Counter(groups[p] for part in ("train", "validation") for p in parts[part]).values())

    for parts in result:  # a share is not exceeded, unless no group is small enough
        assert len(parts["validation"]) <= max(round(0.2 * (sum(sizes) - len(parts["test"]))), smallest_left(parts))

    single = cohort(sum(sizes) + folds * max(sizes))  # patients without a group level out what groups leave
    tested = [len(parts["test"]) for parts in split_patients(single, {"folds": folds, "seed": seed}, groups)["folds"]]
    assert max(tested) - min(tested) <= 1


@quick
@given(grouped(), st.sampled_from(["folds", "holdout", "test", "leave_out"]), st.randoms(use_true_random=False))
def test_the_order_of_cases_does_not_matter_and_neither_does_running_again(some, scheme, shuffler):
    cases, groups = some
    value = {"folds": 3, "holdout": 0.3, "test": {"patient": ["p01", "p02"]}, "leave_out": "parity"}[scheme]
    if scheme in ("test", "leave_out"):
        groups = {}
        parity = ["odd" if n % 2 else "even" for n in range(len(names(cases)))]
        cases = cohort([case.fields["site"] for case in cases if case.case.endswith("c0")], parity=parity)
    settings = {scheme: value, "stratify": "site", "seed": 1}
    splits = split_patients(cases, settings, groups)
    shuffled = shuffler.sample(cases, len(cases))
    turned = dict(reversed(groups.items()))
    assert split_patients(shuffled, settings, turned) == splits
    from_file = json.loads(json.dumps(splits))
    assert split_patients(shuffled, settings, turned, from_file) == from_file == splits


@quick
@given(site_lists, site_lists, st.sampled_from([{"folds": 3}, {"folds": 5}, {"holdout": 0.3}]), st.integers(0, 3))
def test_patients_keep_their_place_when_others_come(before, after, scheme, seed):
    settings = {**scheme, "seed": seed, "stratify": "site"}
    everyone = cohort(before + after)
    old = split_patients(everyone[: len(before)], settings)
    new = split_patients(everyone, settings, None, old)
    assert_sound(new, everyone)
    for was, now in zip(old["folds"], new["folds"], strict=True):
        assert all(set(was[part]) <= set(now[part]) for part in PARTS)
        others = len(new["cases"]) - len(now["test"])
        assert len(now["validation"]) <= max(len(was["validation"]), round(0.2 * others))
    if "folds" in scheme:
        for site in set(before + after):
            counts = [sum(new["strata"][p] == site for p in parts["test"]) for parts in new["folds"]]
            assert max(counts) - min(counts) <= 1


@quick
@given(site_lists, st.integers(0, 3), st.data())
def test_patients_keep_their_place_when_others_go(sites, seed, data):
    settings = {"folds": 3, "seed": seed}
    cases = cohort(sites + ["A"] * 4)
    old = split_patients(cases, settings)
    gone = data.draw(st.sampled_from(names(cases)))
    left = [case for case in cases if case.patient != gone]
    new = split_patients(left, settings, None, old)
    assert_sound(new, left)
    assert gone not in new["cases"]
    assert fold_that_tests(new) == {p: fold for p, fold in fold_that_tests(old).items() if p != gone}


def test_a_new_patient_joins_the_smallest_fold_of_its_stratum():
    cases = cohort([*"AAAAAABBB"])
    old = split_patients(cases, {"folds": 3, "stratify": "site"})
    fold = fold_that_tests(old)
    removed = next(p for p in fold if old["strata"][p] == "B")
    left = [case for case in cases if case.patient != removed]
    new_b, new_a = (Case(f"new{s}", f"new{s}", {}, {}, fields={"site": s}) for s in "BA")
    after = split_patients([*left, new_b], {"folds": 3, "stratify": "site"}, None, old)
    assert fold_that_tests(after)["newB"] == fold[removed]  # where no B is left
    after = split_patients([*cases, new_a, new_b], {"folds": 3, "stratify": "site"}, None, old)
    sizes = [len(parts["test"]) for parts in after["folds"]]
    assert max(sizes) - min(sizes) == 1  # 11 patients: the second one goes to a fold with fewer patients in all


def test_new_patients_fill_the_share_of_their_stratum():
    old = split_patients(cohort([*"AAAAAAAA"]), {"holdout": 0.5, "stratify": "site"})
    new = split_patients(cohort([*"AAAAAAAA", *"AABBBB"]), {"holdout": 0.5, "stratify": "site"}, None, old)
    came = set(new["folds"][0]["test"]) - set(old["folds"][0]["test"])
    assert sorted(new["strata"][patient] for patient in came) == ["A", "B", "B"]


def test_validation_is_drawn_anew_where_it_would_take_everyone():
    cases = cohort(5)
    settings = {"holdout": 0.2, "validation": 0.5}
    old = split_patients(cases, settings)
    left = [case for case in cases if case.patient not in old["folds"][0]["train"]]
    (parts,) = split_patients(left, settings, None, old)["folds"]
    assert parts["test"] == old["folds"][0]["test"]
    assert sorted(parts["train"] + parts["validation"]) == old["folds"][0]["validation"]


def test_a_group_found_later_brings_its_patients_together(capsys):
    cases = cohort(9)
    old = split_patients(cases, {"folds": 3})
    a, b, c = (old["folds"][n]["test"][0] for n in (0, 1, 2))
    d = old["folds"][1]["test"][1]
    new = split_patients(cases, {"folds": 3}, dict.fromkeys((a, b, c, d), "g"), old)
    fold = fold_that_tests(new)
    assert {fold[p] for p in (a, b, c, d)} == {1}  # where most of them were
    assert {p: n for p, n in fold.items() if p not in (a, c)} == {
        p: n for p, n in fold_that_tests(old).items() if p not in (a, c)
    }
    assert f"{', '.join(sorted((a, c)))} moved to test fold 1" in capsys.readouterr().out


def test_changed_settings_deal_anew_and_a_changed_validation_share_keeps_the_tests(capsys):
    cases = cohort(20)
    old = split_patients(cases, {"folds": 5, "seed": 3})
    kept = split_patients(cases, {"folds": 5, "seed": 3, "validation": 0.5}, None, old)
    assert fold_that_tests(kept) == fold_that_tests(old)
    assert kept == split_patients(cases, {"folds": 5, "seed": 3, "validation": 0.5})
    assert "validation changed" in capsys.readouterr().out
    for changed in ({"folds": 5, "seed": 4}, {"folds": 4, "seed": 3}, {"holdout": 0.2, "seed": 3}):
        assert split_patients(cases, changed, None, old) == split_patients(cases, changed)
        assert "dealt anew" in capsys.readouterr().out


def test_folds_without_former_patients_are_dealt_anew(capsys):
    cases = cohort(9)
    old = split_patients(cases, {"folds": 3})
    left = [case for case in cases if case.patient not in old["folds"][1]["test"]]
    assert split_patients(left, {"folds": 3}, None, old) == split_patients(left, {"folds": 3})
    assert "too few of the former patients" in capsys.readouterr().out
    elsewhere = [Case(f"q{n}", f"q{n}", {}, {}) for n in range(9)]
    assert split_patients(elsewhere, {"folds": 3}, None, old) == split_patients(elsewhere, {"folds": 3})


def test_no_patient_is_favoured_over_seeds():
    tested = np.zeros(10)
    for seed in range(300):
        for patient in split_patients(cohort(10), {"folds": 5, "seed": seed})["folds"][0]["test"]:
            tested[int(patient[1:])] += 1
    assert tested.sum() == 600
    assert tested.min() > 60 - 5 * np.sqrt(300 * 0.2 * 0.8)
    assert tested.max() < 60 + 5 * np.sqrt(300 * 0.2 * 0.8)


def test_holdout_tests_a_share_once():
    cases = cohort([*"AAAAAAAAAABBBBBBBBBB"])
    (parts,) = split_patients(cases, {"holdout": 0.3, "validation": 0.5, "stratify": "site"})["folds"]
    assert [len(parts[part]) for part in PARTS] == [7, 7, 6]
    assert sum(patient < "p10" for patient in parts["test"]) == 3
    tiny = split_patients(cohort(3), {"holdout": 0.9})["folds"][0]
    assert [len(tiny[part]) for part in PARTS] == [1, 1, 1]


def test_a_published_split():
    published = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    cases = cohort(10, 2, published=published)
    wanted = {"test": {"published": "test"}, "validation": {"published": "val"}}
    (parts,) = split_patients(cases, wanted)["folds"]
    assert parts == {"train": names(cases)[:6], "validation": ["p06", "p07"], "test": ["p08", "p09"]}
    (parts,) = split_patients(cases, {"test": {"published": ["val", "test"]}, "validation": 0.5})["folds"]
    assert parts["test"] == ["p06", "p07", "p08", "p09"] and len(parts["validation"]) == 3
    (parts,) = split_patients(cohort(5, number=[1, 2, 3, 4, 5]), {"test": {"patient": ["p03"]}})["folds"]
    assert parts["test"] == ["p03"]
    assert fold_count(wanted) == 1 and fold_count({}) == 5 and fold_count({"leave_out": "site"}) is None


def test_leave_one_site_out():
    cases = cohort([*"BBBBAAC"])
    splits = split_patients(cases, {"leave_out": "site"})
    assert [(parts["name"], parts["test"]) for parts in splits["folds"]] == [
        ("A", ["p04", "p05"]), ("B", ["p00", "p01", "p02", "p03"]), ("C", ["p06"]),
    ]  # fmt: skip
    assert_sound(splits, cases)
    more = [*cases, Case("q0", "q0", {}, {}, fields={"site": "AA"}), Case("q1", "q1", {}, {}, fields={"site": "C"})]
    after = split_patients(more, {"leave_out": "site"}, None, splits)
    assert [parts["name"] for parts in after["folds"]] == ["A", "B", "C", "AA"]  # known folds keep their number
    assert after["folds"][2]["test"] == ["p06", "q1"]
    for was, now in zip(splits["folds"], after["folds"], strict=False):
        assert set(was["validation"]) <= set(now["validation"])


def test_strata_that_cannot_be_spread_are_noted():
    splits = split_patients(cohort(["A", "A", "A", "A", "B", "", ""]), {"folds": 3, "stratify": "site"})
    assert splits["notes"] == [
        "stratify: site 'B' has one patient, who is in one part of a fold",
        "stratify: 2 patients without site are a stratum of their own",
    ]


MIXED = [*cohort(6), Case("p05_c1", "p05", {}, {}, fields={"site": "B"})]


@pytest.mark.parametrize(
    ("cases", "settings", "expected"),
    [
        (cohort(1), {}, "splits: there is 1 patient, but training, validation and test need one each"),
        (cohort(2), {"folds": 2}, "splits: there are 2 patients, but"),
        (cohort(4), {}, "splits.folds: 5 folds need as many patients, but there are 4; set folds: 4"),
        (cohort(3), {"folds": 2}, "splits.folds: 3 patients in 2 folds leave 1 for training and validation; set folds: 3"),
        (cohort(9), {"folds": 1}, "splits.folds: 1 must be at least 2, so that models of others test every patient; for a single fold use holdout"),
        (cohort(9), {"validation": 0.0}, "splits.validation: 0.0 must lie between 0 and 1"),
        (cohort(9), {"validation": 1.0}, "splits.validation: 1.0 must lie between 0 and 1"),
        (cohort(9), {"holdout": 1}, "splits.holdout: 1 must lie between 0 and 1"),
        (cohort(9), {"folds": 3, "holdout": 0.2}, "splits: folds and holdout are two ways to choose the test patients; keep one"),
        (cohort(9), {"stratify": "sit"}, "splits.stratify: no case has a field 'sit'; write {sit} into the patterns of files, or take it from a table with files.table.fields. Did you mean 'site'? Known: patient, site."),
        (cohort([*"ABCDE"]), {"stratify": "site"}, "splits.stratify: every patient has another value of 'site' (A, B, C, D, E, …)"),
        (MIXED, {"stratify": "site"}, "splits.stratify: the cases of patient 'p05' have site A and B; give all its cases one value"),
        (MIXED, {"leave_out": "site"}, "splits.leave_out: the cases of patient 'p05' have site A and B"),
        (cohort(9), {"leave_out": "site"}, "splits.leave_out: every patient has site 'A'; at least two values are needed"),
        (cohort([*"AAB"]), {"leave_out": "site"}, "splits.leave_out: site 'A' leaves 1 of 3 patients for training and validation"),
        (cohort(["A", "B", ""]), {"leave_out": "site"}, "splits.leave_out: 1 patients have no site (p02), so nobody knows whether they may train"),
        (cohort(9), {"leave_out": "country"}, "splits.leave_out: no case has a field 'country'"),
        (cohort(9), {"test": {"site": []}}, "splits.test: the list of site is empty; fill it, such as test: {source_split: test}"),
        (cohort(9), {"test": {}}, "splits.test: {} must be one field and its value"),
        (cohort(9), {"test": ["p01"]}, "splits.test: ['p01'] must be one field and its value, such as test: {source_split: test}, or test: {patient: [p01, p02]}"),
        (cohort(9), {"test": {"patient": ["p01", "p10"]}}, "splits.test: there is no patient 'p10'. Did you mean 'p0"),
        (cohort(9), {"test": {"site": "A"}}, "splits.test: the list leaves 0 of 9 patients for training and validation"),
        (cohort(9), {"validation": {"site": "A"}}, "splits.validation: a fixed list of validation patients needs a fixed list splits.test as well"),
        (cohort(9), {"test": {"patient": "p01"}, "validation": {"patient": "p01"}}, "splits: patient 'p01' is in splits.test and splits.validation"),
        (cohort([*"AABBB"]), {"test": {"site": "A"}, "validation": {"site": "B"}}, "splits: test and validation leave no patient for training"),
    ],
)  # fmt: skip
def test_bad_input(cases, settings, expected):
    with pytest.raises(BadInput) as caught:
        split_patients(cases, settings)
    assert expected in str(caught.value)


def test_bad_input_with_groups():
    cases = cohort([*"AABBBB"])
    across = {"p00": "g", "p04": "g", "p05": "g"}
    for scheme, key, sides in (
        ({"leave_out": "site"}, "leave_out", "p00 (A), p04 (B), p05 (B)"),
        ({"test": {"patient": "p04"}}, "test", "p00 (not test), p04 (test), p05 (not test)"),
    ):
        with pytest.raises(BadInput) as caught:
            split_patients(cases, scheme, across)
        assert f"splits.{key}: patients that belong together, such as near-duplicates, would be on two sides" in str(
            caught.value
        )
        assert f"\n  - {sides}\n" in str(caught.value)
    with pytest.raises(BadInput, match="splits: there are 2 groups of patients, but training, validation and test"):
        split_patients(cases, {"folds": 2}, dict.fromkeys(names(cases)[1:], "g"))


def test_the_fix_for_too_few_patients_works():
    assert len(split_patients(cohort(3), {"folds": 3})["folds"]) == 3
    assert len(split_patients(cohort(4), {"folds": 4})["folds"]) == 4


@quick
@given(st.integers(1, 60), st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_fewer_training_patients_are_nested(count, seed, fold, share):
    patients = [f"p{n:02d}" for n in range(count)]
    some = fewer_patients(patients, share, seed, fold)
    assert len(some) == max(1, round(share * count)) and set(some) <= set(patients)
    shuffled = random.Random(0).sample(patients, count)
    assert fewer_patients(shuffled, share, seed, fold) == some == fewer_patients(patients, len(some), seed, fold)
    for smaller in (0.05, share / 2):
        assert set(fewer_patients(patients, smaller, seed, fold)) <= set(some)
    new = set(fewer_patients([*patients, "new"], len(some), seed, fold))
    assert len(new - set(some)) <= 1  # one more patient displaces one at most


def test_fewer_training_patients_depend_on_seed_and_fold():
    patients = [f"p{n:02d}" for n in range(40)]
    subsets = {tuple(fewer_patients(patients, 0.25, seed, fold)) for seed in range(3) for fold in range(3)}
    assert len(subsets) == 9
    chosen = Counter(p for seed in range(400) for p in fewer_patients(patients, 0.25, seed, 0))
    assert min(chosen.values()) > 100 - 5 * np.sqrt(75) and max(chosen.values()) < 100 + 5 * np.sqrt(75)


@pytest.mark.parametrize("wanted", [0, 0.0, 1.1, -0.5, 6, True])
def test_fewer_training_patients_out_of_range(wanted):
    with pytest.raises(BadInput) as caught:
        fewer_patients([f"p{n}" for n in range(5)], wanted, 0, 2)
    assert str(caught.value) == (
        f"train_patients: {wanted} must be a share between 0 and 1, such as 0.25, or a number of patients, at most "
        "the 5 training patients of fold 2"
    )


@pytest.fixture
def sound():
    cases = cohort(9, 2)
    return split_patients(cases, {"folds": 3}, {"p00": "g", "p01": "g"}), patients_of(cases)


def broken(sound, change) -> str:
    splits, patients = copy.deepcopy(sound)
    change(splits, patients)
    with pytest.raises(BadInput) as caught:
        verify_splits(splits, patients)
    return str(caught.value)


def test_sound_splits_pass(sound):
    for fold in range(3):
        verify_splits(*sound, fold=fold)
    bare = {key: sound[0][key] for key in ("folds", "cases")}  # all that is needed
    verify_splits(bare, sound[1])


@pytest.mark.parametrize("fold", [3, -1])
def test_a_fold_out_of_range(sound, fold):
    with pytest.raises(BadInput, match=f"fold {fold} does not exist; the splits have 3 folds, numbered from 0"):
        verify_splits(*sound, fold=fold)


def test_a_patient_in_two_parts_of_a_fold(sound):
    patient = next(p for p in sound[0]["folds"][1]["test"] if p not in ("p00", "p01"))

    def leak(splits, patients):
        splits["folds"][1]["train"].append(patient)

    assert broken(sound, leak) == f"splits: fold 1 has patient '{patient}' in train and test; keep one"

    def twice_in_one(splits, patients):
        splits["folds"][1]["test"].append(patient)

    assert broken(sound, twice_in_one) == f"splits: fold 1 has patient '{patient}' in test and test; keep one"


def test_a_patient_tested_in_two_folds(sound):
    patient = next(p for p in sound[0]["folds"][0]["test"] if p not in ("p00", "p01"))

    def twice(splits, patients):
        for part in ("train", "validation"):
            if patient in splits["folds"][2][part]:
                splits["folds"][2][part].remove(patient)
        splits["folds"][2]["test"].append(patient)

    assert f"splits: patient '{patient}' is tested in folds 0 and 2; keep one" in broken(sound, twice)


def test_a_group_on_two_sides(sound):
    fold = next(n for n, parts in enumerate(sound[0]["folds"]) if "p00" in parts["test"])

    def separate(splits, patients):
        splits["folds"][fold]["test"].remove("p01")
        splits["folds"][fold]["train"].append("p01")

    assert broken(sound, separate) == (
        f"splits: fold {fold} separates patients that belong together: p01 in train, p00 in test"
    )


def test_every_problem_is_listed(sound):
    def worse(splits, patients):
        splits["folds"][0]["train"] += ["ghost"]
        splits["folds"][2]["train"] += splits["folds"][2]["validation"]
        splits["folds"][2]["validation"] = []

    assert broken(sound, worse) == (
        "splits: fold 0 has no cases for patient 'ghost'\nsplits: fold 2 has no patient in validation"
    )


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


def test_a_patient_that_a_fold_forgets(sound):
    patient = next(p for p in sound[0]["folds"][0]["train"] if p not in ("p00", "p01"))
    assert broken(sound, lambda s, p: s["folds"][0]["train"].remove(patient)) == (
        f"splits: fold 0 does not place patient '{patient}'"
    )
