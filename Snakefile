# segcross: which segmentation method should I believe?
# Targets only; the rules are in rules/, the library in workflow/scripts/lib, what to run in config/.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"
configfile: "config/claims.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/compare.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        f"results/{EXPERIMENT}/report/index.html",
        f"results/{EXPERIMENT}/complete" if config["strict"] else [],


rule data:
    input:
        expand(
            "results/data/{dataset}/splits.json",
            dataset=config["experiment"]["datasets"],
        ),


rule claims:
    input:
        f"results/{EXPERIMENT}/claims.csv",


rule figures:
    input:
        FIGURES,


rule report:
    input:
        f"results/{EXPERIMENT}/report/index.html",
