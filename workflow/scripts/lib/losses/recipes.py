"""Recipes of losses: a registered loss with its parameters, an envelope around one, or a weighted sum.

    {"name": "focal", "gamma": 2.0}
    {"name": "topk_bottom_all_but_sigma", "of": {"name": "focal"}}      # around any pixel loss
    {"sum": [{"weight": 1.0, "loss": recipe}, …]}                       # also of sums

A weight is a number or a ramp: {"from": 0.0, "to": 1.0} over the whole training, or from the share `start` of its
iterations to the share `end`. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lib.errors import BadInput
from lib.losses.checks import check_ramped
from lib.registry import Registry, nested

LOSSES = Registry("lib.losses")
# What the data and the network decide, so a recipe may not: arguments of `build_loss`.
CONTEXT = (
    "classes",
    "class_frequencies",
    "training_labels",
    "spatial_dims",
    "image_channels",
    "feature_channels",
)


def is_pixel_loss(name: str) -> bool:
    """Whether the loss is the mean of a map of pixel losses, so that an envelope can be put around it."""
    return LOSSES.defines(name, "pixel_map")


def is_auxiliary(name: str) -> bool:
    """Whether the loss looks at the network's features instead of logits and labels."""
    return LOSSES.defines(name, "auxiliary")


def counts_training_labels(loss: dict) -> bool:
    """Whether the loss, or one inside it, is set up from the labels of all training cases."""
    return any(isinstance(p.get("weights"), str) or p.get("frequency") == "dataset" for p in nested(loss))


def check_recipe(recipe: dict) -> None:
    """Raise BadInput for unknown names and parameters, bad weights, and an envelope around no pixel loss."""
    for _, loss in terms(recipe):
        _check_loss(loss)


def check_trainable(recipe: dict) -> None:
    """Raise BadInput for a checked recipe that looks at no labels."""
    if all(is_auxiliary(loss["name"]) for _, loss in terms(recipe)):
        raise BadInput("the loss looks at no labels; use it in a sum with one that does.")


def terms(recipe: dict) -> Iterator[tuple[list[float | dict], dict]]:
    """The losses of a recipe, each with the weights whose product is its weight."""
    if "sum" not in recipe:
        yield [], recipe
        return
    if set(recipe) != {"sum"} or not recipe["sum"]:
        raise BadInput(f"a sum of losses has one key, 'sum', and at least one term, not {recipe}.")
    for term in recipe["sum"]:
        check_ramped("sum", "every weight", term["weight"], 0)
        if term["weight"] == 0:
            raise BadInput("a term of a sum has weight 0; leave it out.")
        for weights, loss in terms(term["loss"]):
            yield [term["weight"], *weights], loss


def loss_modules(recipe: dict) -> list[Path]:
    """The source files of all losses of a recipe, sorted."""
    return sorted({file for _, loss in terms(recipe) for file in LOSSES.modules(loss)})


def _check_loss(recipe: dict) -> None:
    inner = recipe.get("of")
    if inner is not None and (not isinstance(inner, dict) or "sum" in inner):
        raise BadInput(f"'{recipe['name']}' goes around one pixel loss, not around {inner}.")
    LOSSES.check(recipe, CONTEXT)
    if inner is None:
        return
    if not is_pixel_loss(inner["name"]):
        pixel = [name for name in LOSSES.available() if is_pixel_loss(name)]
        raise BadInput(
            f"'{recipe['name']}' goes around a pixel loss, and '{inner['name']}' is none. Pixel losses: "
            f"{', '.join(pixel)}."
        )
