"""Score a cell's predictions against the references, in the geometry of the source files."""

if config["seeds_per_job"] == 1:
    BUNDLES = [("evaluate", ["{seed}"], CELL)]
else:  # methods outside the grid do not all have the experiment's seeds
    BUNDLES = [(name, seeds, TRAINED_CELL) for name, seeds in bundles("evaluate")]
    BUNDLES += [("evaluate_outside_grid", ["{seed}"], OUTSIDE_CELL)]

for name, seeds, cell in BUNDLES:

    rule:
        name:
            name
        input:
            records=of_seeds(seeds, f"results/cells/{CELL}/predict.json"),
            splits="results/data/{dataset}/splits.json",
            index="results/data/{dataset}/cases.csv",
        output:
            of_seeds(seeds, f"results/cells/{cell}/evaluate.json"),
        log:
            log_of(seeds, f"results/logs/evaluate/{CELL}.log"),
        benchmark:
            bundle_of(seeds, f"results/benchmarks/evaluate/{CELL}.tsv")
        conda:
            "../envs/segcross.yaml"
        threads: len(seeds)
        resources:
            mem_mb=times_attempt(3000 * len(seeds)),
            runtime=times_attempt(120),
        params:
            job=evaluation_job,
        script:
            "../workflow/scripts/evaluate.py"
