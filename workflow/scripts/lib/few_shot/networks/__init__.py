"""Base networks of few-shot methods: called with a query and the labelled support, they return logits of the query.

    network(query (Q, C, H, W), image (N, C, H, W), label (N, H, W) int64 0…classes-1) -> logits (Q, classes, H, W)

With `align=True` they return (logits, logits of the support seen from the predicted query, or None) too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.errors import BadInput
from lib.few_shot import NETWORK_CONTEXT, NETWORKS
from lib.models import build_model

FEATURES = 16  # channels between an architecture of the catalogue and the classifier


class Pixelwise(nn.Module):
    """An architecture of the catalogue, whose output is taken as features, and a 1 × 1 classifier; ignores the support.

    The classifier is apart so that fine-tuning can replace it in any architecture.
    """

    def __init__(self, recipe: dict, in_channels: int, classes: int):
        super().__init__()
        self.trunk = build_model(recipe, in_channels, FEATURES, 2)
        self.head = nn.Conv2d(FEATURES, classes, 1)
        for name, module in self.named_modules():
            if getattr(module, "track_running_stats", False):
                raise BadInput(
                    f"base: '{recipe['name']}' has batch statistics ({name}), which a few slices do not give; set its "
                    "normalisation: instance or group, or take another architecture."
                )

    def train(self, mode: bool = True) -> Pixelwise:
        """Stays in evaluation mode: without dropout and deep supervision, what is adapted is what predicts."""
        return super().train(False)

    def forward(self, query: Tensor, image: Tensor, label: Tensor, align: bool = False) -> Tensor | tuple:
        logits = self.head(torch.relu(self.trunk(query)))
        return (logits, None) if align else logits


def build_base(recipe: dict, in_channels: int, classes: int) -> nn.Module:
    """The base of an entry as `lib.few_shot.resolved` gives it, with freshly drawn weights."""
    if "architecture" in recipe:
        return Pixelwise(recipe["architecture"], in_channels, classes)
    NETWORKS.check(recipe, NETWORK_CONTEXT)
    return NETWORKS.get(recipe["name"])(in_channels, **{k: v for k, v in recipe.items() if k != "name"})
