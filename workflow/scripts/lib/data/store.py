"""The preprocessed arrays of a dataset, as trainings share them; kept apart from their making, so it imports little."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.files import read_json


@dataclass(frozen=True)
class Store:
    """A preprocessed dataset: `meta` is store.json; arrays are memory-mapped, read-only."""

    folder: Path
    meta: dict

    def image(self, case: str) -> np.ndarray:
        """(channels, *S) float32"""
        return np.load(self.folder / f"{case}.image.npy", mmap_mode="r")

    def label(self, case: str) -> np.ndarray:
        """(*S) uint8 class indices"""
        return np.load(self.folder / f"{case}.label.npy", mmap_mode="r")

    @property
    def patients(self) -> dict[str, str]:
        """The patient of each case, as `verify_splits` takes them."""
        return {case: entry["patient"] for case, entry in self.meta["cases"].items()}


def open_store(folder: str | Path) -> Store:
    """Open a folder that `preprocess_cases` wrote."""
    return Store(Path(folder), read_json(Path(folder) / "store.json"))
