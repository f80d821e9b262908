"""Images to a store: simulate, download or find, check, split by patient, certify, preprocess."""

STORES = list(dict.fromkeys(store_of(cell.dataset, cell.condition, cell.fold) for cell in CELLS))
DATA = [
    *[f"results/data/{d}/raw" for d in config["experiment"]["datasets"] if d in SIMULATED + DOWNLOADED],
    *expand(
        "results/data/{dataset}/{file}",
        dataset=config["experiment"]["datasets"],
        file=["index.csv", "cases.csv", "check.json", "check.html", "splits.json", "certificate.json"],
    ),
    *STORES,
]

# What `check` and `export_nnunet` are about.
CHOSEN = [config["dataset"]] if "dataset" in config else config["experiment"]["datasets"]
NNUNET = [f"results/nnunet/nnUNet_raw/{external.nnunet_folder(dataset)}" for dataset in CHOSEN]


rule simulate:
    output:
        raw=directory("results/data/{dataset}/raw"),
    log:
        "results/logs/simulate/{dataset}.log",
    benchmark:
        "results/benchmarks/simulate/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(SIMULATED),
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        source=lambda wildcards: config["datasets"][wildcards.dataset]["source"],
        code=code("simulate"),
    script:
        "../workflow/scripts/simulate.py"


# Local, because the nodes of many clusters have no internet; without a code hash, because checksums say more.
rule download:
    output:
        raw=directory("results/data/{dataset}/raw"),
    log:
        "results/logs/download/{dataset}.log",
    benchmark:
        "results/benchmarks/download/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(DOWNLOADED),
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        source=lambda wildcards: config["datasets"][wildcards.dataset]["source"],
        lock="config/downloads.lock.json",
    script:
        "../workflow/scripts/download.py"


rule index:
    input:
        raw=raw_input,
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
        dataset=lambda wildcards: of_dataset(wildcards, "files", "layout", "structures")
        | ({"files": segcross.SIMULATED_FILES} if wildcards.dataset in SIMULATED else {}),
        state=source_state,
        code=code("index"),
    script:
        "../workflow/scripts/index.py"


rule check_cases:
    input:
        index="results/data/{dataset}/index.csv",
    output:
        check="results/data/{dataset}/check.json",
    log:
        "results/logs/check_cases/{dataset}.log",
    benchmark:
        "results/benchmarks/check_cases/{dataset}.tsv"
    retries: 0
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        block=lambda wildcards: of_dataset(wildcards, "source", "structures", "palette", "ignore", "check")
        | {"preprocess": {"colour": config["datasets"][wildcards.dataset]["preprocess"]["colour"]}},
        state=source_state,
        code=code("check_cases"),
    script:
        "../workflow/scripts/check_cases.py"


# A page with the problems is of more use than none, so checking does not fail; this does.
rule accept:
    input:
        index="results/data/{dataset}/index.csv",
        check="results/data/{dataset}/check.json",
    output:
        cases="results/data/{dataset}/cases.csv",
    log:
        "results/logs/accept/{dataset}.log",
    benchmark:
        "results/benchmarks/accept/{dataset}.tsv"
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("accept"),
    script:
        "../workflow/scripts/accept.py"


rule write_check:
    input:
        check="results/data/{dataset}/check.json",
        index="results/data/{dataset}/index.csv",
    output:
        page="results/data/{dataset}/check.html",
    log:
        "results/logs/write_check/{dataset}.log",
    benchmark:
        "results/benchmarks/write_check/{dataset}.tsv"
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        benchmark="results/benchmarks/check_cases/{dataset}.tsv",
        block=lambda wildcards: config["datasets"][wildcards.dataset],
        coloured=lambda wildcards: structures_of(*config["experiment"]["datasets"], wildcards.dataset),
        code=code("write_check", *library_files("report/*.[hc]*")),
    script:
        "../workflow/scripts/write_check.py"


rule split:
    input:
        cases="results/data/{dataset}/cases.csv",
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
        settings=lambda wildcards: config["datasets"][wildcards.dataset]["splits"],
        kept="results/splits/{dataset}.json",
        code=code("split"),
    script:
        "../workflow/scripts/split.py"


rule certify:
    input:
        cases="results/data/{dataset}/cases.csv",
        check="results/data/{dataset}/check.json",
        splits="results/data/{dataset}/splits.json",
    output:
        certificate="results/data/{dataset}/certificate.json",
    log:
        "results/logs/certify/{dataset}.log",
    benchmark:
        "results/benchmarks/certify/{dataset}.tsv"
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("certify"),
    script:
        "../workflow/scripts/certify.py"


rule preprocess:
    input:
        cases="results/data/{dataset}/cases.csv",
        splits=lambda wildcards: "results/data/{dataset}/splits.json" if wildcards.scope else [],
    output:
        store=directory("results/data/{dataset}/{condition}/store{scope}"),
    log:
        "results/logs/preprocess/{dataset}/{condition}{scope}.log",
    benchmark:
        "results/benchmarks/preprocess/{dataset}/{condition}{scope}.tsv"
    wildcard_constraints:
        scope=r"|-fold\d+",
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        block=lambda wildcards: of_dataset(wildcards, "structures", "palette", "ignore", "preprocess"),
        condition=lambda wildcards: config["conditions"][wildcards.condition],
        code=code("preprocess"),
    script:
        "../workflow/scripts/preprocess.py"


rule write_nnunet:
    input:
        cases="results/data/{dataset}/cases.csv",
        splits="results/data/{dataset}/splits.json",
        certificate="results/data/{dataset}/certificate.json",
    output:
        folder=directory("results/nnunet/nnUNet_raw/Dataset{number}_{dataset}"),
    log:
        "results/logs/write_nnunet/{number}_{dataset}.log",
    benchmark:
        "results/benchmarks/write_nnunet/{number}_{dataset}.tsv"
    wildcard_constraints:
        number=r"\d{3}",
    retries: 0
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        block=lambda wildcards: of_dataset(wildcards, "structures", "palette", "ignore", "preprocess"),
        code=code("write_nnunet"),
    script:
        "../workflow/scripts/write_nnunet.py"
