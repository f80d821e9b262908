"""The preprocessed arrays of a dataset, as trainings share them; kept apart from their making, so it imports little."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.files import read_json

IGNORE = 255  # label of voxels without a reference: no loss, no score


@dataclass(frozen=True)
class Store:
    """A preprocessed dataset: `meta` is store.json; arrays are memory-mapped, read-only.

    `part` is train, validation or test. A condition may change what a training sees of a case (train, validation) and
    what is predicted (test); without one the parts are the same files.
    """

    folder: Path
    meta: dict

    def image(self, case: str, part: str = "train") -> np.ndarray:
        """(channels, *S) float32"""
        return self._open(case, "image", part)

    def label(self, case: str, part: str = "train") -> np.ndarray:
        """(*S) uint8 class indices, or IGNORE; only `train` and `validation`, for test labels reach evaluation alone"""
        if part == "test":
            raise ValueError("the store has no test labels; evaluation reads those of the files")
        return self._open(case, "label", part)

    @property
    def outputs(self) -> int:
        """Channels of a network's logits: the classes, or one per region where structures overlap."""
        return len(self.meta["regions"] or self.meta["classes"])

    @property
    def patients(self) -> dict[str, str]:
        """The patient of each case, as `verify_splits` takes them."""
        return {case: entry["patient"] for case, entry in self.meta["cases"].items()}

    def _open(self, case: str, kind: str, part: str) -> np.ndarray:
        own = self.folder / f"{case}.{kind}.test.npy"
        return np.load(own if part == "test" and own.exists() else self.folder / f"{case}.{kind}.npy", mmap_mode="r")


def open_store(folder: str | Path) -> Store:
    """Open a folder that `preprocess_cases` wrote."""
    return Store(Path(folder), read_json(Path(folder) / "store.json"))
