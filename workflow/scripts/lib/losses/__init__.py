"""Losses: one file per family, found by name.

`build_loss({"name": "cross_entropy", "weights": "median_frequency"}, classes=4, class_frequencies=…)` returns
a module that is called as `loss(logits (B, C, *S), target (B, *S) int64)` and returns a scalar tensor. Logits
of 16 bits are computed on in 32; lists of names and parameters do not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.registry import Registry

if TYPE_CHECKING:
    from torch import nn

LOSSES = Registry("lib.losses")
CONTEXT = ("classes", "class_frequencies", "spacing")  # what the data decide, so a recipe may not


def available() -> list[str]:
    """Names of all losses, sorted."""
    return LOSSES.available()


def build_loss(recipe: dict, **context) -> nn.Module:
    """Build the loss of a recipe `{"name": …, parameter: value, …}`.

    Context, of which each loss takes what its constructor names: `classes` (int, with background),
    `class_frequencies` ({"voxels": [int per class], "voxels_of_cases_with_class": [int per class]}, counted
    on the TRAINING cases of the fold) and `spacing` (mm per spatial axis of the network's input).
    Raises BadInput for an unknown name, parameter or value. Target values must lie in [0, C): any other
    raises an index error (on CUDA, a device-side assertion).
    """
    LOSSES.check(recipe, CONTEXT)
    known = LOSSES.parameters(recipe["name"])
    arguments = {key: value for key, value in recipe.items() if key != "name"}
    arguments |= {key: context[key] for key in CONTEXT if key in known and key in context}
    return LOSSES.get(recipe["name"])(**arguments)
