"""One method, one situation: train on the training patients, predict the test patients, or take predictions as given."""


rule train:
    input:
        store=store_input,
        splits="results/data/{dataset}/splits.json",
        certificate="results/data/{dataset}/certificate.json",
    output:
        record="results/cells/<trained_cell>/train.json",
        training=directory("results/cells/<trained_cell>/training"),
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
        runtime=720,  # the same at each attempt: a training resumes, and partitions have limits
    params:
        job=training_job,
    script:
        "../workflow/scripts/train.py"


rule predict:
    input:
        record="results/cells/<cell>/train.json",
        training="results/cells/<cell>/training",
        store=store_input,
        splits="results/data/{dataset}/splits.json",
        index="results/data/{dataset}/cases.csv",
    output:
        record="results/cells/<trained_cell>/predict.json",
        predictions=directory("results/cells/<trained_cell>/predictions"),
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


rule import_predictions:
    input:
        splits="results/data/{dataset}/splits.json",
        index="results/data/{dataset}/cases.csv",
    output:
        record="results/cells/<external_cell>/predict.json",
        predictions=directory("results/cells/<external_cell>/predictions"),
    log:
        "results/logs/import_predictions/<cell>.log",
    benchmark:
        "results/benchmarks/import_predictions/<cell>.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        job=import_job,
    script:
        "../workflow/scripts/import_predictions.py"
