"""The comparator that knows nothing of episodes: supervised pre-training, then fine-tuning."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.few_shot.episodes import Episode, Labelled
from lib.few_shot.methods import LossOf, Predictor
from lib.registry import register


@register("fine_tuning")
class FineTuning(nn.Module):
    """Pre-training on the slices of episodes with the labels of all seen structures at once, as any network is trained;
    for new structures a new classifier that starts at 0, and `steps` of Adam at rate `lr` on all weights.

    Cite: nothing, a textbook comparator
    """

    trains_on_all_labels = True

    def __init__(self, base: nn.Module, loss: LossOf, classes: int, steps: int = 50, lr: float = 1e-3):
        super().__init__()
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1 or lr <= 0:
            raise BadInput(f"fine_tuning needs steps of at least 1 and lr above 0, not {steps!r} and {lr!r}.")
        self.base, self.classes, self.steps, self.lr = base, classes, steps, lr
        self.pretraining_loss, self.tuning_loss = loss(base.head.out_channels), loss(classes)

    def training_loss(self, episode: Episode, **ramp) -> Tensor:
        parts = [episode.support, episode.query]
        image, label, spacing = (torch.cat([getattr(p, key) for p in parts]) for key in ("image", "seen", "spacing"))
        return self.pretraining_loss(self.base(image, image, label), label, spacing=spacing, **ramp)

    def adapt(self, support: Labelled) -> Predictor:
        network = copy.deepcopy(self.base)
        network.head = nn.Conv2d(network.head.in_channels, self.classes, 1).to(support.image.device)
        for parameter in network.head.parameters():
            nn.init.zeros_(parameter)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr)
        for _ in range(self.steps):
            logits = network(support.image, support.image, support.label)
            optimizer.zero_grad()
            self.tuning_loss(logits, support.label, spacing=support.spacing).backward()
            optimizer.step()
        return lambda query: network(query, support.image, support.label)
