"""From the configuration to names that the rules use: cells, wildcards, slices of the configuration, code hashes."""

import re
import shutil
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config, validate

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from lib import config as segcross
from lib import external, few_shot, rates
from lib.cells import OUTSIDE_GRID, Cell
from lib.classical import CLASSICAL
from lib.controller import controller_is_gone, note_controller
from lib.errors import BadInput
from lib.figures.captions import caption_of
from lib.interactive import experiment as interactive
from lib.losses.catalogue import loss_recipe
from lib.losses.recipes import loss_modules
from lib.precision import AUTO, RECORD
from lib.provenance import code_hash
from lib.search.found import resolved, search_name, search_of
from lib.status import forget_failure

segcross.add_claims(config, Path(workflow.basedir) / "config" / "claims")
segcross.replace_blocks(config, workflow.config_settings.overwrite_config)
try:
    segcross.put_on_bases(config, update_config)
except BadInput as error:
    raise WorkflowError(str(error)) from None
# Snakemake's --config reads True as a boolean, but true as a string.
for key in ("strict", "partial", "retry_failed", "keep_probabilities"):
    if str(config.get(key)).lower() in ("true", "false"):
        config[key] = str(config[key]).lower() == "true"
if isinstance(config.get("exclude"), str):
    config["exclude"] = [config["exclude"]]
try:
    validate(config, "../config/schemas/config.schema.yaml")
except WorkflowError as error:
    raise WorkflowError(segcross.explain(error.__context__)) from None

try:
    segcross.check_meaning(config)
except BadInput as error:
    raise WorkflowError(str(error)) from None

rates.add_protocols(config)
EXPERIMENT = config["experiment"]["name"]
CELLS = segcross.cells(config)
TRIALS = rates.trials(CELLS, config["protocols"])
SEARCHES = segcross.searches(config)
SESSIONS = interactive.sessions(config)
NETWORKS = interactive.networks(config)
PARAMETER_SEARCHES = interactive.searches(config)
ALL_CELLS = [*SEARCHES, *TRIALS, *CELLS, *NETWORKS, *PARAMETER_SEARCHES, *SESSIONS]
CLAIMS = segcross.claims(config)
SIMULATED, DOWNLOADED = (
    [name for name, dataset in config["datasets"].items() if keys & dataset["source"].keys()]
    for keys in ({"simulate"}, {"url", "urls"})
)


def one_of(names):
    """A wildcard constraint; no names match nothing."""
    return "|".join(names) or "(?!)"


CELL = "{dataset}/{condition}/{protocol}/{architecture}/{loss}/fold{fold}/seed{seed}"
TRAINED_CELL, OUTSIDE_CELL = (
    CELL.replace("{loss}", f"{{loss,{'|'.join(losses)}}}") for losses in (config["losses"], OUTSIDE_GRID)
)


# Under a tuned protocol a training is chosen, under the others it is made.
CHOSEN_CELL, MADE_CELL = (
    TRAINED_CELL.replace("{protocol}", f"{{protocol,{one_of(map(re.escape, names))}}}")
    for names in (
        [name for name in config["protocols"] if rates.is_tuned(name)],
        [name for name in config["protocols"] if not rates.is_tuned(name)],
    )
)


# All but the first are for outputs: a rule's own wildcard_constraints do not reach into pathvars.
pathvars:
    cell=CELL,
    external_cell=CELL.replace("{loss}", "{loss,external}"),
    classical_cell=CELL.replace("{loss}", "{loss,classical}"),
    few_shot_cell=CELL.replace("{loss}", "{loss,few_shot}"),


wildcard_constraints:
    experiment=EXPERIMENT,
    dataset="|".join(config["datasets"]),
    condition="|".join(config["conditions"]),
    protocol="|".join(map(re.escape, config["protocols"])),
    architecture="|".join([*config["architectures"], *(name for kind in OUTSIDE_GRID for name in config[kind])]),
    loss="|".join([*config["losses"], *OUTSIDE_GRID]),
    fold=r"\d+",
    seed=r"\d+",


# Snakemake's lock of the folder outlives a controller that was killed; the same command has to work again.
CONTROLLER = Path(".snakemake/controller.json")
if workflow.is_main_process and not workflow.output_settings.dryrun:
    if controller_is_gone(CONTROLLER):
        shutil.rmtree(".snakemake/locks", ignore_errors=True)
        CONTROLLER.unlink()
    if not CONTROLLER.exists():
        note_controller(CONTROLLER)


onstart:
    note_controller(CONTROLLER)


if config["retry_failed"] and workflow.is_main_process:
    failed = [c for c in ALL_CELLS if segcross.recorded_state(c) == "failed"]
    dry = workflow.output_settings.dryrun  # `workflow.dryrun` is not known yet
    print(f"retry_failed: {len(failed)} recorded failures {'would be ' if dry else ''}forgotten", file=sys.stderr)
    for cell in [] if dry else failed:
        forget_failure(cell.folder)

# What tables and report are made of: all cells, or with `partial` those that have ended.
REPORTED = [c for c in CELLS if not config["partial"] or (c.folder / "evaluate.json").exists()]


@cache
def code(script, *components):
    """Hash of a rule's script and of what it imports; components (found by name at run time) are named."""
    return code_hash(Path(workflow.basedir) / "workflow" / "scripts" / f"{script}.py", *components)


def library_files(pattern):
    """Files of the library that are no modules, such as templates, for `code`."""
    return sorted((Path(workflow.basedir) / "workflow" / "scripts" / "lib").glob(pattern))


def of_dataset(wildcards, *keys):
    """Some keys of the dataset's configuration, as a rule parameter; other keys do not rerun the rule."""
    dataset = config["datasets"][wildcards.dataset]
    return {key: dataset[key] for key in keys if key in dataset}


def structures_of(*datasets):
    """Names of structures in one order; a structure has one colour in every figure of an experiment by its place here."""
    return list(dict.fromkeys(s for name in datasets for s in config["datasets"][name]["structures"]))


def as_cell(wildcards, seed=None):
    names = {k: getattr(wildcards, k) for k in ("dataset", "condition", "protocol", "architecture", "loss")}
    return Cell(**names, fold=int(wildcards.fold), seed=int(wildcards.seed if seed is None else seed))


def cell_of(wildcards):
    return as_cell(wildcards).columns()


def source_folder(wildcards):
    source = config["datasets"][wildcards.dataset]["source"]
    return source.get("path", f"results/data/{wildcards.dataset}/raw")


def raw_input(wildcards):
    made = wildcards.dataset in SIMULATED + DOWNLOADED
    return f"results/data/{wildcards.dataset}/raw" if made else []


def source_state(wildcards):
    """Names, sizes and times of a local folder's images and labels: a new or changed image is indexed and checked again."""
    try:
        return segcross.folder_state(wildcards.dataset, config["datasets"][wildcards.dataset])
    except BadInput as error:
        raise WorkflowError(str(error)) from None


def store_of(dataset, condition, fold):
    """The preprocessed dataset that a fold trains on: its own, where preprocessing learns from training patients."""
    scope = f"-fold{fold}" if segcross.learns_from_fold(config["datasets"][dataset]["preprocess"]) else ""
    return f"results/data/{dataset}/{condition}/store{scope}"


def store_input(wildcards):
    return store_of(wildcards.dataset, wildcards.condition, wildcards.fold)


def protocol_named(name):
    """The protocol without the one key that cannot change a result; train.py adds it."""
    protocol = config["protocols"][name]
    return {key: protocol[key] for key in sorted(protocol.keys() - {"checkpoint_minutes"})}


def precision_record(settings):
    """What training or prediction under these settings, a protocol's or a search's, waits for: nothing, unless auto."""
    return [str(RECORD)] if settings["precision"] == AUTO else []


def precision_of(wildcards):
    """Input function: `precision_record` of the wildcards' protocol."""
    return precision_record(config["protocols"][wildcards.protocol])


def bundles(stage):
    """(name, seeds) of each rule that does a stage of trained cells, as many seeds in one job as share it.

    With one each, there is one rule with the seed as a wildcard. A rule's params name no seed, for how cells are bundled
    must not look like a change of them.
    """
    seeds, size = sorted(config["experiment"]["seeds"]), config["seeds_per_job"]
    if size == 1:
        return [(stage, ["{seed}"])]
    chunks = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    return [(stage if len(chunks) == 1 else f"{stage}_{n}", chunk) for n, chunk in enumerate(chunks, start=1)]


def of_seeds(seeds, path):
    """The path for each of the seeds, as expand() would with all other wildcards left as they are."""
    return [path.replace("{seed}", str(seed)) for seed in seeds]


def bundle_of(seeds, path):
    return path.replace("{seed}", "-".join(map(str, seeds)))


def log_of(seeds, path):
    """None for several seeds: Snakemake would delete the logs of all when one is to be done."""
    return of_seeds(seeds, path) if len(seeds) == 1 else []


def threads_for(seeds):
    return lambda wildcards: config["protocols"][wildcards.protocol]["threads"] * len(seeds)


def genotypes_for(seeds):
    """Input function: what the searches have found whose genotypes the cells' architecture takes; else nothing."""

    def found(wildcards):
        recipe = config["architectures"][wildcards.architecture]
        cells = [as_cell(wildcards, None if seed == "{seed}" else seed) for seed in seeds]
        return [f"{search.folder}/genotype.yaml" for cell in cells if (search := search_of(recipe, cell))]

    return found


def times_attempt(amount):
    return lambda wildcards, attempt: amount * attempt


def training_job(wildcards):
    """The cell's own slice of the configuration but its name, so that an edited recipe reruns its cells alone."""
    loss = loss_recipe(wildcards.loss, config["losses"])
    return {
        "model": config["architectures"][wildcards.architecture],
        "loss": loss,
        "protocol": protocol_named(wildcards.protocol),
        "code": code(
            "train",
            "lib.training",
            *segcross.MODELS.modules(config["architectures"][wildcards.architecture]),
            *loss_modules(loss),
        ),
    }


def tried(wildcards):
    """The trainings that a cell under a tuned protocol chooses from, by their learning rates."""
    return rates.trials_of(as_cell(wildcards), config["protocols"])


def search_job(wildcards):
    """A search's own slice of the configuration."""
    settings = config["searches"][wildcards.search]
    loss = loss_recipe(settings["loss"], config["losses"])
    return {
        "settings": {key: settings[key] for key in sorted(settings.keys() - {"checkpoint_minutes"})},
        "loss": loss,
        "code": code("search", "lib.search.darts", *loss_modules(loss)),
    }


def forecast_job(cell):
    """The job of a training that need not be run to be timed."""
    model = resolved(config["architectures"][cell.architecture], cell)
    if search := search_name(model):  # until one is found, another genotype of its size
        model = model | {"genotype": {"random": 0, "nodes": config["searches"][search]["nodes"]}}
    return training_job(cell) | {
        "cell": cell.columns(),
        "model": model,
        "store": store_input(cell),
        "splits": f"results/data/{cell.dataset}/splits.json",
        "certificate": f"results/data/{cell.dataset}/certificate.json",
        "threads": min(config["protocols"][cell.protocol]["threads"], workflow.cores or 1),
    }


def prediction_job(wildcards):
    structures = list(config["datasets"][wildcards.dataset]["structures"])
    return {
        **({"probabilities": structures} if config["keep_probabilities"] else {}),
        "model": config["architectures"][wildcards.architecture],
        "protocol": protocol_named(wildcards.protocol),
        "code": code(
            "predict",
            "lib.inference.predict",
            *segcross.MODELS.modules(config["architectures"][wildcards.architecture]),
        ),
    }


def evaluation_job(wildcards):
    return {
        **of_dataset(wildcards, "structures", "palette", "ignore", "lesions", "surface"),
        "tolerance": {
            "mm": config["datasets"][wildcards.dataset]["tolerance_mm"],
            "px": config["datasets"][wildcards.dataset]["tolerance_px"],
        },
        "code": code("evaluate", "lib.evaluation"),
    }


def verification_job(cell):
    """The job that scored a cell, for scoring it again."""
    return evaluation_job(cell) | {
        "cell": cell.columns(),
        "index": f"results/data/{cell.dataset}/cases.csv",
        "splits": f"results/data/{cell.dataset}/splits.json",
        "predictions": f"{cell.folder}/predictions",
        "output": f"{cell.folder}/scores.csv",
    }


def import_job(wildcards):
    """Where a cell's predictions are, with the state of that folder, so that changed ones are imported again."""
    cell = cell_of(wildcards)
    settings = segcross.predictions_of(config, cell)
    return {
        "cell": cell,
        "external": settings,
        **of_dataset(wildcards, "structures"),
        # A folder that is away for now must not cost what was imported from it.
        "state": external.folder_state(settings) or external.imported_state(as_cell(wildcards)),
        "code": code("import_predictions", "lib.inference.external"),
    }


def classical_job(wildcards):
    recipe = config["classical"][wildcards.architecture]
    return {
        "cell": cell_of(wildcards),
        "classical": recipe,
        "code": code("segment_classical", "lib.inference.classical", *CLASSICAL.modules(recipe)),
    }


def few_shot_job(wildcards, script, module):
    """Of the training or the prediction of a few-shot method."""
    settings, loss = few_shot.resolved(config["few_shot"][wildcards.architecture], config)
    protocol = protocol_named(wildcards.protocol)
    if protocol["precision"] == AUTO:
        protocol["precision"] = "float32"  # the only one that these methods have
    structures = list(config["datasets"][wildcards.dataset]["structures"])
    return {
        "cell": cell_of(wildcards),
        "model": settings | {"structures": structures},
        "loss": loss,
        "protocol": protocol,
        "code": code(script, module, *few_shot.modules(settings), *loss_modules(loss)),
    }


def instances_of(wildcards, settings):
    """What of the experiment decides on the instances of a dataset."""
    objects = interactive.objects_of(config, wildcards.dataset)
    dataset = config["datasets"][wildcards.dataset]
    channel = {
        group: interactive.channel_number(dataset, objects["channels"].get(group)) for group in interactive.GROUPS
    }
    return {
        "structures": dataset["structures"],
        **{group: objects[group] for group in interactive.GROUPS},
        "channel": channel,
        **{key: settings[key] for key in ("margin", "slices_per_case", "min_size")},
    }


def box_network_job(wildcards):
    settings = interactive.settings_of(config)
    loss = loss_recipe(settings["network"]["loss"], config["losses"])
    model = config["architectures"][wildcards.architecture]
    protocol = protocol_named(settings["network"]["protocol"])
    instances = instances_of(wildcards, settings)
    return {
        "cell": {
            **{key: wildcards[key] for key in ("dataset", "condition", "architecture")},
            "protocol": settings["network"]["protocol"],
            "fold": int(wildcards.fold),
            "seed": int(wildcards.seed),
        },
        "model": model,
        "loss": loss,
        "protocol": protocol,
        "instances": {key: instances[key] for key in ("structures", "seen", "margin", "min_size")}
        | {"channel": instances["channel"]["seen"], "size": protocol["patch"][0]},
        "code": code(
            "train_box_network", "lib.interactive.networks", *segcross.MODELS.modules(model), *loss_modules(loss)
        ),
    }


def session_of(wildcards, kind):
    return Cell(
        wildcards.dataset,
        wildcards.condition,
        wildcards.experiment,
        wildcards.interactive,
        kind,
        int(wildcards.fold),
        int(wildcards.seed),
    )


def session_job(wildcards, script, module, **others):
    settings = interactive.settings_of(config)
    recipe = interactive.recipe_of(config, wildcards.interactive)
    dataset = config["datasets"][wildcards.dataset]
    return {
        "cell": {
            **{key: wildcards[key] for key in ("dataset", "condition")},
            "protocol": interactive.protocol_of(config),
            "method": wildcards.interactive,
            "fold": int(wildcards.fold),
            "seed": int(wildcards.seed),
        },
        "method": recipe,
        **{key: settings[key] for key in ("robots", "marks", "interactions")},
        "instances": instances_of(wildcards, settings),
        "tolerance": {"mm": dataset["tolerance_mm"], "px": dataset["tolerance_px"]},
        "surface": dataset["surface"],
        "code": code(script, module, *interactive.METHODS.modules(recipe)),
        **others,
    }


def network_input(wildcards, kind):
    """Record and folder of the network that a session starts from."""
    network = interactive.network_of(config, session_of(wildcards, kind))
    return {"record": f"{network.folder}/train.json", "network": f"{network.folder}/training"} if network else {}


def references_input(wildcards):
    """The references on the grid of a session's store."""
    folder, _, scope = store_input(wildcards).rpartition("store")
    return f"{folder}references{scope}"


def session_input(wildcards):
    search = interactive.search_of(config, session_of(wildcards, interactive.SESSION))
    return network_input(wildcards, interactive.SESSION) | (
        {"search_record": f"{search.folder}/train.json", "search": f"{search.folder}/search"} if search else {}
    )


def report_config():
    """The part of the configuration that the experiment uses: what the report prints and depends on."""
    experiment = config["experiment"]
    recipes = {kind: {getattr(c, kind): None for c in CELLS} for kind in ("architecture", "loss")}
    architectures = {k: v for k, v in config["architectures"].items() if k in recipes["architecture"]}
    searched = {search_name(recipe) for recipe in architectures.values()}
    return {
        "experiment": experiment,
        "datasets": {name: config["datasets"][name] for name in experiment["datasets"]},
        "architectures": architectures,
        "searches": {name: settings for name, settings in config["searches"].items() if name in searched},
        "losses": {name: loss_recipe(name, config["losses"]) for name in recipes["loss"] if name not in OUTSIDE_GRID},
        **{kind: {k: v for k, v in config[kind].items() if k in recipes["architecture"]} for kind in OUTSIDE_GRID},
        "interactive": interactive.told(config),
        "conditions": CONDITIONS,
        "protocols": {name: config["protocols"][name] for name in segcross.protocols(experiment)},
        "claims": CLAIMS,
        "failed_cells": config["failed_cells"],
        "empty_masks": config["empty_masks"],
    }


def played_config():
    """Of an experiment with simulated users: the claims about them, and the protocol of their networks."""
    if not PLAYED:
        return {}
    name = interactive.protocol_of(config)
    return {"claims": interactive.claims(config), "protocols": {name: config["protocols"][name]}}
