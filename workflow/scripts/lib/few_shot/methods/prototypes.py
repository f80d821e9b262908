"""A prototype network without adaptation: what it has learned is a space of features."""

from __future__ import annotations

from torch import nn

from lib.few_shot.episodes import Episode, Labelled
from lib.few_shot.methods import LossOf, Predictor
from lib.registry import register


@register("prototypes")
class Prototypes(nn.Module):
    """The base is trained on episodes to segment the query by the support, and does so with the support of a test.

    With the base `alpnet` and tasks: superpixels it is the self-supervised network of Ouyang 2020.
    Cite: ouyang2020
    """

    trains_on_all_labels = False

    def __init__(self, base: nn.Module, loss: LossOf, classes: int):
        super().__init__()
        self.base, self.loss = base, loss(classes)

    def training_loss(self, episode: Episode, **ramp) -> nn.Module:
        support, query = episode.support, episode.query
        logits, aligned = self.base(query.image, support.image, support.label, align=True)
        total = self.loss(logits, query.label, spacing=query.spacing, **ramp)
        if aligned is None:
            return total
        return total + self.loss(aligned, support.label, spacing=support.spacing, **ramp)

    def adapt(self, support: Labelled) -> Predictor:
        return lambda query: self.base(query, support.image, support.label)
