"""Questions about results that change none of them: what differs between two results, do the numbers hold."""


# Without output: it answers whenever it is asked.
rule diff:
    log:
        "results/logs/diff.log",
    retries: 0
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        old=config.get("old"),
        new=config.get("new"),
        failed=config["failed_cells"],
        empty=config["empty_masks"],
    script:
        "../workflow/scripts/diff.py"
