"""Predictions that somebody else made become those of a cell.

Nothing is believed: each file must be there once, lie on the grid of its case and hold declared labels, and all that
is wrong is said at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from lib.data.cases import APART, Case, read_index
from lib.data.formats import Geometry, label_suffix, read_geometry, read_label, write_label
from lib.data.patterns import Listing, Pattern, is_image, some, split_name
from lib.data.split import cases_of
from lib.errors import BadInput
from lib.files import atomic, file_sha256, read_json


def import_cell(job: dict) -> dict:
    """Write the label map of each test case of the cell's fold, in the case's geometry, into the folder `output`.

    `job`: cell, external (as `lib.external.filled` returns), structures, index (CSV), splits (JSON), output. Returns
    {"cases", "files": case -> {"file", "sha256"}, "training_data": what is known of the patients that the method has
    seen, "notes"}. Raises one BadInput that lists every problem.
    """
    settings, cell = job["external"], job["cell"]
    index, splits = {case.case: case for case in read_index(job["index"])}, read_json(job["splits"])
    tested = [index[name] for name in cases_of(splits, cell["fold"], "test")]
    seen, problems = seen_in_training(settings, splits, cell["fold"], tested)
    files, unfound, notes = find_files(settings, tested, list(index.values()))
    problems = problems + unfound
    used, turned = {}, []
    with atomic(job["output"]) as output:
        output.mkdir()
        for case in tested:
            if case.case not in files:
                continue
            file, like = files[case.case], next(iter(case.images.values()))
            try:
                label, geometry = read_label(file)
                label, was_turned = on_grid_of(label, geometry, file, like)
                label = declared(label, settings.get("labels") or {}, job["structures"], file, cell)
            except BadInput as error:
                problems.append(str(error))
                continue
            turned += [file] if was_turned else []
            write_label(output / f"{case.case}{label_suffix(like)}", label, like)
            used[case.case] = {"file": file, "sha256": file_sha256(file)}
        if turned:
            notes.append(f"axes swapped or flipped to those of the image, without interpolation: {some(turned)}")
        for line in [*(f"problem: {text}" for text in problems), *(f"note: {text}" for text in notes)]:
            print(line)
        print(f"training data: {seen}")
        if problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            listed = "".join(f"\n  - {problem}" for problem in problems)
            raise BadInput(f"external: {cell['method']}: {count} with the predictions for fold {cell['fold']}:{listed}")
    return {"cases": len(used), "files": used, "training_data": seen, "notes": notes}


def find_files(settings: dict, tested: list[Case], known: list[Case]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return (the file of each tested case, problems, notes about files of nobody and of other folds).

    Files are found by the pattern `file`, or else by their name, which without extension is the case's. `known`: all
    cases of the dataset.
    """
    folder = Path(settings["path"])
    if not folder.is_dir():
        return {}, [f"the folder {folder} does not exist (seen from {Path.cwd()}); correct `path`"], []
    listing, text = Listing(folder), settings.get("file")
    if text:
        pattern = Pattern.parse(text, "file")
        names = listing.match(pattern)
        of = {c.case: listing.match(pattern.fill({"case": c.case, "patient": c.patient})) for c in known}
    else:
        names = [name for name in listing.names() if is_image(name) and not name.endswith("/")]
        of = {c.case: [name for name in names if split_name(name)[0] == c.case] for c in known}

    files, problems = {}, []
    for case in tested:
        if len(of[case.case]) > 1:
            there = some([listing.path(name) for name in of[case.case]])
            problems.append(f"case '{case.case}' has several files, {there}; keep one, or name it by `file`")
        elif of[case.case]:
            files[case.case] = listing.path(of[case.case][0])
    for file in sorted({file for file in files.values() if list(files.values()).count(file) > 1}):
        cases = [case for case in files if files[case] == file]
        problems.append(f"{file} would be the prediction of {' and '.join(cases)}; write {{case}} into `file`")
    if absent := [case for case in tested if not of[case.case]]:
        values = {"case": absent[0].case, "patient": absent[0].patient}
        example = Pattern.parse(text, "file").fill(values).text if text else f"{absent[0].case}.nii.gz or the like"
        problems.append(
            f"no file for {len(absent)} of {len(tested)} test cases ({some([case.case for case in absent], 20)}): "
            f"expected {folder / example}; the folder holds {listing.examples()}"
        )

    notes = []
    if nobodys := sorted(set(names) - {name for matches in of.values() for name in matches}):
        notes.append(f"{len(nobodys)} files in {folder} are of no case of the dataset: {some(nobodys)}")
    others = sorted(case for case, matches in of.items() if matches and case not in {c.case for c in tested})
    if others and settings["per_fold"]:
        notes.append(f"{folder} also holds cases that another fold tests here, so its folds are others: {some(others)}")
    return files, problems, notes


def on_grid_of(label: np.ndarray, geometry: Geometry, file: str, like: str) -> tuple[np.ndarray, bool]:
    """Return (label (X, Y, Z) with the axes of the image file `like`, whether they were swapped or flipped for that).

    Nothing is interpolated: raises BadInput for another shape or, beyond `APART` of a voxel, another place. A file
    without millimetres (PNG, NPZ without spacing) is taken voxel by voxel.
    """
    wanted = read_geometry(like)
    turned = False
    if geometry.unit == wanted.unit == "mm":
        turn = ornt_transform(io_orientation(geometry.affine), io_orientation(wanted.affine))
        if turned := not np.array_equal(turn, [[0, 1], [1, 1], [2, 1]]):
            affine = geometry.affine @ inv_ornt_aff(turn, label.shape)
            label = np.ascontiguousarray(apply_orientation(label, turn))
            geometry = Geometry(label.shape, affine, "mm")
    elif geometry.unit == "mm" and not np.allclose(geometry.affine, np.eye(4)):
        raise BadInput(f"{file}: states millimetres, but {like} is a picture; write PNG, which keeps rows and columns")
    if geometry.shape != wanted.shape:
        raise BadInput(
            f"{file}: {_grid(geometry)}, but {like} has {_grid(wanted)}; write predictions on the grid of the image "
            "file, not on the resampled or cropped one that a network sees"
        )
    apart = geometry.apart(wanted) if geometry.unit == wanted.unit == "mm" else 0.0
    if apart > APART * wanted.spacing.min():
        raise BadInput(
            f"{file}: its affine ({_grid(geometry)}) puts voxels up to {apart:.3g} mm away from those of {like} "
            f"({_grid(wanted)}); copy the affine of the image if the voxels correspond, else resample the file"
        )
    return label, turned


def declared(label: np.ndarray, values: dict, structures: dict, file: str, cell: dict) -> np.ndarray:
    """`label` with its values replaced as `values` (theirs: ours) says; 0 stays 0 unless it is listed.

    Raises BadInput for a value that no structure declares, or that `values`, where given, does not list.
    """
    values = {int(theirs): ours for theirs, ours in values.items()}
    ours = {0, *(v for value in structures.values() for v in (value if isinstance(value, list) else [value]))}
    accepted = {0, *values} if values else ours
    found, counts = np.unique(label, return_counts=True)
    if strange := {int(v): int(n) for v, n in zip(found, counts, strict=True) if int(v) not in accepted}:
        listed = ", ".join(f"{v} ({n} voxels)" for v, n in list(strange.items())[:8])
        known = f"`labels` lists {sorted(accepted)}" if values else f"the structures declare {sorted(ours)}"
        example = f"{next(iter(strange))}: {max(ours)}"
        raise BadInput(
            f"{file}: label values {listed}, but {known}; say what theirs mean with external: {cell['method']}: "
            f"{{labels: {{{example}, …}}}}, every one of them, and 0 for background"
        )
    result = np.zeros(label.shape, np.int32)
    for value in found:
        result[label == value] = values.get(int(value), int(value))
    return result


def seen_in_training(settings: dict, splits: dict, fold: int, tested: list[Case]) -> tuple[str, list[str]]:
    """Return (what is known of the patients that the method has seen, problems).

    Known is only what a splits file says: nnU-Net's list of {"train", "val"} of cases, or {"folds": [{"train",
    "validation", "test"}]}, of cases or patients, as ours. Without {fold} in the path, a case was predicted by the
    folds of that file which do not train on it.
    """
    file = settings["splits"]
    if not file:
        return "not verified: no splits file says which patients the method was trained on", []
    if not Path(file).is_file():
        return "not verified", [f"splits: {file} does not exist (seen from {Path.cwd()}); correct `splits`"]
    try:
        theirs = _folds(read_json(file), file)
    except ValueError as error:
        return "not verified", [f"splits: {error}"]
    if settings["per_fold"] and fold >= len(theirs):
        return "not verified", [f"splits: {file} has {len(theirs)} folds and no fold {fold}; name the right file"]

    patient_of = {case: patient for patient, cases in splits["cases"].items() for case in cases}
    patient_of |= {patient: patient for patient in splits["cases"]}
    unit = {patient: group[0] for group in splits["groups"] for patient in group}
    leaked, seen = [], set()
    for case in tested:
        names = {case.case, case.patient}
        of_case = [theirs[fold]] if settings["per_fold"] else [f for f in theirs if f["tests"] & names] or theirs
        trained = set().union(*(f["trains"] for f in of_case))
        seen |= trained
        units = {unit.get(patient_of[name], patient_of[name]) for name in trained & patient_of.keys()}
        if unit.get(case.patient, case.patient) in units:
            leaked.append(case.case)
    strangers = sorted(seen - patient_of.keys())
    if len(strangers) == len(seen):
        return "not verified", [
            f"splits: {file} trains on {some(strangers)}, none of which is a case or patient of this dataset "
            f"({some(sorted(patient_of))}); name the splits of this dataset"
        ]
    if leaked:
        return "not verified", [
            f"splits: {file} says that the method was trained on {len(leaked)} of the {len(tested)} cases that fold "
            f"{fold} tests ({some(leaked, 20)}); train it with our folds (snakemake export_nnunet writes them)"
        ]
    if strangers:
        return f"not verified: {file} also trains on {some(strangers)}, which this dataset does not know", []
    if not settings["per_fold"]:
        return f"verified: by {file}, the fold that predicts a case does not train on its patient", []
    patients = {patient_of[name] for name in seen}
    same = "the fold's own" if patients == set(splits["folds"][fold]["train"]) else "other than the fold's own"
    return f"verified: by {file}, {len(patients)} training patients, {same}, none of them tested", []


def _folds(content: object, file: str) -> list[dict[str, set[str]]]:
    """Of each fold, the names that it trains on and those that it tests; all but tested ones count as trained on."""
    folds = content["folds"] if isinstance(content, dict) and "folds" in content else content
    if not isinstance(folds, list) or not folds or not all(isinstance(f, dict) and "train" in f for f in folds):
        raise BadInput(
            f'{file} is no list of folds; write [{{"train": [cases], "val": [cases]}}, …] as nnU-Net, or '
            '{"folds": [{"train": [patients], "test": [patients]}, …]}'
        )
    tests = "test" if any("test" in fold for fold in folds) else "val"
    trains = [key for key in ("train", "validation", "val") if key != tests]
    return [
        {
            "tests": set(map(str, fold.get(tests, []))),
            "trains": {str(name) for key in trains for name in fold.get(key, [])},
        }
        for fold in folds
    ]


def _grid(geometry: Geometry) -> str:
    sides = " × ".join(f"{side:.3g}" for side in geometry.spacing)
    return f"shape {geometry.shape}" + (f" at {sides} mm" if geometry.unit == "mm" else "")
