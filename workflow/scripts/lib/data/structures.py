"""What a network learns of the declared structures: one class each, or, where they overlap, one output each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.errors import BadInput


@dataclass(frozen=True)
class Classes:
    """names, values: of each class, background first; values are those of the files that mean it.

    regions: None where structures are disjoint (class i + 1 is structure i); else, for each structure, the classes
    whose union it is. The classes are then the parts into which the structures cut one another.
    """

    names: list[str]
    values: list[list[int]]
    regions: list[list[int]] | None


def classes_of(structures: dict[str, int | list[int]]) -> Classes:
    """The classes of structures {name: label value or values}; raises BadInput for a region that could not be written.

    Predicted regions become one label map (`label_of_regions`), so each needs a value of its own once all later
    regions are taken away: larger regions come first.
    """
    members = {name: value if isinstance(value, list) else [value] for name, value in structures.items()}
    owners: dict[int, list[str]] = {}
    for name, values in members.items():
        for value in values:
            owners.setdefault(value, []).append(name)
    if all(len(names) == 1 for names in owners.values()):
        return Classes(["background", *members], [[0], *members.values()], None)
    parts: dict[tuple[str, ...], list[int]] = {}
    for value, names in owners.items():
        parts.setdefault(tuple(names), []).append(value)
    keys = sorted(parts, key=lambda names: parts[names][0])
    regions = [[1 + at for at, names in enumerate(keys) if name in names] for name in members]
    classes = Classes(["background", *("+".join(k) for k in keys)], [[0], *(parts[k] for k in keys)], regions)
    for number, name in enumerate(members):
        if not set(regions[number]) - {part for later in regions[number + 1 :] for part in later}:
            raise BadInput(
                f"structures.{name}: all its values {members[name]} belong to later structures too, so a prediction "
                "of it could not be written as a label map; list larger regions first, as in whole, core, enhancing"
            )
    return classes


def label_of_regions(inside: np.ndarray, regions: list[list[int]]) -> np.ndarray:
    """Classes (*S) uint8 from the predicted regions `inside` (R, *S) bool.

    A voxel becomes the class that lies in exactly the predicted regions. Where none does (the core outside the whole),
    the last of its regions in the declared order decides: the first class that belongs to it and to no later one.
    """
    count = len(regions)
    memberships = {c: tuple(c in region for region in regions) for region in regions for c in region}
    table = np.zeros(2**count, np.uint8)
    for bits in range(1, 2**count):
        wanted = tuple(bool(bits >> r & 1) for r in range(count))
        exact = [c for c, own in sorted(memberships.items()) if own == wanted]
        last = max(r for r in range(count) if wanted[r])
        later = {c for region in regions[last + 1 :] for c in region}
        table[bits] = exact[0] if exact else min(set(regions[last]) - later)
    return table[np.tensordot(2 ** np.arange(count), inside.astype(np.int64), 1)]
