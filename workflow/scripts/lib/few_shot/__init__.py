"""Few-shot segmentation: structures without training labels, from a few labelled slices (docs/few_shot.md).

Within a cell the structures are divided into sets. For each set, a model is trained on labels of the other structures
and then segments those of the set, given `shots` labelled cases. So every structure's score is one of a structure that
the model has not been trained on, and a cell has a label map per test case as any other.

Methods (`lib.few_shot.methods`) and networks that compare a query with a support (`lib.few_shot.networks`) are found
by name. Nothing here imports torch.
"""

from __future__ import annotations

from pathlib import Path

from lib.errors import BadInput
from lib.losses.catalogue import loss_recipe
from lib.losses.recipes import counts_training_labels, is_auxiliary, terms
from lib.registry import Registry, did_you_mean

METHODS = Registry("lib.few_shot.methods")
NETWORKS = Registry("lib.few_shot.networks")
# Keys of an entry that are not parameters of its method; the schema has their defaults. A job adds the dataset's.
SETTINGS = ("base", "loss", "shots", "training_shots", "way", "setting", "held_out", "slices", "tasks", "structures")
METHOD_CONTEXT = ("base", "loss", "classes")
NETWORK_CONTEXT = ("in_channels",)


def resolved(entry: dict, config: dict) -> tuple[dict, dict]:
    """The entry with the recipe that its `base` names, as {"architecture": recipe}, and the recipe of its loss."""
    base = entry["base"]
    base = {"architecture": config["architectures"][base]} if isinstance(base, str) else base
    return entry | {"base": base}, loss_recipe(entry["loss"], config["losses"])


def own_parameters(entry: dict) -> dict:
    """The recipe of the entry's method: its name and parameters."""
    return {key: value for key, value in entry.items() if key not in SETTINGS}


def check_entry(entry: dict, config: dict) -> None:
    """Raise BadInput for unknown names and parameters, and for a base or loss that the method cannot use."""
    METHODS.check(own_parameters(entry), METHOD_CONTEXT)
    base = entry["base"]
    if isinstance(base, str) and base not in config["architectures"]:
        raise BadInput(
            f"base: '{base}' is no architecture of the catalogue.{did_you_mean(base, config['architectures'])} "
            f"Or give a network that looks at the support, as {{name: {NETWORKS.available()[0]}}}."
        )
    if not isinstance(base, str):
        NETWORKS.check(base, NETWORK_CONTEXT)
    if entry["name"] == "fine_tuning" and (not isinstance(base, str) or entry["tasks"] != "structures"):
        raise BadInput(
            "fine_tuning is pre-trained on labels, so it needs tasks: structures and an architecture of the catalogue "
            f"as base, not tasks: {entry['tasks']} and base: {base}."
        )
    if entry["name"] == "prototypes" and isinstance(base, str):
        raise BadInput(
            f"prototypes adapts nothing, so its base has to look at the support; '{base}' does not. Take "
            f"{{name: {NETWORKS.available()[0]}}}."
        )
    name = entry["loss"]
    if name not in config["losses"]:
        raise BadInput(f"loss: '{name}' is not in the catalogue.{did_you_mean(name, config['losses'])}")
    recipe = loss_recipe(name, config["losses"])
    if auxiliary := [loss["name"] for _, loss in terms(recipe) if is_auxiliary(loss["name"])]:
        raise BadInput(f"loss: {name}: '{auxiliary[0]}' looks at features, which few-shot methods give to no loss.")
    if counted := [loss["name"] for _, loss in terms(recipe) if counts_training_labels(loss)]:
        raise BadInput(
            f"loss: {name}: '{counted[0]}' is weighted by how often classes are in the training, but every episode has "
            "other classes; give the weights as numbers, or take another loss."
        )


def check_structures(entry: dict, structures: list[str]) -> None:
    """Raise BadInput where the entry does not fit a dataset with these structures."""
    sets = label_sets(entry, structures)
    for held_out in sets:
        if unknown := [name for name in held_out if name not in structures]:
            raise BadInput(f"held_out: '{unknown[0]}' is no structure.{did_you_mean(unknown[0], structures)}")
        if len(held_out) % entry["way"]:
            raise BadInput(
                f"way: {entry['way']} structures are segmented at a time, which does not divide the held-out "
                f"{', '.join(held_out)}; set way: 1."
            )
        if entry["tasks"] == "structures" and len(structures) - len(held_out) < entry["way"]:
            raise BadInput(
                f"held_out: without {', '.join(held_out)}, of {', '.join(structures)} fewer than way: {entry['way']} "
                "are left to train on; hold out fewer, or set tasks: superpixels."
            )
    tested = [name for held_out in sets for name in held_out]
    if sorted(tested) != sorted(structures):
        odd = next((s for s in structures if tested.count(s) != 1), tested)
        raise BadInput(f"held_out: each structure is held out once, but '{odd}' is not; list all of {structures}.")
    if entry["tasks"] == "superpixels" and entry["way"] != 1:
        raise BadInput(f"way: {entry['way']}, but a superpixel is one structure; set way: 1.")


def label_sets(entry: dict, structures: list[str]) -> list[list[str]]:
    """The structures that are held out together: as `held_out` says, or each one by itself.

    Training on superpixels looks at no labels, so that one training holds out all structures, unless setting 2 takes
    their slices away.
    """
    if entry["tasks"] == "superpixels" and entry["setting"] == 1:
        return [list(structures)]
    return entry["held_out"] or [[name] for name in structures]


def modules(entry: dict) -> list[str | Path]:
    """What an entry's results depend on besides the training: files of its method, network and architecture."""
    base = entry["base"]
    inside = Registry("lib.models").modules(base["architecture"]) if "architecture" in base else NETWORKS.modules(base)
    return [*METHODS.modules(own_parameters(entry)), *inside]
