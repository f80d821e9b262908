"""The results of an experiment as a Workflow Run RO-Crate (profile 0.6): one archive that says what made what.

https://w3id.org/ro/wfrun/workflow/0.6: the workflow is the main entity, the run a CreateAction whose objects are
datasets and configuration, and whose results are tables, figures and report.
"""

from __future__ import annotations

from datetime import datetime
from io import StringIO
from mimetypes import guess_type
from pathlib import Path

import yaml

from lib.files import atomic
from lib.provenance import LIB

PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.6",
    "https://w3id.org/ro/wfrun/workflow/0.6",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.1",
)
PROJECT = LIB.parents[2]
CODE = ("rules", "workflow", "report", "config", "profiles", "envs", "pyproject.toml", "requirements.lock", "LICENSE")


def write_crate(
    path: str | Path,
    *,
    experiment: str,
    results: list[Path],
    config: dict,
    checks: list[dict],
    records: list[dict],
    provenance: dict,
) -> None:
    """Write the archive `path` (.zip).

    results: files below results/<experiment>/, kept under their own names. config: as run. checks: contents of the
    datasets' check.json. records: status records of cells, which say when they started and ended. provenance: version,
    commit and packages. Patients' images and predictions are not in it; data hashes name them.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.3")

    def entity(name_in_crate: str, kind: str, **properties: object) -> ContextEntity:
        return crate.add(ContextEntity(crate, name_in_crate, properties={"@type": kind, **properties}))

    started = sorted(record["started"] for record in records)
    ended = sorted(record["ended"] for record in records)
    crate.name = f"segcross results: {experiment}"
    crate.description = (
        f"Segmentation methods compared on the same data, splits and budget (experiment {experiment}). "
        "Start with report/index.html."
    )
    if ended:
        crate.datePublished = datetime.fromisoformat(ended[-1])
    crate.root_dataset["conformsTo"] = [
        entity(profile, "CreativeWork", name=profile.split("/")[-2], version=profile.split("/")[-1])
        for profile in PROFILES
    ]

    packages = provenance["packages"]
    workflow = crate.add_workflow(
        PROJECT / "Snakefile", "code/Snakefile", main=True, lang="snakemake", lang_version=packages["snakemake"]
    )
    workflow["name"] = "segcross"
    workflow["version"] = f"{provenance['version']}, commit {provenance['commit']}"
    workflow["license"] = entity("https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License")
    workflow["softwareRequirements"] = [
        entity(f"#{name}", "SoftwareApplication", name=name, softwareVersion=version)
        for name, version in packages.items()
        if version != "not installed"
    ]
    for file in sorted(f for name in CODE for f in [PROJECT / name, *(PROJECT / name).rglob("*")]):
        if file.is_file() and "__pycache__" not in file.parts:
            crate.add_file(file, f"code/{file.relative_to(PROJECT)}")

    as_run = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    inputs = [
        crate.add_file(
            StringIO(as_run), "config.yaml", properties={"name": "Configuration as run", "encodingFormat": "text/yaml"}
        )
    ]
    for check in checks:
        block = config["datasets"][check["dataset"]]
        known = {"license": block.get("licence"), "citation": block.get("cite")}
        inputs.append(
            entity(
                f"#dataset-{check['dataset']}",
                "Dataset",
                name=check["dataset"],
                description=f"{len(check['cases'])} cases; the images are not in this archive",
                identifier=f"sha256:{check['data_hash']}",
                **{key: value for key, value in known.items() if value},
            )
        )
    folder = Path("results") / experiment
    outputs = [
        crate.add_file(
            file,
            file.relative_to(folder).as_posix(),
            properties={"name": file.name, "encodingFormat": guess_type(file.name)[0] or "application/octet-stream"},
        )
        for file in sorted(results)
    ]
    run = crate.add_action(
        workflow,
        identifier=f"#run-{experiment}",
        object=inputs,
        result=outputs,
        properties={"name": f"Run of {experiment}", "actionStatus": "http://schema.org/CompletedActionStatus"},
    )
    if ended:
        run["startTime"], run["endTime"] = started[0], ended[-1]
    crate.root_dataset["mentions"] = [run]
    with atomic(path) as temporary:
        crate.write_zip(temporary)
