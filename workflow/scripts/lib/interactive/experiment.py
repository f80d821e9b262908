"""From the configuration to the sessions of simulated users: which methods play on which objects, with which network.

Checked like the rest of the configuration: what is wrong names its key and the fix, before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from lib.cells import Cell
from lib.claims import METRICS_OF_USERS, checked, method_name
from lib.errors import BadInput
from lib.interactive import GROUPS, METHODS
from lib.losses import needs_features
from lib.losses.catalogue import loss_recipe
from lib.losses.recipes import check_trainable
from lib.registry import did_you_mean

CONTEXT = ("network",)  # what the workflow supplies to constructors of methods; a recipe may not set it
# They stand where a cell of the grid has its loss.
NETWORK, SESSION, SEARCH = KINDS = ("box_network", "interactive", "interactive_search")
OF_DATASET = (*GROUPS, "left_out", "channels")


def settings_of(config: dict) -> dict:
    """The block `interactive` of the experiment; empty where it has none."""
    return config["experiment"].get("interactive", {})


def objects_of(config: dict, dataset: str) -> dict:
    """{"seen": [structures], "unseen": […], "left_out": […], "channels": {"seen": …} or {}} of one dataset."""
    settings = settings_of(config)
    here = {key: settings.get(key) for key in OF_DATASET} | settings["datasets"].get(dataset, {})
    return {key: here.get(key) or ({} if key == "channels" else []) for key in OF_DATASET}


def methods(config: dict) -> list[str]:
    """Names of the methods that play, without those that the command line excludes."""
    return [name for name in settings_of(config).get("methods", []) if name not in config["exclude"]]


def recipe_of(config: dict, method: str) -> dict:
    """The constructor's part of a method's entry: `name` and parameters."""
    return {key: value for key, value in config["interactive"][method].items() if key != "architecture"}


def sessions(config: dict) -> list[Cell]:
    """One cell per method, fold and repeat; it plays every test instance with every robot.

    A cell's architecture is the method's name, its loss SESSION, its protocol the experiment's name, since that decides
    on what is played; its seed is the repeat.
    """
    return [
        _cell(config, *place, name, SESSION, repeat)
        for place in _places(config)
        for name in methods(config)
        for repeat in settings_of(config)["repeats"]
    ]


def searches(config: dict) -> list[Cell]:
    """One cell per method whose parameters are searched, and fold."""
    first = settings_of(config).get("repeats", [0])[0]
    wanted = [name for name in settings_of(config).get("search", {}) if name in methods(config)]
    return [_cell(config, *place, name, SEARCH, first) for place in _places(config) for name in wanted]


def networks(config: dict) -> list[Cell]:
    """The trainings that the sessions need, each once; a cell's architecture is the network's."""
    found = [network_of(config, cell) for cell in (*sessions(config), *searches(config))]
    return list(dict.fromkeys(cell for cell in found if cell))


def network_of(config: dict, session: Cell) -> Cell | None:
    """The training whose network a session uses; None for a method without one.

    Repeat i uses the i-th of the network's seeds, every repeat the same where there is one.
    """
    recipe = config["interactive"][session.architecture]
    if "network" not in METHODS.parameters(recipe["name"]):
        return None
    settings = settings_of(config)
    seeds = settings["network"].get("seeds", settings["repeats"])
    seed = seeds[settings["repeats"].index(session.seed) % len(seeds)]
    architecture = recipe.get("architecture", settings["network"]["architecture"])
    return _cell(config, session.dataset, session.condition, session.fold, architecture, NETWORK, seed)


def search_of(config: dict, session: Cell) -> Cell | None:
    """The search that chooses the parameters of a session's method; None where the configuration gives them."""
    here = (session.dataset, session.condition, session.architecture, session.fold)
    return next((s for s in searches(config) if (s.dataset, s.condition, s.architecture, s.fold) == here), None)


def by_hand(config: dict, dataset: str, condition: str) -> dict[str, dict]:
    """The catalogue's methods for a person: {name: {recipe, network: folder, or None}}.

    The network is that of the experiment's first fold and repeat, for the methods that play in it.
    """
    offered = {name: {"recipe": recipe_of(config, name), "network": None} for name in config["interactive"]}
    fold = config["experiment"]["folds"][0]
    for session in sessions(config):
        here = (session.dataset, session.condition, session.fold) == (dataset, condition, fold)
        if here and session.seed == settings_of(config)["repeats"][0] and (network := network_of(config, session)):
            offered[session.architecture]["network"] = str(network.folder / "training")
    return offered


def protocol_of(config: dict) -> str:
    """The protocol by which tables name the experiment: of the network, or where there is none, of the grid."""
    return settings_of(config).get("network", config["experiment"])["protocol"]


def channel_number(dataset: dict, chosen: str | int | None) -> int | None:
    """The position of a channel that is given by name or position; None, all of them, where none is chosen."""
    return list(dataset["files"]["image"]).index(chosen) if isinstance(chosen, str) else chosen


def families(config: dict) -> dict[str, str]:
    """Of each method the family it is drawn with: the registered name where several methods share it, else "others"."""
    registered = {name: config["interactive"][name]["name"] for name in methods(config)}
    several = [name for name in registered.values() if list(registered.values()).count(name) > 1]
    return {name: kind if kind in several else "others" for name, kind in registered.items()}


def pictured(config: dict, ended: list[Cell], dataset: str, condition: str) -> list[Cell]:
    """The sessions of a dataset and condition that are drawn: each method's first fold and repeat."""
    first = {"fold": config["experiment"]["folds"][0], "seed": settings_of(config)["repeats"][0]}
    wanted = {"dataset": dataset, "condition": condition} | first
    return [cell for cell in ended if all(getattr(cell, key) == value for key, value in wanted.items())]


def told(config: dict) -> dict:
    """What the report says of the experiment's block: settings, methods, networks and their training, objects of each
    dataset, the policy for failures; empty without the block.
    """
    if not settings_of(config):
        return {}
    names = list(dict.fromkeys(network.architecture for network in networks(config)))
    return {
        "settings": settings_of(config),
        "methods": {name: config["interactive"][name] for name in methods(config)},
        "networks": {name: config["architectures"][name] for name in names},
        "protocol": config["protocols"][protocol_of(config)],
        "objects": {name: objects_of(config, name) for name in config["experiment"]["datasets"]},
        "failed_cells": config["failed_cells"],
    }


def claims(config: dict) -> dict[str, dict]:
    """The claims about the methods that play; those about methods that the command line excludes are left out."""
    found = {name: config["claims"][name] for name in settings_of(config).get("claims", [])}
    return {
        name: claim
        for name, claim in found.items()
        if not any(method_name(claim[side]) in config["exclude"] for side in ("treatment", "control") if side in claim)
    }


def check(config: dict, models: Iterable) -> None:
    """Raise BadInput for what the schema cannot see. `models`: names of the known architectures."""
    for name, entry in config["interactive"].items():
        where = f"config, interactive: {name}"
        try:
            METHODS.check(recipe_of(config, name), CONTEXT)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        if "architecture" in entry:
            _known(entry["architecture"], models, f"{where}: architecture")
            if "network" not in METHODS.parameters(entry["name"]):
                raise BadInput(f"{where}: architecture: '{entry['name']}' uses no network; remove the key.")
    if taken := set(KINDS) & set(config["losses"]):
        raise BadInput(f"config, losses: '{min(taken)}' is a folder of the interactive track; rename the loss.")
    settings, experiment = settings_of(config), config["experiment"]
    if not settings:
        return
    where = f"config, experiment '{experiment['name']}': interactive"
    for name in settings["methods"]:
        _known(name, config["interactive"], f"{where}: methods")
        if name in config["architectures"]:
            raise BadInput(f"config, interactive: '{name}' is the name of an architecture too; choose another.")
    if not methods(config):
        raise BadInput(f"{where}: methods: all of them are excluded; exclude fewer.")
    _check_network(config, models, where)
    for dataset in settings["datasets"]:
        _known(dataset, experiment["datasets"], f"{where}: datasets")
    for dataset in experiment["datasets"]:
        _check_objects(config, dataset, where)
    for method, grid in settings["search"].items():
        _known(method, settings["methods"], f"{where}: search")
        for parameter in grid:
            entry = config["interactive"][method]
            _known(parameter, METHODS.parameters(entry["name"]).keys() - {"network"}, f"{where}: search: {method}")
    _check_claims(config, where)


def _places(config: dict) -> list[tuple[str, str, int]]:
    experiment = config["experiment"]
    if not settings_of(config):
        return []
    return [(d, c, f) for d in experiment["datasets"] for c in experiment["conditions"] for f in experiment["folds"]]


def _cell(config: dict, dataset: str, condition: str, fold: int, name: str, kind: str, seed: int) -> Cell:
    return Cell(dataset, condition, config["experiment"]["name"], name, kind, fold, seed)


def _check_network(config: dict, models: Iterable, where: str) -> None:
    settings = settings_of(config)
    needing = [n for n in methods(config) if "network" in METHODS.parameters(config["interactive"][n]["name"])]
    if needing and "network" not in settings:
        raise BadInput(
            f"{where}: methods: '{needing[0]}' needs a network; say which, as network: "
            "{architecture: pnet, protocol: boxes}, or take the method out."
        )
    if "network" not in settings:
        return
    network = settings["network"]
    _known(network["architecture"], models, f"{where}: network: architecture")
    _known(network["loss"], config["losses"], f"{where}: network: loss")
    _known(network["protocol"], config["protocols"], f"{where}: network: protocol")
    if 1 < len(network.get("seeds", [])) < (repeats := len(settings["repeats"])):
        raise BadInput(
            f"{where}: network: seeds: {network['seeds']} for {repeats} repeats would count one training as if it were "
            "two; give one seed for all repeats, or one for each."
        )
    loss = loss_recipe(network["loss"], config["losses"])
    try:
        check_trainable(loss)
    except BadInput as error:
        raise BadInput(f"{where}: network: loss: {error}") from None
    if needs_features(loss):
        raise BadInput(f"{where}: network: loss: '{network['loss']}' looks at features of the network; choose another.")
    protocol = config["protocols"][network["protocol"]]
    at = f"config, protocols: {network['protocol']}"
    if "iterations" not in protocol:
        raise BadInput(f"{at}: a network on boxes has no epochs or minutes; give iterations.")
    if protocol["batch"] != 1:
        raise BadInput(f"{at}: batch: {protocol['batch']} cannot be, because boxes differ in shape; give batch: 1.")
    if len(set(protocol["patch"])) > 1:
        raise BadInput(f"{at}: patch: {protocol['patch']} of a network on boxes has equal sides; give one size.")
    for name in config["experiment"]["datasets"]:
        dims = 2 if config["datasets"][name]["preprocess"]["slices"] else 3
        if len(protocol["patch"]) != dims:
            raise BadInput(
                f"{at}: patch: {protocol['patch']} has {len(protocol['patch'])} sizes, but dataset '{name}' is "
                f"segmented in {dims}-D; give {dims}."
            )


def _check_objects(config: dict, dataset: str, where: str) -> None:
    """Whether each structure of a dataset has its place, and the channels exist."""
    of_dataset = config["datasets"][dataset]
    structures, objects = of_dataset["structures"], objects_of(config, dataset)
    here = f"{where}: datasets: {dataset}" if dataset in settings_of(config)["datasets"] else where
    owner: dict[str, str] = {}
    if taken := set(GROUPS) & set(structures):
        raise BadInput(
            f"{here}: a structure of dataset '{dataset}' is called '{min(taken)}', which means the mean over these "
            "structures here; rename it."
        )
    for key in (*GROUPS, "left_out"):
        for name in objects[key]:
            if name not in structures:
                raise BadInput(
                    f"{here}: {key}: '{name}' is no structure of dataset '{dataset}'."
                    f"{did_you_mean(name, structures)} Where names differ, give {key} under interactive: datasets."
                )
            if name in owner:
                raise BadInput(f"{here}: '{name}' is in {owner[name]} and in {key}; keep it in one of them.")
            owner[name] = key
    for key in GROUPS:
        if not objects[key]:
            raise BadInput(
                f"{here}: {key}: names no structure of dataset '{dataset}', so nothing could be said about "
                f"{key} objects; give some of {', '.join(structures)}."
            )
    if lost := [name for name in structures if name not in owner]:
        raise BadInput(
            f"{here}: structure '{lost[0]}' of dataset '{dataset}' is neither seen nor unseen; add it to one of them, "
            "or to left_out: where nobody is to segment it."
        )
    _check_channels(of_dataset, dataset, objects["channels"], here)


def _check_channels(of_dataset: dict, dataset: str, channels: dict, where: str) -> None:
    named = of_dataset.get("files", {}).get("image")
    for key, channel in channels.items():
        if isinstance(named, dict) and channel not in [*named, *range(len(named))]:
            hint = did_you_mean(str(channel), named)
            raise BadInput(f"{where}: channels: {key}: dataset '{dataset}' has no channel {channel!r}.{hint}")
        if not isinstance(named, dict) and isinstance(channel, str):
            raise BadInput(
                f"{where}: channels: {key}: the channels of dataset '{dataset}' have no names in the configuration; "
                f"instead of '{channel}' give the position, from 0."
            )


def _check_claims(config: dict, where: str) -> None:
    run = set(settings_of(config)["methods"])
    for name in settings_of(config).get("claims", []):
        _known(name, config["claims"], f"{where}: claims")
        claim = config["claims"][name]
        try:
            found = checked(name, claim)
        except BadInput as error:
            raise BadInput(f"config, {error}") from None
        if found["metric"] not in METRICS_OF_USERS:
            raise BadInput(
                f"{where}: claims: {name} is about {found['metric']}, which interactive methods are not scored by; "
                f"metrics are {', '.join(METRICS_OF_USERS)}."
            )
        if "strength_of" in found["across"]:
            raise BadInput(f"{where}: claims: {name} is across conditions; those of users are across structures.")
        groups = {found["structure"], *(s for names in found["across"].get("structures", {}).values() for s in names)}
        known = {"mean", *GROUPS}.union(
            *(config["datasets"][d]["structures"] for d in config["experiment"]["datasets"])
        )
        for structure in groups:
            _known(structure, known, f"config, claims: {name}: structure")
        for side in ("treatment", "control"):
            method = method_name(claim[side]) if side in claim else ""
            if method and method not in run:
                raise BadInput(
                    f"{where}: claims: {name} needs the method '{method}' ({side}), which does not play; add it to "
                    "interactive: methods, or drop the claim."
                )


def _known(name: object, known: Iterable, where: str) -> None:
    if name not in known:
        raise BadInput(f"{where}: '{name}' is not in the catalogue.{did_you_mean(str(name), map(str, known))}")
