"""Episodes: small segmentation problems of a support with labels and a query, drawn from training patients.

Slices are brought to one size, as in SSL-ALPNet: images linearly, labels by the nearest pixel.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.data.store import IGNORE, Store
from lib.errors import BadInput
from lib.training.augment import augment_batch, complete_settings

# Of superpixels, as in SSL-ALPNet's code (Felzenszwalb & Huttenlocher 2004): at least 400 of 256 x 256 pixels.
SUPERPIXEL_SHARE, SUPERPIXEL_SIGMA = 400 / 256**2, 0.8
ATTEMPTS = 100  # slices that are tried for a superpixel
# How the query of a superpixel differs from its support: always moved and bent, with another contrast.
MOVED = {name: {"probability": 1.0} for name in ("affine", "elastic", "gamma")}


@dataclass(frozen=True)
class Labelled:
    """Slices and their labels."""

    image: Tensor  # (N, C, H, W) float32
    label: Tensor  # (N, H, W) int64: 0, 1…way, or IGNORE
    seen: Tensor  # (N, H, W) int64: 0, 1…number of seen structures, or IGNORE
    spacing: Tensor  # (N, 2) float64, mm per pixel, on the CPU
    slices: tuple[tuple[str, int], ...]  # case and slice of each

    def to(self, device: torch.device) -> Labelled:
        image, label, seen = (tensor.to(device) for tensor in (self.image, self.label, self.seen))
        return Labelled(image, label, seen, self.spacing, self.slices)


@dataclass(frozen=True)
class Episode:
    """A problem: segment the query, given the support."""

    support: Labelled
    query: Labelled

    def to(self, device: torch.device) -> Episode:
        return Episode(self.support.to(device), self.query.to(device))


class Slices:
    """The slices of some cases at one size (H, W), and which structures are on them.

    store: of slices (spatial_dims 2). part: whose view of the cases. names: of all structures. Raises BadInput for a
    store of volumes.
    """

    def __init__(self, store: Store, cases: Iterable[str], part: str, size: list[int], names: list[str]):
        if store.meta["spatial_dims"] != 2:
            raise BadInput(
                f"few-shot methods segment slices, and dataset '{store.meta['dataset']}' is one of volumes; set its "
                "preprocess: slices."
            )
        self.store, self.part, self.size, self.names = store, part, size, names
        self.members = store.meta["regions"] or [[c] for c in range(1, len(store.meta["classes"]))]  # classes of each
        self.patients = {case: store.patients[case] for case in sorted(cases)}
        self.on = {case: self._structures_on(case) for case in self.patients}  # (structures, D) bool

    def _structures_on(self, case: str) -> np.ndarray:
        label = self.store.label(case, self.part)
        return np.stack([np.isin(label, members).any((1, 2)) for members in self.members])

    def image(self, case: str, position: int | slice) -> Tensor:
        """(N, C, H, W) of a slice or several."""
        position = slice(position, position + 1) if isinstance(position, int) else position
        image = torch.from_numpy(np.array(self.store.image(case, self.part)[:, position])).movedim(1, 0)
        return to_size(image, self.size)

    def masks(self, case: str, position: int, structures: Iterable[int]) -> Tensor:
        """(H, W) int64: 1, 2… for the structures, in this order; later ones on top where they overlap; or IGNORE."""
        stored = np.array(self.store.label(case, self.part)[position])
        label = np.zeros(stored.shape, np.float32)
        for number, structure in enumerate(structures, start=1):
            label[np.isin(stored, self.members[structure])] = number
        label[stored == IGNORE] = IGNORE
        return F.interpolate(torch.from_numpy(label)[None, None], self.size, mode="nearest-exact")[0, 0].long()

    def spacing(self, case: str) -> list[float]:
        """mm per pixel at the common size."""
        entry = self.store.meta["cases"][case]
        sides = (step * pixels for step, pixels in zip(entry["spacing"][1:], entry["shape"][1:], strict=True))
        return [side / pixels for side, pixels in zip(sides, self.size, strict=True)]

    def labelled(self, chosen: list[tuple[str, int]], structures: list[int], seen: list[int]) -> Labelled:
        """Some slices with labels of `structures`."""
        return Labelled(
            torch.cat([self.image(*place) for place in chosen]),
            torch.stack([self.masks(*place, structures) for place in chosen]),
            torch.stack([self.masks(*place, seen) for place in chosen]),
            torch.tensor([self.spacing(case) for case, _ in chosen], dtype=torch.float64),
            tuple(chosen),
        )


def to_size(image: Tensor, size: list[int]) -> Tensor:
    """Slices (N, C, H, W) at another size, smoothed where it is smaller."""
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def at_relative(positions: np.ndarray, share: float) -> int:
    """Of increasing slice positions, the one nearest to the share of the way from the first to the last."""
    wanted = positions[0] + share * (positions[-1] - positions[0])
    return int(positions[np.abs(positions - wanted).argmin()])


class StructureEpisodes:
    """Episodes about structures that have labels: `shots` slices and a query, each of another patient.

    All slices of an episode lie at the same relative height of the structure. In setting 1 held-out structures may be
    on them, unlabelled; in setting 2 a slice with one is not used. Raises BadInput where too few patients are left.
    """

    def __init__(self, slices: Slices, held_out: list[int], way: int, shots: int, setting: int, augment: dict | None):
        self.slices, self.shots, self.way, self.augment = slices, shots, way, augment
        self.seen = [s for s in range(len(slices.members)) if s not in held_out]
        self.usable = {
            case: ~on[held_out].any(0) if setting == 2 else np.ones(on.shape[1], bool) for case, on in slices.on.items()
        }
        for structure in self.seen:
            _enough(self.places([structure]), shots + 1, f"structure {slices.names[structure]}", setting)
        places = {some: self.places(list(some)) for some in itertools.combinations(self.seen, way)}
        # Of several structures, few patients may have all on one slice.
        self.problems = {some: found for some, found in places.items() if len(found) > shots}
        if not self.problems:
            _enough({}, shots + 1, f"way: {way} structures on one slice", setting)

    def places(self, structures: list[int]) -> dict[str, dict[str, np.ndarray]]:
        """Per patient and case, the usable slices with all of the structures."""
        found: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        for case, patient in self.slices.patients.items():
            positions = np.flatnonzero(self.slices.on[case][structures].all(0) & self.usable[case])
            if len(positions):
                found[patient][case] = positions
        return found

    def draw(self, generator: torch.Generator) -> Episode:
        which = torch.randint(len(self.problems), (), generator=generator)
        some, places = list(self.problems.items())[which]
        structures = [some[i] for i in torch.randperm(self.way, generator=generator)]
        share = torch.rand((), generator=generator).item()
        chosen = []
        for number in torch.randperm(len(places), generator=generator)[: self.shots + 1]:
            cases = list(places.values())[number]
            case = list(cases)[torch.randint(len(cases), (), generator=generator)]
            chosen.append((case, at_relative(cases[case], share)))
        parts = [self.slices.labelled(some, structures, self.seen) for some in (chosen[:-1], chosen[-1:])]
        if self.augment:
            parts = [augmented(part, self.augment, generator) for part in parts]
        return Episode(*parts)


class SuperpixelEpisodes:
    """Episodes without labels (Ouyang 2020): a superpixel is the structure; the query is the slice itself, transformed.

    The support has `shots` copies, the first one unchanged. Superpixels are those of Felzenszwalb and Huttenlocher
    2004; those that mostly show the slice's lowest intensity, the empty background, are not used. Setting: as in
    `StructureEpisodes`.
    """

    def __init__(self, slices: Slices, held_out: list[int], shots: int, setting: int):
        self.slices, self.shots = slices, shots
        self.moved = complete_settings(MOVED)
        self.places = [
            (case, int(position))
            for case, on in slices.on.items()
            for position in np.flatnonzero(~on[held_out].any(0) if setting == 2 else np.ones(on.shape[1], bool))
            if slices.image(case, int(position)).std() > 0
        ]
        if not self.places:
            _enough({}, 1, "slice", setting)
        self.superpixels = lru_cache(maxsize=10_000)(self._superpixels)

    def _superpixels(self, place: tuple[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """The numbered superpixels (H, W), and the numbers of those that may be structures."""
        from skimage.segmentation import felzenszwalb

        image = self.slices.image(*place)[0].numpy()
        low, high = image.min(), image.max()
        least = max(1, round(SUPERPIXEL_SHARE * image[0].size))
        scaled = np.moveaxis((image - low) / (high - low), 0, -1)
        numbers = felzenszwalb(scaled, scale=1, sigma=SUPERPIXEL_SIGMA, min_size=least)
        lowest = np.bincount(numbers.ravel(), weights=(image[0] == image[0].min()).ravel())
        return numbers, np.flatnonzero(lowest < 0.5 * np.bincount(numbers.ravel()))

    def draw(self, generator: torch.Generator) -> Episode:
        for number in torch.randint(len(self.places), (ATTEMPTS,), generator=generator):
            place = self.places[number]
            numbers, structures = self.superpixels(place)
            if len(structures):
                break
        else:
            raise BadInput("tasks: superpixels found none but empty background on the training slices; use structures.")
        number = structures[torch.randint(len(structures), (), generator=generator)]
        image, label = self.slices.image(*place), torch.from_numpy(numbers == number).long()[None]
        spacing = torch.tensor([self.slices.spacing(place[0])], dtype=torch.float64)
        one = Labelled(image, label, label, spacing, (place,))
        support = [one, *(augmented(one, self.moved, generator) for _ in range(self.shots - 1))]
        return Episode(joined(support), augmented(one, self.moved, generator))


def augmented(part: Labelled, settings: dict, generator: torch.Generator) -> Labelled:
    """The slices transformed one by one, each with both of its labels."""
    both = part.label + (IGNORE + 1) * part.seen  # one label, so that both move alike
    image, both = augment_batch(part.image, both, part.spacing, settings, generator)
    return Labelled(image, both % (IGNORE + 1), both // (IGNORE + 1), part.spacing, part.slices)


def joined(parts: list[Labelled]) -> Labelled:
    """The slices of several."""
    tensors = (torch.cat([getattr(part, key) for part in parts]) for key in ("image", "label", "seen", "spacing"))
    return Labelled(*tensors, tuple(place for part in parts for place in part.slices))


@dataclass(frozen=True)
class Chunk:
    """A part of the height of a structure, and the labelled slices for it."""

    low: float  # share of the height of the image
    high: float
    support: Labelled


def support_of(
    slices: Slices, structures: list[int], shots: int, chunks: int, generator: torch.Generator
) -> list[Chunk]:
    """The labelled cases of a test, from training patients, and the slices that each part of a test image is shown.

    `shots` patients that have the structures are drawn (of a larger number, the smaller one's are the first). In each,
    the range of slices with a structure is divided into `chunks`, whose middle slices are labelled. A test image is
    divided likewise, where its structures are to be expected: between the means of the relative heights at which the
    ranges of the support begin and end; slices outside are background. So the labels of a test image have no part in
    where it is segmented, other than in Ouyang 2020.
    """
    of_patient: dict[str, list[str]] = defaultdict(list)
    for case, patient in slices.patients.items():
        if slices.on[case][structures].any():
            of_patient[patient].append(case)
    names = ", ".join(slices.names[s] for s in structures)
    _enough(of_patient, shots, f"labels of {names}", 1)
    patients = [sorted(of_patient)[i] for i in torch.randperm(len(of_patient), generator=generator)[:shots]]
    cases = [of_patient[patient][0] for patient in patients]
    positions = [np.flatnonzero(slices.on[case][structures].any(0)) for case in cases]
    depths = [slices.on[case].shape[1] for case in cases]
    begin = float(np.mean([where[0] / depth for where, depth in zip(positions, depths, strict=True)]))
    end = float(np.mean([(where[-1] + 1) / depth for where, depth in zip(positions, depths, strict=True)]))
    found = []
    for chunk in range(chunks):
        middle = (chunk + 0.5) / chunks
        chosen = [(case, at_relative(where, middle)) for case, where in zip(cases, positions, strict=True)]
        bounds = (begin + (end - begin) * at / chunks for at in (chunk, chunk + 1))
        found.append(Chunk(*bounds, slices.labelled(chosen, structures, [])))
    return found


def _enough(patients: dict, needed: int, what: str, setting: int) -> None:
    if len(patients) >= needed:
        return
    text = " once slices with held-out structures are taken away (setting: 2)" if setting == 2 else ""
    raise BadInput(
        f"few-shot: {len(patients)} training patients have {what}{text}, but {needed} are needed; use fewer shots, "
        f"more patients{', or setting: 1' if setting == 2 else ''}."
    )
