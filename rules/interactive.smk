"""Simulated users: networks trained on boxes, sessions of every method with every robot, their tables, figures, page."""

from lib.interactive import experiment as interactive

PLAYED = bool(interactive.settings_of(config))
SESSIONS = interactive.sessions(config)
NETWORKS = interactive.networks(config)
SEARCHES = interactive.searches(config)
NETWORK, SESSION, SEARCH = (
    f"results/cells/{{dataset}}/{{condition}}/{{experiment}}/{{{name}}}/{kind}/fold{{fold}}/seed{{seed}}"
    for name, kind in zip(("architecture", "interactive", "interactive"), interactive.KINDS)
)
ENDED_SESSIONS = [s for s in SESSIONS if not config["partial"] or (s.folder / "predict.json").exists()]
INTERACTIVE_TABLES = expand(
    "results/{experiment}/interactive/{table}.csv",
    experiment=EXPERIMENT if PLAYED else [],
    table=["ledger", "rounds", "instances", "scores", "interactions", "comparisons", "curves", "seconds", "claims"],
)
INTERACTIVE_FIGURES = expand(
    "results/{experiment}/figures/{figure}.png",
    experiment=EXPERIMENT if PLAYED else [],
    figure=["users_curves", "users_interactions", "users_rounds"],
)


wildcard_constraints:
    interactive=one_of(config["interactive"]),


if config["retry_failed"] and workflow.is_main_process and not workflow.output_settings.dryrun:
    for ended in (*NETWORKS, *SEARCHES, *SESSIONS):
        forget_failure(ended.folder)


def of_group(wildcards, settings):
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
    instances = of_group(wildcards, settings)
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


def session_job(wildcards, kind=interactive.SESSION, **others):
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
        "instances": of_group(wildcards, settings),
        "tolerance": {"mm": dataset["tolerance_mm"], "px": dataset["tolerance_px"]},
        "code": code(kind, "lib.interactive.play_cell", *interactive.METHODS.modules(recipe)),
        **others,
    }


def network_input(wildcards, kind):
    """Record and folder of the network that a session starts from."""
    network = interactive.network_of(config, session_of(wildcards, kind))
    return {"record": f"{network.folder}/train.json", "network": f"{network.folder}/training"} if network else {}


def session_input(wildcards):
    search = interactive.search_of(config, session_of(wildcards, interactive.SESSION))
    return network_input(wildcards, interactive.SESSION) | (
        {"search_record": f"{search.folder}/train.json", "search": f"{search.folder}/search"} if search else {}
    )


rule references:
    input:
        cases="results/data/{dataset}/cases.csv",
        store="results/data/{dataset}/{condition}/store{scope}",
    output:
        references=directory("results/data/{dataset}/{condition}/references{scope}"),
    log:
        "results/logs/references/{dataset}/{condition}{scope}.log",
    benchmark:
        "results/benchmarks/references/{dataset}/{condition}{scope}.tsv"
    wildcard_constraints:
        scope=r"|-fold\d+",
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        block=lambda wildcards: of_dataset(wildcards, "structures", "palette", "ignore"),
        code=code("references"),
    script:
        "../workflow/scripts/references.py"


rule train_box_network:
    input:
        store=store_input,
        splits="results/data/{dataset}/splits.json",
        certificate="results/data/{dataset}/certificate.json",
    output:
        record=f"{NETWORK}/train.json",
        training=directory(f"{NETWORK}/training"),
    log:
        NETWORK.replace("results/cells", "results/logs/train_box_network") + ".log",
    benchmark:
        NETWORK.replace("results/cells", "results/benchmarks/train_box_network") + ".tsv"
    conda:
        "../envs/segcross.yaml"
    threads: config["protocols"][interactive.protocol_of(config)]["threads"] if PLAYED else 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=720,  # the same at each attempt: a training resumes, and partitions have limits
    params:
        job=box_network_job,
    script:
        "../workflow/scripts/train_box_network.py"


rule search_interactive:
    input:
        unpack(lambda wildcards: network_input(wildcards, interactive.SEARCH)),
        store=store_input,
        splits="results/data/{dataset}/splits.json",
    output:
        record=f"{SEARCH}/train.json",
        search=directory(f"{SEARCH}/search"),
    log:
        SEARCH.replace("results/cells", "results/logs/search_interactive") + ".log",
    benchmark:
        SEARCH.replace("results/cells", "results/benchmarks/search_interactive") + ".tsv"
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: int(bool(network_input(wildcards, interactive.SEARCH))),
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        job=lambda wildcards: session_job(
            wildcards,
            "search_interactive",
            grid=interactive.settings_of(config)["search"][wildcards.interactive],
        ),
        network=lambda wildcards: network_input(wildcards, interactive.SEARCH),
    script:
        "../workflow/scripts/search_interactive.py"


rule play:
    input:
        unpack(session_input),
        store=store_input,
        references=lambda wildcards: store_input(wildcards).replace("/store", "/references"),
        splits="results/data/{dataset}/splits.json",
    output:
        record=f"{SESSION}/predict.json",
        session=directory(f"{SESSION}/session"),
    log:
        SESSION.replace("results/cells", "results/logs/play") + ".log",
    benchmark:
        SESSION.replace("results/cells", "results/benchmarks/play") + ".tsv"
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: int(bool(network_input(wildcards, interactive.SESSION))),
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        job=lambda wildcards: session_job(wildcards, "play"),
        network=session_input,
    script:
        "../workflow/scripts/play.py"


rule interactive_tables:
    input:
        records=[f"{cell.folder}/predict.json" for cell in ENDED_SESSIONS],
        sessions=[f"{cell.folder}/session" for cell in ENDED_SESSIONS],
    output:
        **{
            table: f"results/{{experiment}}/interactive/{table}.csv"
            for table in (
                "ledger",
                "rounds",
                "instances",
                "scores",
                "interactions",
                "comparisons",
                "curves",
                "seconds",
                "claims",
            )
        },
    log:
        "results/logs/interactive_tables/{experiment}.log",
    benchmark:
        "results/benchmarks/interactive_tables/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        sessions=[asdict(cell) for cell in SESSIONS],
        others=[asdict(cell) for cell in (*NETWORKS, *SEARCHES)],
        protocol=interactive.protocol_of(config) if PLAYED else "",
        protocols={name: protocol_named(name) for name in ([interactive.protocol_of(config)] if PLAYED else [])},
        settings={key: interactive.settings_of(config).get(key) for key in ("interactions", "robots")},
        objects={d: interactive.objects_of(config, d) for d in config["experiment"]["datasets"]} if PLAYED else {},
        claims=interactive.claims(config),
        failed=config["failed_cells"],
        code=code("interactive_tables"),
    script:
        "../workflow/scripts/interactive_tables.py"
