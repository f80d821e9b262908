"""A dataset as nnU-Net wants it, with our folds; what it then predicts comes back as an external method."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from lib.data import nifti
from lib.data.cases import Case, load_image, load_label
from lib.data.formats import Geometry
from lib.data.split import cases_of
from lib.data.structures import Classes, classes_of
from lib.errors import BadInput
from lib.files import atomic, write_json

# What nnU-Net reads from a channel's name: how to normalise it.
NORMALISATION = {"ct": "CT", "none": "noNorm"}


def write_nnunet(cases: list[Case], splits: dict, folder: str | Path, block: dict) -> None:
    """Write nnU-Net's raw dataset `folder`, complete or not at all: images, labels, dataset.json, splits_final.json.

    `block`: structures, palette, ignore and preprocess of the dataset. Images in a .nii.gz file of one channel are
    linked, others written as one such file per channel. Label maps hold the numbers of `classes_of`, because nnU-Net
    wants consecutive ones, and the next number where there is no reference. Fold f trains on the training patients of
    our fold f and validates on its *test* patients, so that what nnU-Net writes as fold_f/validation are predictions
    of our test cases; our validation patients take no part. `external.yaml` is the entry that brings them back.
    """
    classes, folder = classes_of(block["structures"]), Path(folder)
    channels: set[tuple[str, ...]] = set()
    with atomic(folder) as temporary:
        for part in ("imagesTr", "labelsTr"):
            (temporary / part).mkdir(parents=True)
        for case in cases:
            channels.add(_write_images(case, block["preprocess"]["colour"], temporary / "imagesTr"))
            _write_label(case, classes, block, temporary / "labelsTr" / f"{case.case}.nii.gz")
        if len(channels) > 1:
            found = " and ".join(", ".join(names) for names in sorted(channels))
            raise BadInput(f"nnU-Net wants the same channels in every case; here are {found}; set preprocess.colour")
        (names,) = channels
        how = NORMALISATION.get(block["preprocess"]["intensity"])
        write_json(
            temporary / "dataset.json",
            {
                "channel_names": {str(at): how or name for at, name in enumerate(names)},
                **_labels(classes, block),
                "numTraining": len(cases),
                "file_ending": ".nii.gz",
            },
        )
        folds = range(len(splits["folds"]))
        parts = [{"train": cases_of(splits, f, "train"), "val": cases_of(splits, f, "test")} for f in folds]
        write_json(temporary / "splits_final.json", parts)
        (temporary / "external.yaml").write_text(_entry(folder.name, classes))


def _write_images(case: Case, colour: str | None, folder: Path) -> tuple[str, ...]:
    """The channels of a case as {case}_0000.nii.gz, …; returns their names."""
    image, geometry = load_image(case, colour)
    files = list(case.images.values())
    if len(files) == len(image) and all(file.endswith(".nii.gz") for file in files):
        for at, file in enumerate(files):
            (folder / f"{case.case}_{at:04d}.nii.gz").symlink_to(Path(file).resolve())
    else:
        for at, channel in enumerate(image):
            _write(folder / f"{case.case}_{at:04d}.nii.gz", channel, geometry)
    if len(image) == len(files):
        return tuple(case.images)
    return ("red", "green", "blue") if len(image) == 3 else tuple(f"channel_{at}" for at in range(len(image)))


def _write_label(case: Case, classes: Classes, block: dict, path: Path) -> None:
    label, geometry = load_label(case, block["structures"], block["palette"])
    numbers = np.zeros(label.shape, np.uint8)
    for number, values in enumerate(classes.values):
        numbers[np.isin(label, values)] = number
    numbers[np.isin(label, block["ignore"])] = len(classes.names)
    like = next(iter(case.images.values()))
    if like.endswith((".nii", ".nii.gz")):
        nifti.write(path, numbers, like)  # affine and codes of the image: nnU-Net compares them
    else:
        _write(path, numbers, geometry)


def _write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    nib.save(nib.Nifti1Image(array, geometry.affine), path)


def _labels(classes: Classes, block: dict) -> dict:
    """`labels` of dataset.json and, of regions, the class that nnU-Net writes for each."""
    ignored = {"ignore": len(classes.names)} if block["ignore"] else {}
    if not classes.regions:
        return {"labels": {name: number for number, name in enumerate(classes.names)} | ignored}
    regions = dict(zip(block["structures"], classes.regions, strict=True))
    later = [{c for region in classes.regions[at + 1 :] for c in region} for at in range(len(regions))]
    order = [min(set(own) - after) for own, after in zip(classes.regions, later, strict=True)]
    return {"labels": {"background": 0, **regions, **ignored}, "regions_class_order": order}


def _entry(name: str, classes: Classes) -> str:
    """The `external` entry for what nnU-Net predicts, if its three folders lie side by side as in docs/external.md."""
    root = "results/nnunet"
    entry = {
        "path": f"{root}/nnUNet_results/{name}/nnUNetTrainer__nnUNetPlans__2d/fold_{{fold}}/validation",
        "file": "{case}.nii.gz",
        "splits": f"{root}/nnUNet_preprocessed/{name}/splits_final.json",
    }
    values = {number: own[0] for number, own in enumerate(classes.values)}
    if any(number != value for number, value in values.items()):
        entry["labels"] = values
    head = "# Trainer, plans and configuration as you trained; the other way round, see docs/external.md\n"
    return head + yaml.safe_dump({"external": {"nnunet_v2": entry}}, sort_keys=False)
