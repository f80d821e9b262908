"""From the configuration to cells: meaning checked after the schema, every message naming the key and the fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import product
from pathlib import Path

import yaml
from jsonschema import ValidationError
from jsonschema.exceptions import best_match

from lib import classical, external, few_shot
from lib.budget import BUDGETS
from lib.cells import DETERMINISTIC, OUTSIDE_GRID, Cell, method_of
from lib.claims import ITERATIONS, OF_SESSIONS, checked, method_name
from lib.data.conditions import check_conditions
from lib.data.layouts import chosen, declared_structures, source_files
from lib.data.split import fold_count, split_settings
from lib.data.strengths import families
from lib.data.structures import classes_of
from lib.errors import BadInput
from lib.interactive import experiment as interactive
from lib.losses import needs_features
from lib.losses.catalogue import loss_recipe
from lib.losses.recipes import check_trainable
from lib.provenance import value_hash
from lib.rates import tuned_name
from lib.registry import Registry, did_you_mean, nested
from lib.search.found import KIND, search_name, search_of
from lib.status import cell_state

MODELS = Registry("lib.models")
# What the trainer supplies to constructors of models; a recipe may not set these.
MODEL_CONTEXT = ("in_channels", "out_channels", "spatial_dims")
SIMULATED_FILES = {"image": "{patient}_t1.nii.gz", "label": "{patient}_seg.nii.gz"}
RESERVED = (
    "data",
    "cells",
    "attempts",
    "checkpoints",
    "tensorboard",
    "downloads",
    "splits",
    "logs",
    "benchmarks",
    "diff",
    "nnunet",
)  # other folders of results/


def methods(config: dict) -> list[tuple[str, str]]:
    """(architecture, loss) pairs of the experiment, without those that the command line excludes.

    Of a method outside the grid, the pair is its name and its kind, such as ("nnunet_v2", "external").
    """
    return [pair for pair in declared_methods(config) if method_of(*pair) not in config["exclude"]]


def declared_methods(config: dict) -> list[tuple[str, str]]:
    """Pairs as the experiment says: its `methods`, or the cross without what it excludes."""
    experiment = config["experiment"]
    if "methods" in experiment:
        return [_pair(text, config) for text in experiment["methods"]]
    excluded = {_pair(text, config) for text in experiment.get("exclude", [])}
    crossed = [pair for pair in product(experiment["architectures"], experiment["losses"]) if pair not in excluded]
    return crossed + [(name, kind) for kind in OUTSIDE_GRID for name in experiment.get(kind, [])]


def _pair(text: str, config: dict) -> tuple[str, str]:
    """The pair of "architecture+loss", or of the name and kind of a method outside the grid; "" for unknown ones."""
    architecture, plus, loss = text.partition("+")
    return architecture, loss if plus else next((k for k in OUTSIDE_GRID if text in config[k]), "")


def cells(config: dict) -> list[Cell]:
    """All cells of the configured experiment."""
    experiment = config["experiment"]
    return [
        Cell(dataset, condition, protocol, architecture, loss, fold, seed)
        for dataset in experiment["datasets"]
        for condition in experiment["conditions"]
        for protocol in protocols(experiment)
        for architecture, loss in methods(config)
        for fold in experiment["folds"]
        for seed in experiment["seeds"]
        if loss not in DETERMINISTIC or seed == experiment["seeds"][0]
        if loss != "external" or _is_imported(config, architecture, dataset, condition, seed)
    ]


def protocols(experiment: dict) -> list[str]:
    """Those of the experiment's cells: its own and, with a search for learning rates, the one of what was chosen."""
    name = experiment["protocol"]
    return [name, tuned_name(name)] if "learning_rates" in experiment else [name]


def searches(config: dict) -> list[Cell]:
    """The searches that architectures of the experiment take their genotypes from, as cells: lib.search.found."""
    trained = (cell for cell in cells(config) if cell.loss not in OUTSIDE_GRID)
    found = (search_of(config["architectures"][cell.architecture], cell) for cell in trained)
    return list(dict.fromkeys(search for search in found if search))


def _is_imported(config: dict, name: str, dataset: str, condition: str, seed: int) -> bool:
    settings = external.settings_for(name, config["external"][name], dataset)
    return external.is_made(settings, config["conditions"][condition], seed == config["experiment"]["seeds"][0])


def predictions_of(config: dict, cell: dict) -> dict:
    """The `external` settings of a cell, given by its columns, for `lib.inference.external.import_cell`."""
    entry = config["external"][cell["method"]]
    return external.filled(external.settings_for(cell["method"], entry, cell["dataset"]), cell)


def recorded_state(cell: Cell) -> str:
    """`ok` or `failed` as the cell's records say, else `missing`."""
    return cell_state(cell.folder, cell.stages)["state"]


def folder_state(name: str, dataset: dict) -> str:
    """A hash of names, sizes and modification times of the files of a dataset in a local folder; "" for other sources.

    Raises BadInput where the folder is missing or empty, with what the source says about getting the data.
    """
    source = dataset["source"]
    if "path" not in source:
        return ""
    folder = Path(source["path"]).expanduser()
    if not folder.is_dir() or all(entry.name.startswith(".") for entry in folder.iterdir()):
        from lib.data.download import require_folder  # requests takes a while to import

        require_folder(source, name)
    try:
        files = source_files(folder, dataset)
    except BadInput as error:
        raise BadInput(f"config, datasets: {name}: {error}") from None
    return value_hash([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files])


def learns_from_fold(preprocess: dict) -> bool:
    """Whether preprocessing takes statistics from the training patients of a fold, so that each fold has a store."""
    spacing = preprocess["spacing"]
    return preprocess["intensity"] == "ct" or spacing == "median" or "median" in spacing


def claims(config: dict) -> dict[str, dict]:
    """The experiment's claims, their architectures replaced by the stand-ins that the experiment declares.

    A claim about a method that the command line excludes is left out too.
    """
    stand_ins = config["experiment"].get("stand_ins", {})

    def side(method: dict) -> dict:
        return {key: stand_ins.get(name, name) if key == "architecture" else name for key, name in method.items()}

    sides = ("treatment", "control")
    found = {
        name: claim | {key: side(claim[key]) for key in sides if key in claim}
        for name, claim in ((name, config["claims"][name]) for name in config["experiment"].get("claims", []))
    }
    return {
        name: claim
        for name, claim in found.items()
        if not any(method_name(claim[key]) in config["exclude"] for key in sides if key in claim)
    }


def add_claims(config: dict, folder: Path) -> None:
    """Put the claims of the catalogue, one file per paper, under those that the configuration has of its own."""
    catalogue: dict[str, dict] = {}
    for file in sorted(folder.glob("*.yaml")):
        found = yaml.safe_load(file.read_text(encoding="utf-8"))["claims"]
        if twice := catalogue.keys() & found.keys():
            raise BadInput(f"{file}: claims: {min(twice)} is in another file of {folder} too; rename one.")
        catalogue |= found
    own = config.get("claims", {})
    config["claims"] = {name: catalogue.get(name, {}) | own.get(name, {}) for name in catalogue | own}


def varied_parts(config: dict) -> set[str]:
    """Parts of the conditions (image, train_labels, train_patients) that the experiment has at several strengths."""
    conditions = {name: config["conditions"][name] for name in config["experiment"]["conditions"]}
    return {family.part for unit in ("mm", "px") for family in families(conditions, unit)}


def replace_blocks(config: dict, overlay: dict) -> None:
    """Replace, in place, what Snakemake has merged of an overlay although two of it make no sense in one block.

    An overlay's experiment replaces the default one, and in a dataset it has in the catalogue too, source, layout,
    files, palette, structures, splits and preprocess.intensity do: two sources or two ways to split are none. So does
    the budget of a protocol.
    """
    if "experiment" in overlay:
        config["experiment"] = deepcopy(overlay["experiment"])
    for name, block in overlay.get("protocols", {}).items():
        if given := block.keys() & set(BUDGETS):
            for key in set(BUDGETS) - given:
                config["protocols"][name].pop(key, None)
    for name, block in overlay.get("datasets", {}).items():
        _replace_in_dataset(config["datasets"][name], block)


def put_on_bases(config: dict, merge: Callable[[dict, dict], None]) -> None:
    """Give, in place, each dataset with `base` the keys of that one under its own, as an overlay of that one would.

    merge: puts one mapping over another, in place, as overlays are merged.
    Raises BadInput for a base that is unknown or has one itself.
    """
    blocks = config["datasets"]
    bases = {name: block["base"] for name, block in blocks.items() if isinstance(block, dict) and "base" in block}
    for name, base in bases.items():
        where = f"datasets: {name}: base"
        _known(base, blocks, where)
        if base in bases:
            raise BadInput(f"config, {where}: '{base}' has a base itself; name that one, '{bases[base]}'.")
        block = {key: value for key, value in blocks[name].items() if key != "base"}
        blocks[name] = deepcopy(blocks[base])
        merge(blocks[name], deepcopy(block))
        _replace_in_dataset(blocks[name], block)


def _replace_in_dataset(own: dict, block: dict) -> None:
    for key in {"source", "layout", "files", "palette", "structures", "splits"} & block.keys():
        own[key] = deepcopy(block[key])
    if "files" in block and "layout" not in block and {"image", "label"} & block["files"].keys():
        own.pop("layout", None)
    if "intensity" in block.get("preprocess", {}):
        own["preprocess"]["intensity"] = deepcopy(block["preprocess"]["intensity"])


def explain(error: ValidationError) -> str:
    """The schema's complaint in one line: the key, what is wrong with it, and the fix."""
    error = best_match([error])
    hint, parts = "", error.schema.get("properties", {})
    if error.validator == "additionalProperties" and parts:
        hint = "".join(f".{did_you_mean(str(key), parts)}" for key in error.instance.keys() - parts)
    elif (
        error.validator == "type" and isinstance(error.instance, str) and re.fullmatch(r"\d+e[-+]?\d+", error.instance)
    ):
        hint = ": YAML reads this as text; write it with a point and a sign, as in 1.0e-3."
    elif error.validator == "required" and "structures" in error.message:
        hint = _suggested_structures(error.instance)
    elif "description" in error.schema:
        hint = f". {error.schema['description']}"
    return f"config: {': '.join([*map(str, error.absolute_path), error.message])}{hint}"


def _suggested_structures(dataset: dict) -> str:
    """What the files of a dataset themselves say of its structures, as YAML to paste."""
    hint = ": name each structure and its label value, as in structures: {tumour: 1}"
    try:
        declared = declared_structures(dataset["source"]["path"], dataset["layout"])
    except (KeyError, BadInput):
        return hint
    return (
        f"; its own files say\n    structures: {{{', '.join(f'{k}: {v}' for k, v in declared.items())}}}"
        if declared
        else hint
    )


def check_meaning(config: dict) -> None:
    """Raise BadInput for what a schema cannot see: unknown names, parameters and folds, claims without their methods.

    `config` has passed the schema. Reads no data and imports no torch.
    """
    for kind, check in (
        ("architectures", lambda name: MODELS.check(config["architectures"][name], MODEL_CONTEXT)),
        ("losses", lambda name: loss_recipe(name, config["losses"])),
        ("classical", lambda name: classical.build(config["classical"][name])),
        ("few_shot", lambda name: few_shot.check_entry(config["few_shot"][name], config)),
    ):
        for name in config[kind]:
            try:
                check(name)
            except BadInput as error:
                raise BadInput(f"config, {kind}: {name}: {error}") from None

    experiment = config["experiment"]
    where = f"experiment '{experiment['name']}'"
    if experiment["name"] in RESERVED:
        raise BadInput(f"config, {where}: the name is a folder of results/ already; choose another name.")
    given = {key for key in ("methods", "architectures", "losses", "exclude", *OUTSIDE_GRID) if key in experiment}
    if given != {"methods"} and given - {"exclude", *OUTSIDE_GRID} != {"architectures", "losses"}:
        raise BadInput(
            f"config, {where}: give either `methods: [architecture+loss, external, …]` or both `architectures:` and "
            f"`losses:`, with {', '.join(f'`{key}:`' for key in ('exclude', *OUTSIDE_GRID))} as you like."
        )
    for key in ("datasets", "conditions"):
        for name in experiment[key]:
            _known(name, config[key], f"{where}: {key}")
    _known(experiment["protocol"], config["protocols"], f"{where}: protocol")
    for key in ("methods", "exclude"):
        for text in experiment.get(key, []):
            architecture, loss = _pair(text, config)
            if not loss:
                _known(text, [name for kind in OUTSIDE_GRID for name in config[kind]], f"{where}: {key}")
            if loss not in OUTSIDE_GRID:
                _known(architecture, config["architectures"], f"{where}: {key}: '{text}'")
                _known(loss, config["losses"], f"{where}: {key}: '{text}'")
    declared = {method_of(*pair) for pair in declared_methods(config)}
    for text in config["exclude"]:
        _known(text, declared | {*interactive.settings_of(config).get("methods", [])}, "exclude")
    if not methods(config):
        raise BadInput(f"config, {where}: exclude: leaves no method; shorten it.")
    for architecture, loss in methods(config):
        if loss in OUTSIDE_GRID:
            _known(architecture, config[loss], f"{where}: methods")
            continue
        _known(architecture, config["architectures"], f"{where}: architectures")
        _known(loss, config["losses"], f"{where}: losses")
        try:
            check_trainable(loss_recipe(loss, config["losses"]))
        except BadInput as error:
            raise BadInput(f"config, {where}: losses: {loss}: {error}") from None

    for name in {*experiment["datasets"], *([config["dataset"]] if "dataset" in config else [])}:
        _known(name, config["datasets"], "dataset")
        _check_dataset(name, config["datasets"][name])
    check_conditions({name: config["conditions"][name] for name in experiment["conditions"]})
    for name, protocol in config["protocols"].items():
        if len(given := [key for key in BUDGETS if key in protocol]) != 1:
            raise BadInput(
                f"config, protocols: {name}: has {' and '.join(given) or 'no budget'}; give one budget, as "
                "iterations: 400, epochs: 30 or minutes: 20."
            )
        if (protocol["schedule"] == "halving") != ("halve_every" in protocol):
            raise BadInput(
                f"config, protocols: {name}: schedule: halving and halve_every belong together; give both, or none."
            )
    patch = config["protocols"][experiment["protocol"]]["patch"]
    for name in experiment["datasets"]:
        dataset = config["datasets"][name]
        folds = fold_count(dataset["splits"])
        for fold in experiment["folds"]:
            if folds is not None and fold >= folds:
                raise BadInput(
                    f"config, {where}: folds: {fold} is too high, because dataset '{name}' has {folds} fold"
                    f"{'s' * (folds > 1)}, numbered from 0; use folds: {list(range(folds))} or change "
                    f"datasets: {name}: splits."
                )
        dims = 2 if dataset["preprocess"]["slices"] else 3
        if len(patch) != dims:
            raise BadInput(
                f"config, protocols: {experiment['protocol']}: patch: {patch} has {len(patch)} sizes, but dataset "
                f"'{name}' is trained in {dims}-D (preprocess: slices: {dataset['preprocess']['slices']}); give {dims}."
            )

    _check_learning_rates(config, where)
    _check_searches(config)
    _check_outside_grid(config)
    _check_external(config, where)
    _check_few_shot(config)
    run = {method_of(*pair) for pair in methods(config)}
    for full, used in experiment.get("stand_ins", {}).items():
        _known(full, config["architectures"], f"{where}: stand_ins")
        _known(used, config["architectures"], f"{where}: stand_ins: {full}")
    for name in experiment.get("claims", []):
        _known(name, config["claims"], f"{where}: claims")
    structures = {"mean"}.union(*(config["datasets"][name]["structures"] for name in experiment["datasets"]))
    varied = varied_parts(config)
    for name, claim in claims(config).items():
        try:
            checked(name, claim)
        except BadInput as error:
            raise BadInput(f"config, {error}") from None
        if claim.get("metric") in OF_SESSIONS:
            raise BadInput(
                f"config, {where}: claims: {name} is about {claim['metric']}, by which only interactive methods are "
                "scored; move it to interactive: claims."
            )
        outside = [method_name(claim[side]) for side in ("treatment", "control") if side in claim]
        outside = [method for method in outside if _pair(method, config)[1] in OUTSIDE_GRID]
        if claim.get("metric") == ITERATIONS and outside:
            raise BadInput(
                f"config, {where}: claims: {name} is about validations while training, but there are none of "
                f"'{outside[0]}', which is no architecture with a loss; drop the claim."
            )
        _known(claim["structure"], structures, f"claims: {name}: structure")
        across = claim.get("across", {})
        for structure in (s for members in across.get("structures", {}).values() for s in members):
            _known(structure, structures, f"claims: {name}: across: structures")
        if "strength_of" in across and across["strength_of"] not in varied:
            raise BadInput(
                f"config, {where}: claims: {name} is about the strength of {across['strength_of']}, but of conditions: "
                f"{experiment['conditions']} no two differ in it alone; add clean and a strength, or drop the claim."
            )
        for side in ("treatment", "control"):
            method = method_name(claim[side]) if side in claim else ""
            if method and method not in run:
                raise BadInput(
                    f"config, {where}: claims: {name} needs the method '{method}' ({side}), which the "
                    f"experiment does not run; add it to methods, declare a stand-in, or drop the claim."
                )
    interactive.check(config, config["architectures"])
    if config["partial"] and config["retry_failed"]:
        raise BadInput("config: partial reports on what has ended, retry_failed runs again; choose one of them.")


def _check_learning_rates(config: dict, where: str) -> None:
    """The rates that an experiment tries: with that of its protocol, for every method that has one to choose."""
    experiment = config["experiment"]
    rates = experiment.get("learning_rates")
    if rates is None:
        return
    kinds = dict(methods(config))
    if few_shot_methods := [name for name, kind in kinds.items() if kind == "few_shot"]:
        raise BadInput(
            f"config, {where}: learning_rates: the few-shot method {few_shot_methods[0]} validates on no patients, so "
            "nothing can choose its rate; leave out the key, or such methods."
        )
    own = config["protocols"][experiment["protocol"]]["lr"]
    if own not in rates:
        raise BadInput(
            f"config, {where}: learning_rates: {rates} are without {own:g}, the lr of protocol "
            f"'{experiment['protocol']}', whose trainings are there anyway; add it."
        )


def _check_searches(config: dict) -> None:
    """The searches that architectures name, and the settings of those that the experiment runs."""
    for name, recipe in config["architectures"].items():
        for part in nested(recipe):
            if (search := search_name(part)) and part is not recipe:
                raise BadInput(
                    f"config, architectures: {name}: genotype: the search '{search}' is for a network of its own, not "
                    "for one inside another; give that one a genotype that was found."
                )
            if search:
                _known(search, config["searches"], f"architectures: {name}: genotype: search")
    if KIND in config["losses"]:
        raise BadInput(f"config, losses: '{KIND}' stands in the place of a loss and so is no name of one; rename it.")
    for dataset, name in {(search.dataset, search.protocol) for search in searches(config)}:
        settings = config["searches"][name]
        _known(settings["loss"], config["losses"], f"searches: {name}: loss")
        try:
            loss = loss_recipe(settings["loss"], config["losses"])
            check_trainable(loss)
        except BadInput as error:
            raise BadInput(f"config, searches: {name}: loss: {error}") from None
        if needs_features(loss):
            raise BadInput(f"config, searches: {name}: loss: '{settings['loss']}' looks at features of the network.")
        if settings["alphas_from"] >= settings["epochs"]:
            raise BadInput(
                f"config, searches: {name}: alphas_from: {settings['alphas_from']} leaves none of the "
                f"{settings['epochs']} epochs to the alphas; choose a smaller number, or more epochs."
            )
        dims = 2 if config["datasets"][dataset]["preprocess"]["slices"] else 3
        if len(settings["patch"]) != dims:
            raise BadInput(
                f"config, searches: {name}: patch: {settings['patch']} has {len(settings['patch'])} sizes, but dataset "
                f"'{dataset}' is trained in {dims}-D; give {dims}."
            )


def _check_outside_grid(config: dict) -> None:
    """Names of methods outside the grid: each means one method, and no kind is a loss."""
    if reserved := [kind for kind in OUTSIDE_GRID if kind in config["losses"]]:
        raise BadInput(f"config, losses: '{reserved[0]}' is a kind of method and so no name of a loss; rename it.")
    for name, kind in ((name, kind) for name, kind in methods(config) if kind in OUTSIDE_GRID):
        if name in config["architectures"]:
            raise BadInput(f"config, {kind}: '{name}' is the name of an architecture too; choose another.")
        if others := [other for other in OUTSIDE_GRID if other != kind and name in config[other]]:
            raise BadInput(f"config, {kind}: '{name}' is in {others[0]} too; rename one of them.")


def _check_external(config: dict, where: str) -> None:
    """The experiment's external methods: paths for every dataset, and a condition that they are made for."""
    experiment = config["experiment"]
    for name in (architecture for architecture, loss in methods(config) if loss == "external"):
        for dataset in experiment["datasets"]:
            try:
                settings = external.settings_for(name, config["external"][name], dataset)
            except BadInput as error:
                raise BadInput(f"config, {error}") from None
            if not any(external.is_made(settings, config["conditions"][c], True) for c in experiment["conditions"]):
                raise BadInput(
                    f"config, {where}: external: {name} has predictions for unchanged data only, because its path has "
                    f"no {{condition}}, but conditions: {experiment['conditions']} all change the data; add clean to "
                    "them, or {condition} to the path."
                )
            declared = config["datasets"][dataset]["structures"].values()
            ours = {0, *(v for value in declared for v in (value if isinstance(value, list) else [value]))}
            if strange := [v for v in settings.get("labels", {}).values() if v not in ours]:
                raise BadInput(
                    f"config, external: {name}: labels: {strange[0]} is no label of dataset '{dataset}', whose "
                    f"structures are {sorted(ours - {0})}; write theirs: ours, and 0 for background."
                )


def _check_few_shot(config: dict) -> None:
    """The experiment's few-shot methods fit its datasets."""
    for name, dataset in product(dict(methods(config)), config["experiment"]["datasets"]):
        if name not in config["few_shot"]:
            continue
        try:
            if not config["datasets"][dataset]["preprocess"]["slices"]:
                raise BadInput("few-shot methods segment slices, and it is one of volumes; set preprocess: slices.")
            few_shot.check_structures(config["few_shot"][name], list(config["datasets"][dataset]["structures"]))
        except BadInput as error:
            raise BadInput(f"config, few_shot: {name}, for dataset '{dataset}': {error}") from None


def _known(name: str, known: Iterable[str], where: str) -> None:
    if name not in known:
        raise BadInput(f"config, {where}: '{name}' is not in the catalogue.{did_you_mean(str(name), known)}")


def _check_dataset(name: str, dataset: dict) -> None:
    where = f"config, datasets: {name}"
    try:
        split_settings(dataset["splits"])
        classes_of(dataset["structures"])
        if "simulate" not in dataset["source"]:
            chosen(dataset)
        if dataset["source"].keys() & {"url", "urls"}:
            from lib.data.download import remote_files  # requests takes a while to import

            remote_files(dataset["source"], name)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    if "mean" in dataset["structures"]:
        raise BadInput(f"{where}: structures: 'mean' is the mean over structures; rename it.")
    values = {v for value in dataset["structures"].values() for v in (value if isinstance(value, list) else [value])}
    if both := sorted(values & set(dataset["ignore"])):
        raise BadInput(f"{where}: ignore: {both[0]} is a label of a structure too; remove it from one of them.")
    of_structures = {"lesions: structures": dataset.get("lesions", {}).get("structures", [])}
    for key in ("tolerance_mm", "tolerance_px"):
        if isinstance(each := dataset.get(key), dict):
            of_structures[key] = list(each)
            if lacking := [structure for structure in dataset["structures"] if structure not in each]:
                raise BadInput(f"{where}: {key}: '{lacking[0]}' has none; give one to each structure, or one number.")
    for key, given in of_structures.items():
        if unknown := [structure for structure in given if structure not in dataset["structures"]]:
            hint = did_you_mean(unknown[0], dataset["structures"])
            raise BadInput(f"{where}: {key}: '{unknown[0]}' is no structure of it.{hint}")
    labels = dataset.get("files", {}).get("label")
    if isinstance(labels, dict) and "label" in labels:
        raise BadInput(f"{where}: structures: 'label' would be taken for a whole label map; rename the structure.")
    if isinstance(labels, dict) and labels.keys() != dataset["structures"].keys():
        raise BadInput(
            f"{where}: files: label: gives masks of {', '.join(labels)}, but structures are "
            f"{', '.join(dataset['structures'])}; both must name the same."
        )
