"""Losses: one file per family, found by name, composed by recipes.

`build_loss({"name": "cross_entropy", "weights": "median_frequency"}, classes=4, class_frequencies=…)` returns
a module that is called as `loss(logits (B, C, *S), target (B, *S) int64)` and returns a scalar tensor; what else
it takes is described in `criterion`, the forms of recipes in `recipes`. Logits of 16 bits are computed on in 32;
lists of names and parameters do not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lib.losses.recipes import LOSSES, check_recipe, check_trainable, is_auxiliary, terms

if TYPE_CHECKING:
    import numpy as np

    from lib.losses.criterion import Criterion

REGION_CLASSES = 2  # outside and inside


def available() -> list[str]:
    """Names of all losses, sorted."""
    return LOSSES.available()


def needs_features(recipe: dict) -> bool:
    """Whether a term of the recipe looks at the network's features: see `criterion`."""
    return any(is_auxiliary(loss["name"]) for _, loss in terms(recipe))


def build_loss(
    recipe: dict,
    *,
    classes: int | None = None,
    class_frequencies: dict[str, list[int]] | list[dict[str, list[int]]] | None = None,
    training_labels: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]] | None = None,
    regions: list[list[int]] | None = None,
    spacing: list[float] | None = None,
    spatial_dims: int | None = None,
    image_channels: int | None = None,
    feature_channels: int | None = None,
) -> Criterion:
    """Build the loss of a recipe (see `recipes`) for one dataset and fold, whose facts are the other arguments:

    classes: number of label values, with background. class_frequencies: {"voxels": [int per class],
    "voxels_of_cases_with_class": [int per class]}, counted on the TRAINING cases of the fold. training_labels: a
    function that gives their labels (B, *S), all of a case, and spacings (d,), one case after the other. spacing: mm
    per spatial axis, for batches that do not bring theirs. spatial_dims, image_channels, feature_channels: axes and
    channels of the network's input, channels of its features.
    regions: the classes that belong to each region, where structures overlap. The network then has one output per
    region, without background; each region is the two-class problem of logits (0, z), the loss the mean over regions,
    and class_frequencies is a list of one such dict of two classes per region.
    Raises BadInput for an unknown name, parameter or value.
    """
    from lib.losses.criterion import Criterion, labels_of_region

    check_recipe(recipe)
    check_trainable(recipe)

    def build(recipe: dict, known: dict) -> object:
        wanted = LOSSES.parameters(recipe["name"])
        arguments = {key: value for key, value in recipe.items() if key != "name"}
        arguments |= {key: value for key, value in known.items() if key in wanted and value is not None}
        if "of" in recipe:
            arguments["of"] = build(recipe["of"], known)
        return LOSSES.get(recipe["name"])(**arguments)

    known = {
        "classes": classes,
        "class_frequencies": class_frequencies,
        "training_labels": training_labels,
        "spatial_dims": spatial_dims,
        "image_channels": image_channels,
        "feature_channels": feature_channels,
    }
    of_regions = [
        known
        | {
            "classes": REGION_CLASSES,
            "class_frequencies": class_frequencies and class_frequencies[r],
            "training_labels": training_labels and labels_of_region(training_labels, members),
        }
        for r, members in enumerate(regions or [])
    ]
    weights, losses = [], []
    for factors, loss in terms(recipe):
        weights.append(factors)
        once = not of_regions or is_auxiliary(loss["name"])
        losses.append([build(loss, facts) for facts in ([known] if once else of_regions)])
    return Criterion(weights, losses, regions, classes, spacing)
