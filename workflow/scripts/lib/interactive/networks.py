"""Networks that segment whatever object a box holds: their training on binary instances, and their use on a crop.

Source: Wang et al., BIFSeg, IEEE TMI 37(7) 2018; the paper's text was not at hand (docs/interactive.md says what is
recalled). The loop, its checkpoints, its seeds and its files are those of `lib.training`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.data.store import IGNORE, Store, open_store
from lib.errors import BadInput
from lib.files import read_json, write_json
from lib.inference.device import start_torch
from lib.inference.predict import load_weights
from lib.interactive import Crop
from lib.interactive.instances import (
    Instance,
    binary_label,
    grown,
    instances_of,
    members_of,
    network_shape,
    of_instance,
    resized,
    resized_mask,
    standardised,
)
from lib.losses import build_loss, needs_features
from lib.models import build_model
from lib.training.augment import complete_settings
from lib.training.cost import energy_meter, fingerprint
from lib.training.sampler import TrainingCase
from lib.training.trainer import Progress, Training, build_optimizer, open_fold, train, training_origin

LEAST = 32  # pixels along each axis of what a network sees; a smaller crop is continued by its edge values


def train_network(job: dict) -> dict:
    """Train a network on the instances of the seen structures; returns its costs and identity, as `train_cell` does.

    job: as for `train_cell` (cell, with fold and seed; model; loss; store, splits, certificate, output, checkpoints,
    tensorboard, code, threads), and
    protocol: iterations, optimizer, lr, weight_decay, momentum, schedule, warmup, clip, precision, validate_every,
    score, checkpoint_minutes, augment (with schedule halving also halve_every). Each step takes one instance (crops
    differ in shape), drawn evenly.
    instances: {"structures": the dataset's declaration, "seen": [names of structures], "channel": position of the
    one channel of the image to learn from, or None for all, "margin": 10, "size": 96 or None, "min_size": pixels}.
    Writes weights.pt, network.json, curve.csv and cost.json into job["output"].
    Raises BadInput where no training patient has a seen structure, or no validation patient and the score is "best".
    """
    dims = open_store(job["store"]).meta["spatial_dims"]
    size = job["instances"]["size"]
    protocol = job["protocol"] | {"batch": 1, "patch": [max(size or 0, LEAST)] * dims}  # patch: to count FLOPs on
    job = job | {"protocol": protocol, "cell": job["cell"] | {"instances": job["instances"]}}
    device = start_torch(job["threads"], protocol["precision"], dims)
    store, fold = open_fold(job)
    origin = training_origin(job, store.meta, fold)
    if "iterations" not in protocol:
        raise BadInput(f"protocol {job['cell']['protocol']}: the budget of a network on boxes is given in iterations.")
    cost = train(job, origin, device, lambda: protocol["iterations"], set_up)
    network = {"model": job["model"], "in_channels": _channels(store, job["instances"]), "spatial_dims": dims}
    write_json(Path(job["output"]) / "network.json", network | {"instances": job["instances"]})
    return cost


def set_up(job: dict, device: torch.device) -> Training:
    """Instances, network, loss and optimiser at iteration 0."""
    cell, protocol, settings = job["cell"], job["protocol"], job["instances"]
    dims, (store, fold) = len(protocol["patch"]), open_fold(job)
    if needs_features(job["loss"]):
        raise BadInput("the loss of an interactive network cannot look at its features; choose another one.")
    streams = np.random.SeedSequence([cell["seed"], cell["fold"]]).generate_state(3, np.uint64)
    weights, *rest = (int(s) % 2**63 for s in streams)
    generators = {name: torch.Generator().manual_seed(s) for name, s in zip(("sampler", "augment"), rest, strict=True)}
    torch.manual_seed(weights)  # initial weights, drawn on the CPU; then dropout
    channels = _channels(store, settings)
    model = build_model(job["model"], channels, 2, dims).to(device)
    parts = {part: Objects.of(store, fold[part], part, settings) for part in ("train", "validation")}
    if not parts["train"].instances:
        raise BadInput(
            f"dataset {cell['dataset']}: no training patient of fold {cell['fold']} has one of "
            f"{', '.join(settings['seen'])} with {settings['min_size']} pixels or more; name other seen structures"
        )
    if protocol["score"] == "best" and not parts["validation"].instances:
        raise BadInput(
            f"protocol {cell['protocol']}: score 'best' needs validation objects, and no validation patient of fold "
            f"{cell['fold']} has a seen structure; use score 'last'"
        )
    loss = build_loss(job["loss"], classes=2, spatial_dims=dims, image_channels=channels).to(device)
    return InstanceTraining(
        protocol=protocol,
        device=device,
        model=model,
        loss=loss,
        features=None,
        optimizer=build_optimizer(protocol, [*model.parameters(), *loss.parameters()]),
        scaler=torch.amp.GradScaler(device.type, enabled=protocol["precision"] == "float16"),
        generators=generators,
        sampler=InstanceSampler(parts["train"], settings, generators["sampler"]),
        validation=parts["validation"].instances,
        regions=None,
        augment=complete_settings(protocol["augment"]),
        progress=Progress(fingerprint=fingerprint(device)),
        energy_kwh=energy_meter(device),
        objects=parts["validation"],
        settings=settings,
    )


@dataclass(frozen=True)
class Objects:
    """The instances of some cases, and where their voxels are."""

    cases: dict[str, TrainingCase]  # memory-mapped, of the chosen channel or all
    instances: list[Instance]
    members: dict[str, list[int]]

    @classmethod
    def of(cls, store: Store, cases: list[str], part: str, settings: dict) -> Objects:
        members = members_of(settings["structures"], settings["seen"])
        channel, count = settings["channel"], store.meta["channels"]
        if channel is not None and not 0 <= channel < count:
            raise BadInput(f"channel: {channel} is not one of the {count} channels of dataset {store.meta['dataset']}.")
        opened, instances = {}, []
        for case in cases:
            image, label = store.image(case, part), store.label(case, part)
            image = image if channel is None else image[channel : channel + 1]
            spacing = np.array(store.meta["cases"][case]["spacing"], float)
            opened[case] = TrainingCase(image, label, spacing)
            about = {"case": case, "patient": store.meta["cases"][case]["patient"], "min_size": settings["min_size"]}
            instances += instances_of(label, members, store.meta["spatial_dims"], **about)
        return cls(opened, instances, members)

    def seen(self, instance: Instance, margins: np.ndarray, size: int | None) -> tuple[Seen, np.ndarray, np.ndarray]:
        """The instance in its box moved out by `margins`; its label (*S) uint8 and the spacing of the axes of *S."""
        case = self.cases[instance.case]
        image, label = of_instance(case.image, instance), of_instance(case.label, instance)
        box = grown(instance.box, label.shape, margins)
        label = binary_label(label[box], self.members[instance.structure])
        return see(image[(slice(None), *box)], size), label, case.spacing[-label.ndim :]


@dataclass(frozen=True)
class Seen:
    """A crop as a network sees it: image float32 (C, *W), standardised, resized, continued at its edges up to LEAST.

    inside: the part of *W that the crop fills. shape: of the crop, *S.
    """

    image: np.ndarray
    inside: tuple[slice, ...]
    shape: tuple[int, ...]

    @property
    def within(self) -> np.ndarray:
        """(C, *V): without the continuation."""
        return self.image[(slice(None), *self.inside)]


def see(image: np.ndarray, size: int | None) -> Seen:
    """A crop (C, *S) as a network with that `size` sees it (`network_shape`)."""
    shape = image.shape[1:]
    image = resized(standardised(image), network_shape(shape, size))
    short = [max(LEAST - n, 0) for n in image.shape[1:]]
    inside = tuple(slice(s // 2, s // 2 + n) for s, n in zip(short, image.shape[1:], strict=True))
    return Seen(np.pad(image, [(0, 0), *((s // 2, s - s // 2) for s in short)], mode="edge"), inside, shape)


class InstanceSampler:
    """Draws one instance, evenly among all, in its box moved out by 0 to `margin` pixels on each side."""

    def __init__(self, objects: Objects, settings: dict, generator: torch.Generator):
        self.objects, self.settings, self.generator = objects, settings, generator
        self.cases = list(objects.cases.values())

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """image (1, C, *W) float32, label (1, *W) int64, IGNORE beyond the crop, spacing (1, d) float64 in mm."""
        instances, margin = self.objects.instances, self.settings["margin"]
        instance = instances[int(torch.randint(len(instances), (), generator=self.generator))]
        margins = torch.randint(margin + 1, (len(instance.box), 2), generator=self.generator).numpy()
        seen, own, spacing = self.objects.seen(instance, margins, self.settings["size"])
        shape = tuple(side.stop - side.start for side in seen.inside)
        label = np.full(seen.image.shape[1:], IGNORE, np.int64)
        label[seen.inside] = resized_mask(own == 1, shape)
        label[seen.inside][resized_mask(own == IGNORE, shape)] = IGNORE
        spacing = spacing * np.array(seen.shape) / np.array(shape)
        return torch.from_numpy(seen.image)[None], torch.from_numpy(label)[None], torch.from_numpy(spacing)[None]


@dataclass
class InstanceTraining(Training):
    """A training on instances; its validation set are those of the validation patients."""

    objects: Objects = field(kw_only=True)
    settings: dict = field(kw_only=True)

    def validate(self, interrupted: Callable[[], bool]) -> float:
        """Mean Dice over validation instances, in their boxes with half the margin on each side."""
        training = self.model.training
        size, dims = self.settings["size"], len(self.protocol["patch"])
        network = InstanceNetwork(self.model.eval(), self.device, size, self.sampler.cases[0].image.shape[0], dims)
        scores = []
        for instance in self.validation:
            if interrupted():
                raise InterruptedError
            margins = np.full((len(instance.box), 2), self.settings["margin"] // 2)
            seen, label, _ = self.objects.seen(instance, margins, size)
            inside = restored(network.foreground(seen), seen.shape) > 0.5
            reference, inside = label == 1, inside & (label != IGNORE)
            scores.append(2 * np.count_nonzero(inside & reference) / (inside.sum() + reference.sum()))
        self.model.train(training)
        return float(np.mean(scores))

    def data(self) -> str:
        return f"{len(self.sampler.objects.instances)} training and {len(self.validation)} validation instances"


@dataclass(frozen=True)
class InstanceNetwork:
    """A trained network in evaluation mode, and the size of its crops."""

    module: nn.Module
    device: torch.device
    size: int | None
    channels: int
    spatial_dims: int

    def see(self, crop: Crop) -> Seen:
        """Raises BadInput where the crop has not the channels or axes that the network was trained on."""
        channels, dims = len(crop.image), crop.image.ndim - 1
        if (channels, dims) != (self.channels, self.spatial_dims):
            raise BadInput(
                f"the network was trained on {self.channels} channel(s) in {self.spatial_dims}D, and the crop has "
                f"{channels} in {dims}D; name as many channels for it as for the training"
            )
        return see(crop.image, self.size)

    @torch.no_grad()
    def foreground(self, seen: Seen) -> np.ndarray:
        """The probability of the object, float32 (*V), where the crop is."""
        return foreground_of(self.module(self.input(seen)))[seen.inside]

    def input(self, seen: Seen) -> Tensor:
        """(1, C, *W) on the network's device."""
        return torch.from_numpy(seen.image)[None].to(self.device)


def foreground_of(logits: Tensor) -> np.ndarray:
    """Softmax of logits (1, 2, *W): the probability of class 1, float32 (*W)."""
    return torch.softmax(logits.float(), dim=1)[0, 1].cpu().numpy()


def restored(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities or a mask (*V) back on the grid of the crop (*S), float32, by linear interpolation."""
    return resized(values[None].astype(np.float32), shape)[0]


def load_network(folder: str | Path) -> InstanceNetwork:
    """The network that `train_network` left in a folder, in evaluation mode, on a GPU where there is one.

    Makes torch deterministic for the whole process (`start_torch`).
    """
    folder = Path(folder)
    if not (folder / "network.json").exists():
        raise BadInput(f"{folder} holds no trained interactive network (network.json); train one with train_network.")
    about = read_json(folder / "network.json")
    module = build_model(about["model"], about["in_channels"], 2, about["spatial_dims"])
    load_weights(module, folder / "weights.pt")
    device = start_torch(torch.get_num_threads(), "float32", about["spatial_dims"])
    size = about["instances"]["size"]
    return InstanceNetwork(module.to(device).eval(), device, size, about["in_channels"], about["spatial_dims"])


def _channels(store: Store, settings: dict) -> int:
    """Of the network's input."""
    return store.meta["channels"] if settings["channel"] is None else 1
