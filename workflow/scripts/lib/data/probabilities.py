"""Files of the probabilities that a network gives to the structures of a case, beside its label map."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lib.files import atomic

SUFFIX = ".probabilities.npz"  # nnU-Net's {case}.npz has other axes and classes
STEPS = 2048  # probabilities are multiples of 1/2048, which float16 holds exactly, so that certain voxels compress


def write_probabilities(path: str | Path, structures: Iterable[str], probabilities: Iterable[np.ndarray]) -> None:
    """Write, as NPZ with one array per structure, probabilities (X, Y, Z) as float16, one structure at a time."""
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, probability in zip(structures, probabilities, strict=True):
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, (np.rint(probability * STEPS) / STEPS).astype(np.float16))


def read_probabilities(path: str | Path) -> np.lib.npyio.NpzFile:
    """Open such a file: a mapping from structure to array, each read when it is asked for."""
    return np.load(path, allow_pickle=False)
