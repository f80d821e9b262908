"""Methods that train no network: fitted to the training patients and applied to the test patients in one job."""


rule segment_classical:
    input:
        store=store_input,
        splits="results/data/{dataset}/splits.json",
        certificate="results/data/{dataset}/certificate.json",
        index="results/data/{dataset}/cases.csv",
    output:
        record="results/cells/<classical_cell>/predict.json",
        predictions=directory("results/cells/<classical_cell>/predictions"),
    log:
        "results/logs/segment_classical/<cell>.log",
    benchmark:
        "results/benchmarks/segment_classical/<cell>.tsv"
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=720,  # the same at each attempt: the job resumes, and partitions have limits
    params:
        job=classical_job,
    script:
        "../workflow/scripts/segment_classical.py"
