"""A page on this computer on which a person segments with the interactive methods."""


def annotated(key):
    """The dataset or condition of the page: `--config dataset=…`, else the experiment's first."""
    names = config["experiment"][f"{key}s"]
    return config.get(key) or names[0]


def methods_by_hand():
    """The catalogue's methods, those of the experiment with the folder of the network that it trains for them."""
    fold = config["experiment"]["folds"][0]
    played = {
        cell.architecture: cell
        for cell in reversed(SESSIONS)
        if (cell.dataset, cell.condition, cell.fold) == (annotated("dataset"), annotated("condition"), fold)
    }
    networks = {name: interactive.network_of(config, cell) for name, cell in played.items()}
    return {
        name: {
            "recipe": interactive.recipe_of(config, name),
            "network": f"{networks[name].folder}/training" if networks.get(name) else None,
        }
        for name in config["interactive"]
    }


# Without output: it serves whenever it is asked, until it is ended.
rule annotate:
    input:
        store=lambda wildcards: store_of(annotated("dataset"), annotated("condition"), config["experiment"]["folds"][0]),
        cases=lambda wildcards: f"results/data/{annotated('dataset')}/cases.csv",
        splits=lambda wildcards: f"results/data/{annotated('dataset')}/splits.json",
    log:
        "results/logs/annotate.log",
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=1440,
    params:
        structures=lambda wildcards: list(config["datasets"][annotated("dataset")]["structures"]),
        methods=lambda wildcards: methods_by_hand(),
        one_channel=lambda wildcards: PLAYED and bool(interactive.objects_of(config, annotated("dataset"))["channels"]),
        fold=config["experiment"]["folds"][0],
        folder=lambda wildcards: f"results/annotations/{annotated('dataset')}",
        port=config["port"],
    script:
        "../workflow/scripts/annotate.py"
