"""A store of a few small synthetic cases, and jobs on it, for the tests of training and inference."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from lib.files import write_json
from lib.provenance import value_hash

SPLITS = {
    "folds": [
        {"train": ["p0", "p1", "p2"], "validation": ["p3"], "test": ["p4"]},
        {"train": ["p1", "p2", "p3"], "validation": ["p4"], "test": ["p0"]},
    ],
    "cases": {f"p{i}": [f"p{i}_a"] for i in range(5)},
    "groups": [],
    "settings": {"seed": 0},
}
PROTOCOL = {
    "iterations": 24, "batch": 2, "patch": [32, 32], "optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2,
    "momentum": 0.9, "schedule": "polynomial", "warmup": 4, "clip": 12.0, "precision": "float32", "threads": 1,
    "foreground": 0.5, "validate_every": 8, "score": "last", "checkpoint_minutes": 10.0, "augment": {},
}  # fmt: skip


@pytest.fixture(autouse=True)
def restore_torch():
    """train_cell and predict_cell own their process; give the test process its settings back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = True


def tiny_case(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright ball (class 1) and a dark box (class 2); image (1,*S) float32, label (*S) uint8."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    label = np.zeros(shape, np.uint8)
    corner = [rng.integers(0, n // 2) for n in shape]
    box = tuple(slice(c, c + n // 3 + 1) for c, n in zip(corner, shape, strict=True))
    label[box] = 2
    centre = [rng.uniform(0.35, 0.65) * n for n in shape]
    ball = sum(((a - c) / (0.25 * n)) ** 2 for a, c, n in zip(axes, centre, shape, strict=True)) < 1
    label[ball] = 1
    image = np.array([0.0, 2.0, -2.0])[label] + rng.normal(0, 0.5, shape)
    return image[None].astype(np.float32), label


def tiny_store(folder: Path, spatial_dims: int = 2, shape: tuple[int, int, int] = (6, 40, 36)) -> None:
    """Write store/, splits.json, index.csv and the NIfTI files that the store was "preprocessed" from.

    The files have the stored axes in another order, (y, x, slice) with x flipped, and label values 0, 10, 20.
    """
    (folder / "store").mkdir(parents=True)
    (folder / "raw").mkdir()
    cases, lines = {}, ["case,patient,image:image,label:label"]
    for i in range(5):
        case = f"p{i}_a"
        image, label = tiny_case(i, shape)
        np.save(folder / f"store/{case}.image.npy", image)
        np.save(folder / f"store/{case}.label.npy", label)
        spacing = [3.0, 1.0, 1.0]
        # File axes (x, y, slice) = RAS axes 0, 1, 2; stored order is slice, x, y.
        for name, array in (("image", image[0]), ("label", np.array([0, 10, 20], np.uint8)[label])):
            file = nib.Nifti1Image(np.transpose(array, (1, 2, 0)), np.diag([1.0, 1.0, 3.0, 1.0]))
            nib.save(file, folder / f"raw/{case}.{name}.nii.gz")
        lines.append(f"{case},p{i},{folder}/raw/{case}.image.nii.gz,{folder}/raw/{case}.label.nii.gz")
        file_shape = [shape[1], shape[2], shape[0]]
        cases[case] = {
            "patient": f"p{i}",
            "shape": list(shape),
            "spacing": spacing,
            "voxels": np.bincount(label.ravel(), minlength=3).tolist(),
            "sha256": hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest(),
            "geometry": {
                "shape": file_shape,
                "orientation": [[0, 1], [1, 1], [2, 1]],
                "crop": [[0, n] for n in file_shape],
                "axes": [2, 0, 1],
                "stored": list(shape),
            },
        }
    meta = {
        "dataset": "tiny", "condition": "clean", "classes": ["background", "ball", "box"], "values": [0, 10, 20],
        "regions": None, "condition_settings": {}, "channels": 1, "spatial_dims": spatial_dims, "slice_axis": 0 if spatial_dims == 2 else None, "cases": cases,
    }  # fmt: skip
    write_json(folder / "store/store.json", meta)
    write_json(folder / "splits.json", SPLITS)
    write_json(folder / "certificate.json", {"sound": True, "splits_hash": value_hash(SPLITS)})
    (folder / "index.csv").write_text("\n".join(lines) + "\n")


def tiny_job(folder: Path, output: str = "training", **protocol) -> dict:
    """A job for train_cell; keyword arguments replace keys of the protocol."""
    return {
        "cell": {
            "dataset": "tiny", "condition": "clean", "protocol": "test", "architecture": "shallow", "loss": "wce",
            "fold": 0, "seed": 0,
        },
        "model": {"name": "shallow_segnet", "stages": 2, "width": 4},
        "loss": {"name": "cross_entropy", "weights": "median_frequency"},
        "protocol": PROTOCOL | protocol,
        "store": str(folder / "store"),
        "splits": str(folder / "splits.json"),
        "certificate": str(folder / "certificate.json"),
        "output": str(folder / output),
        "checkpoints": str(folder / f"{output}_checkpoints"),
        "tensorboard": str(folder / f"{output}_tensorboard"),
        "code": "0",
        "threads": 1,
    }  # fmt: skip
