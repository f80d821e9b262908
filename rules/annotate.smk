"""A page on this computer on which a person segments with the interactive methods."""

BY_HAND = {key: config.get(key) or config["experiment"][f"{key}s"][0] for key in ("dataset", "condition")}


# Without output: it serves whenever it is asked, until it is ended.
rule annotate:
    input:
        store=lambda wildcards: store_of(**BY_HAND, fold=config["experiment"]["folds"][0]),
        cases=f"results/data/{BY_HAND['dataset']}/cases.csv",
        splits=f"results/data/{BY_HAND['dataset']}/splits.json",
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
        structures=lambda wildcards: list(config["datasets"][BY_HAND["dataset"]]["structures"]),
        methods=lambda wildcards: interactive.by_hand(config, **BY_HAND),
        one_channel=lambda wildcards: PLAYED and bool(interactive.objects_of(config, BY_HAND["dataset"])["channels"]),
        fold=config["experiment"]["folds"][0],
        folder=f"results/annotations/{BY_HAND['dataset']}",
        port=config["port"],
    script:
        "../workflow/scripts/annotate.py"
