"""The health of a dataset, before anything is trained: all problems at once, each with its file."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter, defaultdict
from dataclasses import asdict

import nibabel as nib
import numpy as np

from lib.data.cases import Case, load_image, load_label, load_mask, require_same_grid
from lib.data.duplicates import groups, near_duplicates, signature
from lib.data.structures import classes_of
from lib.errors import BadInput
from lib.provenance import value_hash

LISTED = 3  # problems of one kind in a message
HASHED = ("case", "patient", "shape", "image_sha256", "label_sha256", "mask_sha256", "affine")

MOST_PAIRS = 5  # of near duplicates per case; where there are more, the threshold tells nothing apart


def check_cases(cases: list[Case], block: dict, dataset: str) -> dict:
    """Read every image and label map of `cases` and return what check.json holds; `require_sound` judges it.

    block: the dataset's source, structures, palette, ignore, preprocess.colour and check. Per case that could be read:
    its files, patient and fields; shape, spacing, unit and orientation of the file's axes; channels; voxels per label
    value; range and mean of each channel; SHA-256 of the decoded voxels. Over all: problems, warnings, dropped cases
    with reasons, near duplicates, groups of patients that share them, data_hash. Problems, each with its file, are:
    files that cannot be read; image, label and mask on different grids; an empty mask; NaN or infinity; a constant
    image; labels that are not whole numbers or are not declared; a label map that is all background (empty masks of
    structures are no fault: they say that it is absent); an unusual number of channels; a declared structure that no
    case has; one image under two patients. With `check.on_error: drop` the cases at fault are left out instead.
    """
    structures, settings = block["structures"], block["check"]
    classes_of(structures)  # regions that cannot be written
    declared = {name: value if isinstance(value, list) else [value] for name, value in structures.items()}
    allowed = {0, *block["ignore"], *(value for values in declared.values() for value in values)}
    faults: dict[str, list[str]] = defaultdict(list)  # of each case
    undeclared: set[int] = set()
    rows, signatures, started = {}, {}, time.monotonic()
    exempt = "simulate" in block["source"] or settings["near_duplicates"]["threshold"] is None

    for number, case in enumerate(cases, start=1):
        image, label, mask = _read(case, block, faults[case.case])
        if number * 10 // len(cases) > (number - 1) * 10 // len(cases):
            print(f"{number} of {len(cases)} cases read, {time.monotonic() - started:.0f} s", flush=True)
        if label is not None:
            counts = _counts(label[0])
            if strange := sorted(set(counts) - allowed):
                undeclared.update(strange)
                listed = ", ".join(f"{value} ({counts[value]} voxels)" for value in strange)
                faults[case.case].append(f"{_label(case)}: label values that `structures` does not declare: {listed}")
            if set(counts) == {0} and set(case.labels) == {"label"}:  # the mask of one structure may say: none here
                faults[case.case].append(
                    f"{_label(case)}: the label map is empty (all 0); remove the case or restore its labels"
                )
        if image is None or label is None or (mask is None and case.mask):
            continue
        geometry = image[1]
        try:
            require_same_grid(label[1], _label(case), geometry, _image(case))
            if mask is not None:
                require_same_grid(mask[1], case.mask, geometry, _image(case))
                if not mask[0].any():
                    raise BadInput(
                        f"{case.mask}: the mask is empty (all 0), so nothing of the image would mean anything"
                    )
        except BadInput as error:
            faults[case.case].append(str(error))
        intensity = [_intensity(channel) for channel in image[0]]
        faults[case.case] += [f"{_image(case)}: {fault}" for _, fault in intensity if fault]
        if not exempt:
            signatures[case.case] = signature(image[0])
        rows[case.case] = {
            **{key: value for key, value in asdict(case).items() if key != "labels"},
            "label_files": case.labels,
            "shape": list(geometry.shape),
            "spacing": [round(float(side), 6) for side in geometry.spacing],
            "unit": geometry.unit,
            "orientation": "".join(nib.aff2axcodes(geometry.affine)) if geometry.unit == "mm" else "",
            "affine": [float(value) for value in geometry.affine.ravel()],
            "channels": len(image[0]),
            "labels": {str(value): count for value, count in sorted(counts.items())},
            "intensity": [summary for summary, _ in intensity],
            "image_sha256": _digest(image[0]),
            "label_sha256": _digest(label[0]),
            "mask_sha256": _digest(mask[0]) if mask else "",
        }

    warnings = _same_images(rows, faults)
    _unusual_channels(rows, faults)
    faults = {name: reasons for name, reasons in faults.items() if reasons}
    drop = settings["on_error"] == "drop"
    kept = [rows[case.case] for case in cases if case.case in rows and not (drop and case.case in faults)]
    problems = [] if drop else list(dict.fromkeys(fault for reasons in faults.values() for fault in reasons))
    if not kept:
        problems += [f"no case is left; the first fault was {next(iter(faults.values()))[0]}"] * drop
    elif len(kept) == len(cases) or drop:  # every label map was read, so absence is known
        problems += _absent(declared, kept, warnings)
    if kept and settings["near_duplicates"]["action"] == "list" and _pictures_alone(kept):
        warnings.append(
            "each picture counts as a patient of its own. If several show one person, name the person in the pattern "
            "or by files: table; check.near_duplicates.action: group keeps at least pictures together that look alike"
        )
    pairs = [] if exempt else _near(kept, signatures, settings["near_duplicates"])
    if settings["near_duplicates"]["action"] == "stop":
        problems += [
            f"{_first(a)} and {_first(b)}: images of the patients {a['patient']} and {b['patient']} are near "
            f"duplicates (correlation {alike:.3f}); remove one, or set check.near_duplicates.action to group or list"
            for a, b, alike in pairs
        ]
    if len(pairs) > MOST_PAIRS * len(kept):
        problems.append(
            f"{len(pairs)} pairs of images of different patients are near duplicates by check.near_duplicates."
            f"threshold: {settings['near_duplicates']['threshold']}; images of this kind are more alike than that, so "
            "raise it, or write null"
        )
        pairs = pairs[: int(MOST_PAIRS * len(kept))]
    grouped = groups([(a["patient"], b["patient"]) for a, b, _ in pairs])
    return {
        "dataset": dataset,
        "cases": kept,
        "problems": problems,
        "advice": _advice(structures, undeclared, kept) if problems else "",
        "warnings": warnings,
        "dropped": [{"case": name, "reasons": reasons} for name, reasons in faults.items()] if drop else [],
        "near_duplicates": {
            **settings["near_duplicates"],
            "exempt": exempt,
            "pairs": [
                {
                    "cases": [a["case"], b["case"]],
                    "patients": [a["patient"], b["patient"]],
                    "similarity": round(alike, 4),
                }
                for a, b, alike in pairs
            ],
        },
        "groups": grouped if settings["near_duplicates"]["action"] == "group" else {},
        "data_hash": value_hash([[row[key] for key in HASHED] for row in kept]),
    }


def case_hash(row: dict) -> str:
    """Hash of what a row of check.json says of a case's voxels and where they lie."""
    return value_hash([row[key] for key in HASHED])


def require_sound(check: dict, page: str = "") -> None:
    """Raise one BadInput that lists the problems of a dataset, unless there is none; of many alike, the first few.

    `page`: where all of them are, with pictures.
    """
    if problems := check["problems"]:
        text = f"dataset '{check['dataset']}' has {len(problems)} problem{'s' * (len(problems) > 1)}:"
        alike = defaultdict(list)
        for problem in problems:
            alike[re.sub(r"\d+", "", problem.partition(": ")[2])].append(problem)
        for same in alike.values():
            text += "".join(f"\n  - {problem}" for problem in same[:LISTED])
            text += f"\n  - … and {len(same) - LISTED} more like these" * (len(same) > LISTED)
        advice = f"\n{check['advice']}" if check["advice"] else ""
        raise BadInput(text + advice + (f"\nThe page about them: {page}" if page else ""))


def _read(case: Case, block: dict, faults: list[str]) -> list[tuple | None]:
    """(array, geometry) of image, label and mask; None for what is not there or not readable, with a fault."""
    colour = block["preprocess"]["colour"]
    readers = [
        lambda: load_image(case, colour),
        lambda: load_label(case, block["structures"], block["palette"]),
        lambda: load_mask(case),
    ]
    parts = []
    for reader in readers:
        try:
            parts.append(reader())
        except BadInput as error:
            faults.append(str(error))
            parts.append(None)
    return parts


def _same_images(rows: dict[str, dict], faults: dict[str, list[str]]) -> list[str]:
    """Warnings about one image twice under one patient; under two patients it is a fault of all but the first case."""
    warnings, same = [], defaultdict(list)
    for row in rows.values():
        same[row["image_sha256"]].append(row)
    for copies in (copies for copies in same.values() if len(copies) > 1):
        files = " and ".join(_first(row) for row in copies)
        patients = sorted({row["patient"] for row in copies})
        if len(patients) == 1:
            warnings.append(f"{files}: the same image twice, of patient {patients[0]}")
            continue
        for row in copies[1:]:
            faults[row["case"]].append(
                f"{files}: the same image under the patients {', '.join(patients)}, so training would see test data; "
                "remove all but one"
            )
    return warnings


def _unusual_channels(rows: dict[str, dict], faults: dict[str, list[str]]) -> None:
    """Add the fault of having another number of channels than most cases."""
    usual = Counter(row["channels"] for row in rows.values()).most_common(1)
    for row in rows.values():
        if row["channels"] != usual[0][0]:
            faults[row["case"]].append(
                f"{_first(row)}: has {row['channels']} channels, but most images have {usual[0][0]}; a network takes "
                "one number (for grey and colour pictures set preprocess.colour: grey, or rgb)"
            )


def _absent(declared: dict[str, list[int]], sound: list[dict], warnings: list[str]) -> list[str]:
    """Problems: structures that no case has; structures that some cases lack are added to the warnings."""
    problems = []
    for name, values in declared.items():
        lacking = [row["case"] for row in sound if not {int(v) for v in row["labels"]} & set(values)]
        if sound and len(lacking) == len(sound):
            found = ", ".join(sorted({v for row in sound for v in row["labels"]} - {"0"}, key=int)) or "none"
            problems.append(
                f"structures.{name}: no label map has the value {' or '.join(map(str, values))} "
                f"(there are: {found}); correct the value or remove the structure"
            )
        elif lacking:
            warnings.append(f"structure {name} is absent from {_some(lacking)}")
    return problems


def _pictures_alone(cases: list[dict]) -> bool:
    return {row["unit"] for row in cases} == {"px"} and len({row["patient"] for row in cases}) == len(cases)


def _near(sound: list[dict], signatures: dict, settings: dict) -> list[tuple[dict, dict, float]]:
    pairs = near_duplicates(
        [signatures[row["case"]] for row in sound], [row["patient"] for row in sound], settings["threshold"]
    )
    return [(sound[i], sound[j], alike) for i, j, alike in pairs]


def _advice(structures: dict, undeclared: set[int], cases: list[dict]) -> str:
    """`structures` as the label maps have them: with what is undeclared, without what no case has."""
    if not undeclared:
        return ""
    found = {int(value) for row in cases for value in row["labels"]}
    absent = [name for name, values in structures.items() if not found & {*np.atleast_1d(values).tolist()}]
    added = {f"label_{value}".replace("-", "minus_"): value for value in sorted(undeclared)}
    if len(absent) == len(added) == 1:  # one structure, by another value
        added = dict.fromkeys(absent, *undeclared)
    there = {name: value for name, value in structures.items() if name not in absent}
    corrected = ", ".join(f"{name}: {value}" for name, value in {**there, **added}.items())
    return f"If the label maps are right, declare their values:\n    structures: {{{corrected}}}"


def _intensity(image: np.ndarray) -> tuple[dict[str, float], str]:
    """Minimum, maximum and mean of a channel, and what is wrong with it ("" if nothing)."""
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        count = np.count_nonzero(~np.isfinite(image))
        return {}, f"{count} voxels are NaN or infinite; replace them (by 0 outside the body) or remove the case"
    summary = {"min": low, "max": high, "mean": float(image.mean(dtype=np.float64))}
    if low == high:
        return summary, f"the image is constant (every voxel is {low:g}); remove the case or restore its image"
    return summary, ""


def _counts(label: np.ndarray) -> dict[int, int]:
    """Voxels per value that occurs."""
    if label.dtype == np.uint8:
        counts = np.bincount(label.ravel(order="K"))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    return {int(value): int(count) for value, count in zip(*np.unique(label, return_counts=True), strict=True)}


def _digest(array: np.ndarray) -> str:
    """SHA-256 of shape, type and voxels, so that another compression or header does not hide a copy."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array.T))
    return digest.hexdigest()


def _image(case: Case) -> str:
    return next(iter(case.images.values()))


def _label(case: Case) -> str:
    return next(iter(case.labels.values()), f"no label file of {case.case}")


def _first(row: dict) -> str:
    return next(iter(row["images"].values()))


def _some(names: list[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{len(names)} case{'s' * (len(names) > 1)}: {', '.join(names[:count])}{more}"
