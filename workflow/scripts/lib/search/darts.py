"""The search itself: first-order DARTS on two halves of the training patients, in the trainer's loop.

Source: Liu, Simonyan, Yang, DARTS, ICLR 2019 (first-order approximation); Weng 2019, in the official code
(experiment/search_cell.py). Resumes, and ends, as a training does: lib.training.trainer.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from lib.budget import planned_iterations
from lib.data.store import Store
from lib.errors import BadInput, Diverged
from lib.inference.device import start_torch
from lib.losses import build_loss, needs_features
from lib.models.layers import CHANNELS_LAST
from lib.search.found import GENOTYPE
from lib.search.space import OPERATIONS, STRIDED, entropy, table
from lib.search.supernet import Supernet
from lib.training.augment import complete_settings
from lib.training.cost import energy_meter, fingerprint
from lib.training.sampler import PatchSampler
from lib.training.trainer import (
    Progress,
    Training,
    as_seen,
    build_optimizer,
    class_frequencies,
    open_case,
    open_fold,
    train,
    training_origin,
)

CURVE = ("iteration", "epoch", "loss", "alphas_loss", "lr", "entropy", "unchanged", "seconds")
ALPHAS = ("operations", "node", "state", "operation", "weight")


def search_cells(job: dict) -> dict:
    """Search the cells of a network for one fold and seed into the folder `job["output"]`; returns what it cost.

    job: cell, with the search as its protocol (lib.search.found); settings: those of the search in the configuration;
    loss: its recipe; store, splits, certificate, checkpoints, tensorboard, code, threads, as for `train_cell`.
    Writes genotype.yaml (the found architecture, and what it was found with and on), alphas.csv (the weights of all
    operations at the end), curve.csv (one row per epoch) and cost.json.
    Only images and labels of the fold's training patients are opened. Interruption, resumption and Diverged as in
    `train_cell`; raises BadInput for fewer than two training patients too, and for a loss that looks at features.
    """
    settings = job["settings"]
    supernet = {key: settings[key] for key in ("width", "depth", "nodes")}
    job = job | {
        "model": {"name": "supernet of nas_unet", **supernet},
        "protocol": settings | {"score": "last"},
    }
    device = start_torch(job["threads"], settings["precision"], len(settings["patch"]))
    store, fold = open_fold(job)
    parts = halves(store, fold["train"], job["cell"])
    origin = training_origin(job, store.meta, parts)
    epoch = planned_iterations(settings | {"epochs": 1}, store.meta, parts["weights"])
    about = {
        "found_by": {"search": job["cell"]["protocol"]}
        | {key: job["cell"][key] for key in ("dataset", "condition", "fold", "seed")},
        "patients": {part: sorted({store.patients[case] for case in cases}) for part, cases in parts.items()},
        "data": origin["data"],
        "settings": {key: value for key, value in settings.items() if key != "checkpoint_minutes"}
        | {"loss": job["loss"]},
    }
    return train(
        job,
        origin,
        device,
        lambda: settings["epochs"] * epoch,
        lambda job, device: set_up(job, device, store, parts, epoch, about),
    )


def halves(store: Store, cases: list[str], cell: dict) -> dict[str, list[str]]:
    """The training cases of a fold by what they teach, `weights` or `alphas`: half of the patients each, by the seed.

    Raises BadInput for fewer than two patients.
    """
    patients = sorted({store.patients[case] for case in cases})
    if len(patients) < 2:
        raise BadInput(
            f"search {cell['protocol']}: fold {cell['fold']} of dataset {cell['dataset']} has {len(patients)} training "
            "patient; a search needs two, one half for the weights and one for the alphas"
        )
    order = np.random.default_rng([cell["seed"], cell["fold"], 0]).permutation(len(patients))
    first = {patients[i] for i in order[: len(patients) // 2]}
    return {
        "weights": [case for case in cases if store.patients[case] in first],
        "alphas": [case for case in cases if store.patients[case] not in first],
    }


def set_up(
    job: dict, device: torch.device, store: Store, parts: dict[str, list[str]], epoch: int, about: dict
) -> Search:
    """Both halves, supernet, loss and both optimisers at iteration 0; `epoch`: iterations of one."""
    cell, protocol = job["cell"], job["protocol"]
    if needs_features(job["loss"]):
        raise BadInput(f"search {cell['protocol']}: loss: a search has no features to look at; choose another loss.")
    dims, channels, regions = len(protocol["patch"]), store.meta["channels"], store.meta["regions"]
    streams = np.random.SeedSequence([cell["seed"], cell["fold"], 1]).generate_state(4, np.uint64)
    weights, *rest = (int(s) % 2**63 for s in streams)
    names = ("sampler", "alphas", "augment")
    generators = {name: torch.Generator().manual_seed(seed) for name, seed in zip(names, rest, strict=True)}
    torch.manual_seed(weights)  # first weights and alphas, drawn on the CPU; then dropout
    model = Supernet(channels, store.outputs, dims, *(protocol[key] for key in ("width", "depth", "nodes")))
    model = model.to(device, memory_format=CHANNELS_LAST[dims])
    cases = {part: [open_case(store, case, "train") for case in parts[part]] for part in parts}
    loss = build_loss(
        job["loss"],
        classes=len(store.meta["classes"]),
        class_frequencies=class_frequencies(store.meta, parts["weights"]),
        training_labels=lambda: ((as_seen(case.label, dims), case.spacing[-dims:]) for case in cases["weights"]),
        regions=regions,
        spatial_dims=dims,
        image_channels=channels,
    ).to(device)
    patches = protocol["patch"], protocol["batch"], protocol["foreground"]
    return Search(
        protocol=protocol,
        device=device,
        model=model,
        loss=loss,
        features=None,
        optimizer=build_optimizer(protocol, [*model.weights(), *loss.parameters()]),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
        generators=generators,
        sampler=PatchSampler(cases["weights"], *patches, generators["sampler"]),
        validation=[],
        regions=regions,
        augment=complete_settings(protocol["augment"]),
        progress=SearchProgress(fingerprint=fingerprint(device)),
        energy_kwh=energy_meter(device),
        alphas=PatchSampler(cases["alphas"], *patches, generators["alphas"]),
        alphas_optimizer=torch.optim.Adam(
            model.alphas.values(), lr=protocol["alphas_lr"], weight_decay=protocol["alphas_weight_decay"]
        ),
        epoch=epoch,
        about=about,
    )


@dataclass
class SearchProgress(Progress):
    """Beside the rows of the learning curve, one per epoch, what a search adds to them."""

    alphas_losses: list[float] = field(default_factory=list)  # since the last row
    epochs: list[list] = field(default_factory=list)  # alphas_loss, entropy, unchanged of each row
    genotype: dict | None = None  # derived after the last epoch that counts
    unchanged: int = 0  # epochs since it was another one


@dataclass
class Search(Training):
    """A search in progress: the weights learn from one half of the patients, the alphas from the other."""

    alphas: PatchSampler = field(kw_only=True)
    alphas_optimizer: torch.optim.Adam = field(kw_only=True)
    epoch: int = field(kw_only=True)
    about: dict = field(kw_only=True)
    pending_alphas: list[Tensor] = field(default_factory=list)

    def step(self) -> None:
        """One iteration: from epoch `alphas_from` on a step of the alphas, then one of the weights."""
        if self.progress.iteration >= self.protocol["alphas_from"] * self.epoch:
            self.step_of_alphas()
        self.step_of_weights()
        self.progress.iteration += 1

    def step_of_alphas(self) -> None:
        """One batch of their half, the weights held."""
        value = self.loss_of(self.alphas)
        self.alphas_optimizer.zero_grad(set_to_none=True)
        value.backward(inputs=list(self.model.alphas.values()))
        self.alphas_optimizer.step()
        self.pending_alphas.append(value.detach())

    def step_of_weights(self) -> None:
        """One batch of their half, the alphas held."""
        weights = self.optimizer.param_groups[0]["params"]
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.progress.iteration)
        value = self.loss_of(self.sampler)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward(inputs=weights)
        if self.protocol["clip"]:
            nn.utils.clip_grad_norm_(weights, self.protocol["clip"])
        self.optimizer.step()
        self.pending.append(value.detach())

    def rate(self, iteration: int) -> float:
        """A cosine over the epochs from `lr` down to `lr_end`."""
        x = iteration // self.epoch / self.protocol["epochs"]
        high, low = self.protocol["lr"], self.protocol["lr_end"]
        return low + (high - low) * (1 + math.cos(math.pi * x)) / 2

    def row_is_due(self) -> bool:
        i, rows = self.progress.iteration, self.progress.rows
        return i > 0 and i % self.epoch == 0 and not (rows and rows[-1][0] == i)

    def add_row(self, interrupted: Callable[[], bool]) -> None:
        """A row for the epoch, and the genotype that it ended with."""
        super().add_row(interrupted)
        progress = self.progress
        losses = progress.alphas_losses
        shares, genotype = self.model.shares(), self.model.genotype()
        if len(progress.rows) >= self.protocol["alphas_from"]:
            same = genotype == progress.genotype
            progress.unchanged = progress.unchanged + 1 if same else 0
            if not same:
                print(f"epoch {len(progress.rows)}: {json.dumps(genotype)}", flush=True)
            progress.genotype = genotype
        mean = math.fsum(losses) / len(losses) if losses else None
        progress.epochs.append([mean, entropy(shares, self.protocol["nodes"]), progress.unchanged])
        progress.alphas_losses = []

    def ended(self) -> bool:
        """After the last epoch, or once the genotype has been the same for `patience` epochs."""
        return super().ended() or self.progress.unchanged >= self.protocol["patience"]

    def collect_losses(self) -> None:
        super().collect_losses()
        values = torch.stack(self.pending_alphas).tolist() if self.pending_alphas else []
        self.pending_alphas.clear()
        if not all(map(math.isfinite, values)):
            raise Diverged(f"the loss of the alphas became infinite before iteration {self.progress.iteration}")
        self.progress.alphas_losses += values

    def data(self) -> str:
        patients = self.about["patients"]
        return f"{len(patients['weights'])} patients for the weights, {len(patients['alphas'])} for the alphas"

    def write(self, folder: Path) -> None:
        """Write genotype.yaml, alphas.csv and curve.csv."""
        nodes = self.protocol["nodes"]
        (folder / GENOTYPE).write_text(recipe_text(self.model.genotype(), self.about), encoding="utf-8")
        rows = [
            [i, number, loss, alphas, rate, spread, unchanged, seconds]
            for number, ([i, loss, rate, _, seconds], [alphas, spread, unchanged]) in enumerate(
                zip(self.progress.rows, self.progress.epochs, strict=True), start=1
            )
        ]
        for name, header, content in (
            ("alphas.csv", ALPHAS, table(self.model.shares(), nodes)),
            ("curve.csv", CURVE, rows),
        ):
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *content])

    def _modules(self) -> dict:
        return super()._modules() | {"alphas_optimizer": self.alphas_optimizer}


def recipe_text(genotype: dict[str, list], about: dict) -> str:
    """The architecture that was found as YAML to copy, and what it was found with; the same search, the same text."""
    space = {
        "edges": {kind: list(names) for kind, names in OPERATIONS.items()},
        "edges_that_change_the_size": {cell: list(states) for cell, states in STRIDED.items()},
    }
    found = {"architecture": {"name": "nas_unet", "genotype": genotype}, **about, "space": space}
    return "# `architecture` can be copied into the catalogue; width and depth are free.\n" + yaml.safe_dump(
        found, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )
