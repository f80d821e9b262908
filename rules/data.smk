"""Images to a store: simulate or find, check, split by patient, preprocess."""

DATA = [
    *[
        f"results/data/{d}/raw"
        for d in config["experiment"]["datasets"]
        if "simulate" in config["datasets"][d]["source"]
    ],
    *expand(
        "results/data/{dataset}/{file}",
        dataset=config["experiment"]["datasets"],
        file=["index.csv", "check.json", "splits.json"],
    ),
    *expand(
        "results/data/{dataset}/{condition}/store",
        dataset=config["experiment"]["datasets"],
        condition=config["experiment"]["conditions"],
    ),
]


rule simulate:
    output:
        raw=directory("results/data/{dataset}/raw"),
    log:
        "results/logs/simulate/{dataset}.log",
    benchmark:
        "results/benchmarks/simulate/{dataset}.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        source=of_dataset("source"),
        code=code("simulate"),
    script:
        "../workflow/scripts/simulate.py"


rule index:
    input:
        raw=source_input,
    output:
        index="results/data/{dataset}/index.csv",
    log:
        "results/logs/index/{dataset}.log",
    benchmark:
        "results/benchmarks/index/{dataset}.tsv"
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        folder=source_folder,
        files=lambda wildcards: config["datasets"][wildcards.dataset].get("files", segcross.SIMULATED_FILES),
        state=source_state,
        code=code("index"),
    script:
        "../workflow/scripts/index.py"


rule check:
    input:
        index="results/data/{dataset}/index.csv",
    output:
        check="results/data/{dataset}/check.json",
    log:
        "results/logs/check/{dataset}.log",
    benchmark:
        "results/benchmarks/check/{dataset}.tsv"
    retries: 0
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        dataset="{dataset}",
        structures=of_dataset("structures"),
        state=source_state,
        code=code("check"),
    script:
        "../workflow/scripts/check.py"


rule split:
    input:
        index="results/data/{dataset}/index.csv",
        check="results/data/{dataset}/check.json",
    output:
        splits="results/data/{dataset}/splits.json",
    log:
        "results/logs/split/{dataset}.log",
    benchmark:
        "results/benchmarks/split/{dataset}.tsv"
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        folds=lambda wildcards: config["datasets"][wildcards.dataset]["splits"]["folds"],
        seed=lambda wildcards: config["datasets"][wildcards.dataset]["splits"]["seed"],
        validation=lambda wildcards: config["datasets"][wildcards.dataset]["splits"]["validation"],
        code=code("split"),
    script:
        "../workflow/scripts/split.py"


rule preprocess:
    input:
        index="results/data/{dataset}/index.csv",
        check="results/data/{dataset}/check.json",
    output:
        store=directory("results/data/{dataset}/{condition}/store"),
    log:
        "results/logs/preprocess/{dataset}/{condition}.log",
    benchmark:
        "results/benchmarks/preprocess/{dataset}/{condition}.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        dataset="{dataset}",
        condition="{condition}",
        structures=of_dataset("structures"),
        settings=of_dataset("preprocess"),
        code=code("preprocess"),
    script:
        "../workflow/scripts/preprocess.py"
