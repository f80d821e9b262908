"""Figures and the page, redrawn in seconds from tables and predictions."""

FIGURES = expand(
    "results/{experiment}/figures/{figure}.png",
    experiment=EXPERIMENT,
    figure=[
        "heatmap",
        "distributions",
        *(["claims"] if CLAIMS else []),
        "curves",
        *expand(
            "montage_{dataset}_{condition}",
            dataset=config["experiment"]["datasets"],
            condition=config["experiment"]["conditions"],
        ),
    ],
)


rule plot_heatmap:
    input:
        ranking="results/{experiment}/ranking.csv",
        ledger="results/{experiment}/ledger.csv",
    output:
        pdf="results/{experiment}/figures/heatmap.pdf",
        png="results/{experiment}/figures/heatmap.png",
    log:
        "results/logs/plot_heatmap/{experiment}.log",
    benchmark:
        "results/benchmarks/plot_heatmap/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        code=code("plot_heatmap"),
    script:
        "../workflow/scripts/plot_heatmap.py"


rule plot_distributions:
    input:
        scores="results/{experiment}/scores.csv",
    output:
        pdf="results/{experiment}/figures/distributions.pdf",
        png="results/{experiment}/figures/distributions.png",
    log:
        "results/logs/plot_distributions/{experiment}.log",
    benchmark:
        "results/benchmarks/plot_distributions/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        structures=list(
            dict.fromkeys(s for d in config["experiment"]["datasets"] for s in config["datasets"][d]["structures"])
        ),
        code=code("plot_distributions"),
    script:
        "../workflow/scripts/plot_distributions.py"


rule plot_claims:
    input:
        claims="results/{experiment}/claims.csv",
    output:
        pdf="results/{experiment}/figures/claims.pdf",
        png="results/{experiment}/figures/claims.png",
    log:
        "results/logs/plot_claims/{experiment}.log",
    benchmark:
        "results/benchmarks/plot_claims/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        code=code("plot_claims"),
    script:
        "../workflow/scripts/plot_claims.py"


rule plot_curves:
    input:
        curves="results/{experiment}/curves.csv",
    output:
        pdf="results/{experiment}/figures/curves.pdf",
        png="results/{experiment}/figures/curves.png",
    log:
        "results/logs/plot_curves/{experiment}.log",
    benchmark:
        "results/benchmarks/plot_curves/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        architectures=list(dict.fromkeys(cell.architecture for cell in CELLS)),
        code=code("plot_curves"),
    script:
        "../workflow/scripts/plot_curves.py"


rule plot_montage:
    input:
        scores="results/{experiment}/scores.csv",
        index="results/data/{dataset}/cases.csv",
        predictions=lambda wildcards: [
            f"{cell.folder}/predictions"
            for cell in REPORTED
            if (cell.dataset, cell.condition) == (wildcards.dataset, wildcards.condition)
        ],
    output:
        pdf="results/{experiment}/figures/montage_{dataset}_{condition}.pdf",
        png="results/{experiment}/figures/montage_{dataset}_{condition}.png",
    log:
        "results/logs/plot_montage/{experiment}/{dataset}_{condition}.log",
    benchmark:
        "results/benchmarks/plot_montage/{experiment}/{dataset}_{condition}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        dataset="{dataset}",
        condition="{condition}",
        protocol=config["experiment"]["protocol"],
        structures=lambda wildcards: config["datasets"][wildcards.dataset]["structures"],
        palette=lambda wildcards: config["datasets"][wildcards.dataset]["palette"],
        methods=list(dict.fromkeys(cell.method for cell in CELLS)),
        code=code("plot_montage"),
    script:
        "../workflow/scripts/plot_montage.py"


rule write_report:
    input:
        ledger="results/{experiment}/ledger.csv",
        scores="results/{experiment}/scores.csv",
        ranking="results/{experiment}/ranking.csv",
        comparisons="results/{experiment}/comparisons.csv",
        claims="results/{experiment}/claims.csv",
        checks=expand(
            "results/data/{dataset}/check.json",
            dataset=config["experiment"]["datasets"],
        ),
        certificates=expand(
            "results/data/{dataset}/certificate.json",
            dataset=config["experiment"]["datasets"],
        ),
        stores=list(dict.fromkeys(store_of(cell.dataset, cell.condition, cell.fold) for cell in CELLS)),
        figures=FIGURES,
    output:
        report="results/{experiment}/report/index.html",
    log:
        "results/logs/write_report/{experiment}.log",
    benchmark:
        "results/benchmarks/write_report/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        config=report_config(),
        code=code("write_report", *library_files("report/report.*")),
    script:
        "../workflow/scripts/write_report.py"
