"""Few-shot methods: meta-training without labels of the held-out structures, then their segmentation."""


rule train_few_shot:
    input:
        store=store_input,
        splits="results/data/{dataset}/splits.json",
        certificate="results/data/{dataset}/certificate.json",
    output:
        record="results/cells/<few_shot_cell>/train.json",
        training=directory("results/cells/<few_shot_cell>/training"),
    log:
        "results/logs/train_few_shot/<cell>.log",
    benchmark:
        "results/benchmarks/train_few_shot/<cell>.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: lambda wildcards: config["protocols"][wildcards.protocol]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=720,  # the same at each attempt: a training resumes, and partitions have limits
    params:
        job=lambda wildcards: few_shot_job(wildcards, "train_few_shot", "lib.few_shot.training"),
    script:
        "../workflow/scripts/train_few_shot.py"


rule predict_few_shot:
    input:
        record="results/cells/<cell>/train.json",
        training="results/cells/<cell>/training",
        store=store_input,
        splits="results/data/{dataset}/splits.json",
        certificate="results/data/{dataset}/certificate.json",
        index="results/data/{dataset}/cases.csv",
    output:
        record="results/cells/<few_shot_cell>/predict.json",
        predictions=directory("results/cells/<few_shot_cell>/predictions"),
    log:
        "results/logs/predict_few_shot/<cell>.log",
    benchmark:
        "results/benchmarks/predict_few_shot/<cell>.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: lambda wildcards: config["protocols"][wildcards.protocol]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        job=lambda wildcards: few_shot_job(wildcards, "predict_few_shot", "lib.few_shot.prediction"),
        probabilities=config["keep_probabilities"],
    script:
        "../workflow/scripts/predict_few_shot.py"
