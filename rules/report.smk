"""Figures, tables and the page, redrawn in seconds from tables and predictions."""

METHODS = list(dict.fromkeys(cell.method for cell in CELLS))
STRUCTURES = structures_of(*config["experiment"]["datasets"])
FIGURES = expand(
    "results/{experiment}/figures/{figure}.png",
    experiment=EXPERIMENT,
    figure=[
        "heatmap",
        "distributions",
        *(["claims"] if CLAIMS else []),
        *(["significance", "rank_stability", "agreement"] if len(METHODS) > 1 else []),
        *(["critical_difference"] if len(METHODS) > 2 else []),
        *(["consensus"] if len(config["experiment"]["datasets"]) > 1 else []),
        *(["degradation"] if segcross.varied_parts(config) else []),
        "seeds",
        "cost",
        "curves",
        *expand(
            "montage_{dataset}_{condition}",
            dataset=config["experiment"]["datasets"],
            condition=config["experiment"]["conditions"],
        ),
    ],
)

GALLERIES = expand(
    "results/{experiment}/figures/gallery_{dataset}_{condition}.json",
    experiment=EXPERIMENT,
    dataset=config["experiment"]["datasets"],
    condition=config["experiment"]["conditions"],
)

TYPESET = expand(
    "results/{experiment}/tables/{table}.{suffix}",
    table=["ranking", "comparisons", "claims", "cost"],
    suffix=["md", "tex"],
    allow_missing=True,
)


# `localrule: True` is not inherited.
localrules:
    plot_distributions,
    plot_claims,
    plot_significance,
    plot_rank_stability,
    plot_agreement,
    plot_critical_difference,
    plot_consensus,
    plot_degradation,
    plot_seeds,
    plot_cost,
    plot_curves,


# Every figure is a rule of its own with a script of its own, plot_<figure>.py. All else they inherit from the first.
rule plot_heatmap:
    input:
        ranking="results/{experiment}/ranking.csv",
        ledger="results/{experiment}/ledger.csv",
    output:
        pdf="results/{experiment}/figures/{figure}.pdf",
        png=report(
            "results/{experiment}/figures/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/logs/plot/{experiment}/{figure}.log",
    benchmark:
        "results/benchmarks/plot/{experiment}/{figure}.tsv"
    wildcard_constraints:
        figure="heatmap",
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        caption=lambda wildcards: caption_of(wildcards.figure)[1],
        code=lambda wildcards: code(f"plot_{wildcards.figure}"),
    script:
        "../workflow/scripts/plot_{wildcards.figure}.py"


use rule plot_heatmap as plot_distributions with:
    input:
        scores="results/{experiment}/scores.csv",
    wildcard_constraints:
        figure="distributions",
    params:
        structures=STRUCTURES,


use rule plot_heatmap as plot_claims with:
    input:
        claims="results/{experiment}/claims.csv",
    wildcard_constraints:
        figure="claims",


use rule plot_heatmap as plot_significance with:
    input:
        comparisons="results/{experiment}/comparisons.csv",
        ranking="results/{experiment}/ranking.csv",
    wildcard_constraints:
        figure="significance",


use rule plot_heatmap as plot_rank_stability with:
    input:
        distribution="results/{experiment}/rank_distribution.csv",
        ranking="results/{experiment}/ranking.csv",
    wildcard_constraints:
        figure="rank_stability",
    params:
        empty=config["empty_masks"],


use rule plot_heatmap as plot_agreement with:
    input:
        agreement="results/{experiment}/agreement.csv",
    wildcard_constraints:
        figure="agreement",


use rule plot_heatmap as plot_critical_difference with:
    input:
        critical_difference="results/{experiment}/critical_difference.csv",
    wildcard_constraints:
        figure="critical_difference",


use rule plot_heatmap as plot_consensus with:
    input:
        consensus="results/{experiment}/consensus.csv",
        ranking="results/{experiment}/ranking.csv",
    wildcard_constraints:
        figure="consensus",


use rule plot_heatmap as plot_degradation with:
    input:
        degradation="results/{experiment}/degradation.csv",
    wildcard_constraints:
        figure="degradation",
    params:
        methods=METHODS,


use rule plot_heatmap as plot_seeds with:
    input:
        scores="results/{experiment}/scores.csv",
        components="results/{experiment}/components.csv",
        ranking="results/{experiment}/ranking.csv",
    wildcard_constraints:
        figure="seeds",


use rule plot_heatmap as plot_cost with:
    input:
        ranking="results/{experiment}/ranking.csv",
        ledger="results/{experiment}/ledger.csv",
    wildcard_constraints:
        figure="cost",


use rule plot_heatmap as plot_curves with:
    input:
        curves="results/{experiment}/curves.csv",
    wildcard_constraints:
        figure="curves",
    params:
        architectures=list(dict.fromkeys(cell.architecture for cell in CELLS)),


rule plot_montage:
    input:
        scores="results/{experiment}/scores.csv",
        index="results/data/{dataset}/cases.csv",
    output:
        pdf="results/{experiment}/figures/montage_{dataset}_{condition}.pdf",
        png=report(
            "results/{experiment}/figures/montage_{dataset}_{condition}.png",
            caption="../report/figure.rst",
            category="Cases",
            labels={"figure": "montage", "dataset": "{dataset}", "condition": "{condition}"},
        ),
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
        methods=METHODS,
        coloured=STRUCTURES,
        caption=caption_of("montage")[1],
        code=code("plot_montage"),
    script:
        "../workflow/scripts/plot_montage.py"


rule plot_gallery:
    input:
        scores="results/{experiment}/scores.csv",
        index="results/data/{dataset}/cases.csv",
    output:
        pdf=report(
            "results/{experiment}/figures/gallery_{dataset}_{condition}.pdf",
            caption="../report/gallery.rst",
            category="Cases",
            labels={"figure": "gallery", "dataset": "{dataset}", "condition": "{condition}"},
        ),
        pictures="results/{experiment}/figures/gallery_{dataset}_{condition}.json",
    log:
        "results/logs/plot_gallery/{experiment}/{dataset}_{condition}.log",
    benchmark:
        "results/benchmarks/plot_gallery/{experiment}/{dataset}_{condition}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        dataset="{dataset}",
        condition="{condition}",
        protocol=config["experiment"]["protocol"],
        structures=lambda wildcards: config["datasets"][wildcards.dataset]["structures"],
        palette=lambda wildcards: config["datasets"][wildcards.dataset]["palette"],
        methods=METHODS,
        coloured=STRUCTURES,
        caption=caption_of("gallery")[1],
        code=code("plot_gallery"),
    script:
        "../workflow/scripts/plot_gallery.py"


rule write_tables:
    input:
        ranking="results/{experiment}/ranking.csv",
        scores="results/{experiment}/scores.csv",
        comparisons="results/{experiment}/comparisons.csv",
        claims="results/{experiment}/claims.csv",
        ledger="results/{experiment}/ledger.csv",
    output:
        TYPESET,
    log:
        "results/logs/write_tables/{experiment}.log",
    benchmark:
        "results/benchmarks/write_tables/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        code=code("write_tables"),
    script:
        "../workflow/scripts/write_tables.py"


rule write_report:
    input:
        tables=TABLES,
        checks=expand(
            "results/data/{dataset}/check.json",
            dataset=config["experiment"]["datasets"],
        ),
        certificates=expand(
            "results/data/{dataset}/certificate.json",
            dataset=config["experiment"]["datasets"],
        ),
        stores=STORES,
        figures=FIGURES,
        galleries=GALLERIES,
        users_tables=INTERACTIVE_TABLES,
        users_figures=INTERACTIVE_FIGURES,
        references="config/references.bib",
    output:
        report=report(
            "results/{experiment}/report/index.html",
            caption="../report/index.rst",
            category="Report",
            labels={"page": "index.html"},
        ),
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
        users=interactive.told(config),
        code=code("write_report", *library_files("report/*.[hjc]*"), *library_files("figures/*.py")),
    script:
        "../workflow/scripts/write_report.py"


rule export_crate:
    input:
        tables=TABLES,
        figures=FIGURES,
        report="results/{experiment}/report/index.html",
        checks=rules.write_report.input.checks,
        records=RECORDS,
    output:
        crate="results/{experiment}/exports/crate.zip",
    log:
        "results/logs/export_crate/{experiment}.log",
    localrule: True
    conda:
        "../envs/segcross.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        config=report_config(),
        code=code("export_crate"),
    script:
        "../workflow/scripts/export_crate.py"
