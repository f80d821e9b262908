"""Train a few-shot method, once for each set of held-out structures, in the loop of `lib.training.trainer`.

The budget is the protocol's, for each set: `iterations` steps of Adam at its learning rate and schedule, each on
`batch` episodes of slices at the size `patch`. The sets take turns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from lib.budget import planned_iterations
from lib.errors import BadInput
from lib.few_shot import label_sets
from lib.few_shot.episodes import Slices, StructureEpisodes, SuperpixelEpisodes
from lib.few_shot.methods import build_method
from lib.inference.device import start_torch
from lib.training.augment import complete_settings
from lib.training.cost import energy_meter, fingerprint
from lib.training.schedule import learning_rate
from lib.training.trainer import Progress, Training, open_fold, train, training_origin


def train_cell(job: dict) -> dict:
    """Train the cell of `job` into the folder `job["output"]`; returns its costs and identity.

    job: as of `lib.training.train_cell`, but `model` is the entry of the method, its base resolved, with the names of
    all `structures`. Interrupted and resumed as any training. In the costs, an iteration is one step of one set, a
    sample an episode, and parameters are all learned numbers: of each set's network, and of its optimisers. Raises
    BadInput too where the protocol asks for what few-shot trainings have not.
    """
    protocol, where = job["protocol"], f"protocol {job['cell']['protocol']}"
    if "minutes" in protocol:
        raise BadInput(f"{where}: minutes: few-shot methods need a budget in iterations or epochs; give one of them.")
    if protocol["precision"] != "float32" or protocol["score"] != "last":
        raise BadInput(
            f"{where}: few-shot methods train with precision: float32 and keep the last weights, score: last, not "
            f"{protocol['precision']} and {protocol['score']}."
        )
    device = start_torch(job["threads"], protocol["precision"], 2)
    store, fold = open_fold(job)
    steps = planned_iterations(protocol, store.meta, fold["train"])
    total = steps * len(label_sets(job["model"], job["model"]["structures"]))
    return train(job, training_origin(job, store.meta, fold), device, lambda: total, set_up)


def set_up(job: dict, device: torch.device) -> FewShotTraining:
    """Episodes, models and optimiser at iteration 0; each set's random numbers depend on seed, fold and set alone."""
    cell, protocol, settings = job["cell"], job["protocol"], job["model"]
    store, fold = open_fold(job)
    slices = Slices(store, fold["train"], "train", protocol["patch"], settings["structures"])
    sets = held_out_sets(settings)
    generators, models = {}, []
    for number, held_out in enumerate(sets):
        streams = np.random.SeedSequence([cell["seed"], cell["fold"], number]).generate_state(2, np.uint64)
        weights, sampling = (int(s) % 2**63 for s in streams)
        generators[f"episodes of set {number}"] = torch.Generator().manual_seed(sampling)
        torch.manual_seed(weights)
        models.append(new_method(job, slices, held_out))
    model = Models(models).to(device).train()
    return FewShotTraining(
        protocol=protocol,
        device=device,
        model=model,
        loss=nn.Module(),  # the methods have their own
        features=None,
        optimizer=torch.optim.Adam(model.parameters(), lr=protocol["lr"]),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
        generators=generators,
        sampler=[episodes_of(settings, slices, held_out, protocol) for held_out in sets],
        validation=[],
        regions=None,
        augment=None,
        progress=Progress(fingerprint=fingerprint(device)),
        energy_kwh=energy_meter(device),
        slices=slices,
    )


class Models(nn.ModuleList):
    """One method per set of held-out structures; called, it runs the first one's base, the query as its own support."""

    def forward(self, query: Tensor) -> Tensor:
        return self[0].base(query, query, torch.zeros_like(query[:, 0], dtype=torch.int64))


@dataclass
class FewShotTraining(Training):
    """A training in progress; its `sampler` is a source of episodes for each set."""

    slices: Slices = field(kw_only=True)

    def loss_of(self, sampler: list[StructureEpisodes | SuperpixelEpisodes]) -> Tensor:
        """The mean outer loss of the next episodes, of the set whose turn it is."""
        step, number = divmod(self.progress.iteration, len(self.model))
        steps, generator = self.protocol["iterations"] // len(self.model), list(self.generators.values())[number]
        losses = []
        for _ in range(self.protocol["batch"]):
            episode = sampler[number].draw(generator).to(self.device)
            losses.append(self.model[number].training_loss(episode, iteration=step, iterations=steps))
        return torch.stack(losses).mean()

    def rate(self, iteration: int) -> float:
        sets = len(self.model)
        return learning_rate(self.protocol | {"iterations": self.protocol["iterations"] // sets}, iteration // sets)

    @property
    def channels(self) -> int:
        return self.slices.store.meta["channels"]

    def data(self) -> str:
        sets = f"{len(self.model)} set{'s' * (len(self.model) > 1)} of held-out structures"
        return f"{len(self.slices.patients)} training cases, {sets}"


def held_out_sets(settings: dict) -> list[list[int]]:
    """The sets of held-out structures, by their place among all."""
    names = settings["structures"]
    return [[names.index(name) for name in held_out] for held_out in label_sets(settings, names)]


def episodes_of(
    settings: dict, slices: Slices, held_out: list[int], protocol: dict
) -> StructureEpisodes | SuperpixelEpisodes:
    """The source of episodes that an entry asks for."""
    shots, setting = settings["training_shots"] or settings["shots"], settings["setting"]
    if settings["tasks"] == "superpixels":
        return SuperpixelEpisodes(slices, held_out, shots, setting)
    augment = complete_settings(protocol["augment"])
    return StructureEpisodes(slices, held_out, settings["way"], shots, setting, augment)


def new_method(job: dict, slices: Slices, held_out: list[int]) -> nn.Module:
    """The method of a set, with freshly drawn weights."""
    seen = len(slices.members) - len(held_out)
    return build_method(job["model"], job["loss"], slices.store.meta["channels"], seen)
