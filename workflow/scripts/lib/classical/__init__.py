"""Methods that train no network: thresholds, clusters, coupled denoising and segmentation, atlases (docs/classical.md).

One file per family, found by name. `build({"name": "otsu", "levels": 4})` returns a method that learns what little it
learns from the training patients of a fold and then segments case by case, deterministically. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lib.errors import BadInput
from lib.registry import Registry

CLASSICAL = Registry("lib.classical")

# Called with a name and a function: its array, from disk where an interrupted run has computed it before.
Remember = Callable[[str, Callable[[], np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A case as networks see it too: on the grid of the store, intensities preprocessed.

    image: (C, *S) float32. label: (*S) uint8 class indices or IGNORE, None for a test case. spacing: per axis of *S.
    slices: whether *S is a stack of slices along its first axis, to be treated one by one.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, ...]
    slices: bool


class ClassicalMethod(Protocol):
    def fit(self, training: Sequence[Subject], classes: int, remember: Remember) -> dict:
        """Learn from the training patients; returns what was learned, JSON-able, for the record.

        `classes` counts the background. Results that take long per case go through `remember`.
        """

    def segment(self, subject: Subject) -> np.ndarray:
        """Class indices (*S) uint8 of a case, whose label is not looked at."""


def build(recipe: dict) -> ClassicalMethod:
    """The method of a recipe {"name": …, parameter: value, …}; raises BadInput for unknown names and bad values."""
    CLASSICAL.check(recipe, ())
    return CLASSICAL.get(recipe["name"])(**{key: value for key, value in recipe.items() if key != "name"})


@contextmanager
def about(subject: Subject) -> Iterator[None]:
    """Faults found inside name the case."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"case '{subject.name}': {error}") from None
