"""One method, one situation: train on the training patients, predict the test patients."""


def training_job(wildcards):
    """The cell's own slice of the configuration, so that an edited recipe reruns its cells alone."""
    return {
        "cell": cell_of(wildcards),
        "model": config["architectures"][wildcards.architecture],
        "loss": config["losses"][wildcards.loss],
        "protocol": config["protocols"][wildcards.protocol],
        "code": code(
            "train",
            "lib.training",
            segcross.MODELS.module(config["architectures"][wildcards.architecture]["name"]),
            segcross.LOSSES.module(config["losses"][wildcards.loss]["name"]),
        ),
    }


def prediction_job(wildcards):
    return {
        "cell": cell_of(wildcards),
        "model": config["architectures"][wildcards.architecture],
        "protocol": config["protocols"][wildcards.protocol],
        "code": code(
            "predict",
            "lib.inference",
            segcross.MODELS.module(config["architectures"][wildcards.architecture]["name"]),
        ),
    }


rule train:
    input:
        store="results/data/{dataset}/{condition}/store",
        splits="results/data/{dataset}/splits.json",
    output:
        record="results/cells/<cell>/train.json",
        training=directory("results/cells/<cell>/training"),
    log:
        "results/logs/train/<cell>.log",
    benchmark:
        "results/benchmarks/train/<cell>.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: lambda wildcards: config["protocols"][wildcards.protocol]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        job=training_job,
    script:
        "../workflow/scripts/train.py"


rule predict:
    input:
        record="results/cells/<cell>/train.json",
        training="results/cells/<cell>/training",
        store="results/data/{dataset}/{condition}/store",
        splits="results/data/{dataset}/splits.json",
        index="results/data/{dataset}/index.csv",
    output:
        record="results/cells/<cell>/predict.json",
        predictions=directory("results/cells/<cell>/predictions"),
    log:
        "results/logs/predict/<cell>.log",
    benchmark:
        "results/benchmarks/predict/<cell>.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: lambda wildcards: config["protocols"][wildcards.protocol]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        job=prediction_job,
    script:
        "../workflow/scripts/predict.py"
