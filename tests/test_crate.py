from __future__ import annotations

import json
import zipfile

import pytest
import yaml
from conftest import ROOT
from rocrate.rocrate import ROCrate

from lib.crate import write_crate

CONFIG = {"datasets": {"hearts": {"licence": "CC BY 4.0", "cite": "bernard2018"}}, "experiment": {"name": "x"}}


@pytest.fixture
def archive(in_tmp):
    results = [in_tmp / "results/x" / name for name in ("scores.csv", "figures/a.png", "report/index.html")]
    for file in results:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    write_crate(
        "results/x/exports/crate.zip",
        experiment="x",
        results=[file.relative_to(in_tmp) for file in results],
        config=CONFIG,
        checks=[{"dataset": "hearts", "cases": [{}, {}], "data_hash": "ab" * 32}],
        records=[
            {"started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T11:00:00+00:00"},
            {"started": "2026-01-01T09:00:00+00:00", "ended": "2026-01-01T10:30:00+00:00"},
        ],
        provenance={"version": "1.2", "commit": "abc", "packages": {"snakemake": "9.27.1", "monai": "not installed"}},
    )
    return in_tmp / "results/x/exports/crate.zip"


def test_a_reader_of_crates_finds_what_made_what(archive, in_tmp):
    with zipfile.ZipFile(archive) as file:
        file.extractall(in_tmp / "crate")
    crate = ROCrate(in_tmp / "crate")
    assert crate.mainEntity.id == "code/Snakefile" and crate.mainEntity["name"] == "segcross"
    assert [s.id for s in crate.mainEntity["softwareRequirements"]] == ["#snakemake"]
    run = crate.get("#run-x")
    assert run["instrument"] is crate.mainEntity
    assert (run["startTime"], run["endTime"]) == ("2026-01-01T09:00:00+00:00", "2026-01-01T11:00:00+00:00")
    assert [entity.id for entity in run["result"]] == ["figures/a.png", "report/index.html", "scores.csv"]
    data = crate.get("#dataset-hearts")
    assert data["identifier"] == "sha256:" + "ab" * 32 and data["license"] == "CC BY 4.0"
    assert yaml.safe_load((in_tmp / "crate/config.yaml").read_text()) == CONFIG
    assert (in_tmp / "crate/report/index.html").read_text() == "index.html"


def test_everything_listed_is_there_and_the_code_is_the_code(archive):
    with zipfile.ZipFile(archive) as file:
        names = set(file.namelist())
        graph = json.loads(file.read("ro-crate-metadata.json"))["@graph"]
        assert file.read("code/Snakefile") == (ROOT / "Snakefile").read_bytes()
    files = {e["@id"] for e in graph if "File" in [e["@type"]] + (e["@type"] if isinstance(e["@type"], list) else [])}
    assert files <= names and {"code/workflow/scripts/lib/crate.py", "code/report/workflow.rst"} <= files
    assert not [name for name in names if "__pycache__" in name]
