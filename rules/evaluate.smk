"""Score a cell's predictions against the references, in the geometry of the source files."""


rule evaluate:
    input:
        record="results/cells/<cell>/predict.json",
        predictions="results/cells/<cell>/predictions",
        splits="results/data/{dataset}/splits.json",
        index="results/data/{dataset}/cases.csv",
    output:
        record="results/cells/<cell>/evaluate.json",
        scores="results/cells/<cell>/scores.csv",
    log:
        "results/logs/evaluate/<cell>.log",
    benchmark:
        "results/benchmarks/evaluate/<cell>.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        job=evaluation_job,
    script:
        "../workflow/scripts/evaluate.py"
