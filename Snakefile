# segcross: which segmentation method should I believe?
# Targets only; the rules are in rules/, the library in workflow/scripts/lib, what to run in config/.
from snakemake.utils import min_version

min_version("9.27")


report: "report/workflow.rst"


configfile: "config/datasets.yaml"
configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/search.smk"
include: "rules/train.smk"
include: "rules/classical.smk"
include: "rules/few_shot.smk"
include: "rules/evaluate.smk"
include: "rules/compare.smk"
include: "rules/interactive.smk"
include: "rules/annotate.smk"
include: "rules/report.smk"
include: "rules/inspect.smk"
include: "rules/publish.smk"


# Every result is a target, not the last one alone: Snakemake does not make again what a failed job removed in the middle.
rule report:
    input:
        DATA if not config["partial"] else [],
        RECORDS,
        TABLES,
        FIGURES,
        expand(TYPESET, experiment=EXPERIMENT),
        INTERACTIVE,
        f"results/{EXPERIMENT}/report/index.html",
    message:
        f"Open in a browser: results/{EXPERIMENT}/report/index.html"


rule all:
    default_target: True
    input:
        rules.report.input,
        f"results/{EXPERIMENT}/complete" if config["strict"] else [],
    message:
        f"Open in a browser: results/{EXPERIMENT}/report/index.html"


rule data:
    input:
        DATA,


rule check:
    input:
        pages=expand("results/data/{dataset}/check.html", dataset=CHOSEN),
        cases=expand("results/data/{dataset}/cases.csv", dataset=CHOSEN),
    message:
        "Open in a browser: {input.pages}"


rule export_nnunet:
    input:
        NNUNET,
    message:
        "For nnUNetv2_plan_and_preprocess (docs/external.md): {input}"


rule interactive:
    input:
        INTERACTIVE,
    message:
        f"Open in a browser: {INTERACTIVE[-1]}" if INTERACTIVE else "The experiment has no block `interactive`."


rule claims:
    input:
        RECORDS,
        TABLES,


rule figures:
    input:
        RECORDS,
        TABLES,
        FIGURES,
        expand(TYPESET, experiment=EXPERIMENT),


rule export:
    input:
        RECORDS,
        expand("results/{experiment}/exports/{file}", experiment=EXPERIMENT, file=["challenger.csv", "crate.zip"]),
