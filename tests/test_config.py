from __future__ import annotations

import copy
import re

import pytest
import yaml
from conftest import ROOT
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config, validate

from lib.config import (
    Cell,
    add_claims,
    cells,
    check_meaning,
    claims,
    explain,
    folder_state,
    methods,
    put_on_bases,
    replace_blocks,
)
from lib.errors import BadInput


def catalogue() -> dict:
    """The configuration files as the Snakefile merges them."""
    merged, datasets = (yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()) for name in ("config", "datasets"))
    add_claims(merged, ROOT / "config/claims")
    return merged | {"datasets": datasets["datasets"] | merged["datasets"]}


@pytest.fixture
def config() -> dict:
    merged = catalogue()
    validate(merged, str(ROOT / "config/schemas/config.schema.yaml"))
    return copy.deepcopy(merged)


def test_the_shipped_configuration_is_valid_and_names_its_cells(config):
    check_meaning(config)
    experiment = config["experiment"]
    assert len(cells(config)) == 7 * len(experiment["folds"]) * len(experiment["seeds"])
    cell = cells(config)[0]
    assert cell.method == "segnet_narrow+ce"
    assert str(cell.folder) == "results/cells/brain_cohort/clean/demo/segnet_narrow/ce/fold0/seed0"


@pytest.mark.parametrize("overlay", sorted((ROOT / "config/experiments").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_experiment_is_valid(overlay):
    merged = catalogue()
    given = yaml.safe_load(overlay.read_text())
    update_config(merged, given)
    replace_blocks(merged, given)
    put_on_bases(merged, update_config)
    validate(merged, str(ROOT / "config/schemas/config.schema.yaml"))
    check_meaning(merged)


def test_a_claim_of_an_overlay_changes_what_it_names(config, tmp_path):
    own = {"claims": {"dbce_beats_ce": {"margin": 0.01}, "mine": {"says": "x"}}}
    add_claims(own, ROOT / "config/claims")
    changed = own["claims"]["dbce_beats_ce"]
    assert (changed["margin"], changed["treatment"]) == (0.01, config["claims"]["dbce_beats_ce"]["treatment"])
    assert own["claims"]["mine"] == {"says": "x"}
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("claims: {same: {says: x}}")
    with pytest.raises(BadInput, match=r"b.yaml: claims: same is in another file .*; rename one"):
        add_claims({}, tmp_path)


def test_cross_exclude_and_methods(config):
    experiment = config["experiment"]
    del experiment["methods"]
    experiment |= {"architectures": ["unet", "segnet"], "losses": ["ce", "wce"], "exclude": ["segnet+wce"]}
    assert methods(config) == [("unet", "ce"), ("unet", "wce"), ("segnet", "ce")]


def test_the_command_line_leaves_out_a_method_and_the_claims_about_it(config):
    experiment = config["experiment"]
    experiment |= {"methods": ["unet_narrow+ce", "unet_narrow+dbce"], "claims": ["dbce_beats_ce"]}
    config["exclude"] = ["unet_narrow+dbce"]
    assert methods(config) == [("unet_narrow", "ce")] and claims(config) == {}
    check_meaning(config)
    config["exclude"] = ["unet_narow+dbce"]
    with pytest.raises(
        BadInput, match=r"exclude: 'unet_narow\+dbce' is not in the catalogue. Did you mean 'unet_narrow\+dbce'"
    ):
        check_meaning(config)


def test_columns_name_the_cell():
    columns = Cell("d", "clean", "p", "unet", "ce", 1, 2).columns()
    assert columns == {
        "dataset": "d", "condition": "clean", "protocol": "p", "method": "unet+ce",
        "architecture": "unet", "loss": "ce", "fold": 1, "seed": 2,
    }  # fmt: skip


def test_stand_ins_replace_the_architectures_of_claims(config):
    claim = claims(config)["shallow_segnet_beats_segnet"]
    assert claim["treatment"]["architecture"] == "shallow_segnet_narrow"
    assert claim["control"]["architecture"] == "segnet_narrow"
    assert config["claims"]["shallow_segnet_beats_segnet"]["control"]["architecture"] == "segnet"


def change(path: str, value):
    """A change of the configuration: dotted path and new value."""

    def apply(config: dict) -> None:
        *parents, last = path.split(".")
        for key in parents:
            config = config[key]
        config[last] = value

    return apply


def interaction(key: str, value):
    """A change that makes dbce_beats_ce an interaction."""
    return lambda config: config["claims"]["dbce_beats_ce"].update(kind="interaction", across={key: value})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("losses.dbce.name", "dilated_ce"), r"losses: dbce: lib.losses has no 'dilated_ce'"),
        (change("losses.dbce.radious", 3), r"losses: dbce: .*no parameter 'radious'. Did you mean 'radius'\?"),
        (change("architectures.unet.widht", 3), r"architectures: unet: .*Did you mean 'width'\?"),
        (change("architectures.unet.in_channels", 3), r"architectures: unet: .*no parameter 'in_channels'"),
        (change("experiment.methods", ["unet+cee"]), r"methods: 'unet\+cee': 'cee' is not in the catalogue. Did you mean 'ce'\?"),
        (change("experiment.datasets", ["brain_cohrt"]), r"datasets: 'brain_cohrt' is not in the catalogue. Did you mean 'brain_cohort'\?"),
        (change("experiment.protocol", "dmo"), r"protocol: 'dmo' .*Did you mean 'demo'\?"),
        (change("experiment.folds", [0, 2]), r"folds: 2 is too high.*has 2 folds.*folds: \[0, 1\]"),
        (change("experiment.name", "cells"), r"the name is a folder of results/"),
        (change("experiment.architectures", ["unet"]), r"give either `methods: .*or both `architectures:` and `losses:`"),
        (change("experiment.claims", ["dbce_beats_everything"]), r"claims: 'dbce_beats_everything' is not in the catalogue"),
        (change("claims.dbce_beats_ce.kind", "equivalent"), r"claims: dbce_beats_ce: kind equivalent needs a margin above 0"),
        (change("claims.dbce_beats_ce.control", {"method": "nnunett"}), r"dbce_beats_ce needs the method 'nnunett' \(control\)"),
        (interaction("strength_of", "image"), r"about the strength of image, but of conditions: \['clean'\] no two differ"),
        (interaction("structures", {"a": ["csf"], "b": ["grey"]}), r"across: structures: 'grey' .*Known: csf, gray_matter"),
        (change("claims.dbce_beats_ce.structure", "cfs"), r"dbce_beats_ce: structure: 'cfs' .*Did you mean 'csf'\?"),
        (change("datasets.brain_cohort.structures", {"mean": 1}), r"'mean' is the mean over structures; rename it"),
        (change("retry_failed", True), r"choose one of them"),
        (change("experiment.stand_ins", {}), r"needs the method 'shallow_segnet\+wce' \(treatment\).*add it to methods"),
        (change("protocols.demo.patch", [8, 8, 8]), r"protocols: demo: patch: \[8, 8, 8\] has 3 sizes.*trained in 2-D"),
        (change("datasets.brain_cohort.source", {"path": "/data"}), r"datasets: brain_cohort: files: give image and label, or a layout"),
        (change("datasets.brain_cohort.lesions", {"structures": ["cfs"]}), r"brain_cohort: lesions: structures: 'cfs' is no structure.*'csf'"),
        (change("datasets.brain_cohort.tolerance_mm", {"csf": 1}), r"brain_cohort: tolerance_mm: 'gray_matter' has none; give one to each"),
        (change("datasets.brain_cohort.structures", {"a": 1, "b": [2, 1]}), r"brain_cohort: structures.a: all its values \[1\] belong to later"),
    ],
)  # fmt: skip
def test_meaning_is_checked_and_the_message_names_key_value_and_fix(config, edit, message):
    edit(config)
    config["partial"] = True
    with pytest.raises(BadInput, match=message):
        check_meaning(config)


def test_a_cross_that_excludes_itself_is_refused(config):
    del config["experiment"]["methods"]
    config["experiment"] |= {"architectures": ["unet"], "losses": ["ce"], "exclude": ["unet+ce"], "claims": []}
    with pytest.raises(BadInput, match="exclude: leaves no method"):
        check_meaning(config)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("experiment.sedes", [0]), r"^config: experiment: .*'sedes' was unexpected.*Did you mean 'seeds'\?"),
        (change("experiment.seeds", ["a"]), r"^config: experiment: seeds: 0: 'a' is not of type 'integer'"),
        (change("protocols.demo.optimizer", "adamm"), r"optimizer: 'adamm' is not one of \['adamw', 'sgd'\]"),
        (change("protocols.demo.iterations", 0), r"demo: iterations: 0 is less than the minimum of 1. Optimiser steps"),
        (change("protocols.demo.epoch", 3), r"demo: .*'epoch' was unexpected.*Did you mean 'epochs'\?"),
        (change("protocols.demo.minutes", 0), r"demo: minutes: 0 is less than or equal to the minimum of 0. The budget"),
        (change("protocols.demo.lr", "1e-3"), r"demo: lr: '1e-3' is not of type 'number': YAML .* as in 1.0e-3"),
        (change("protocols.demo.augment", {"elastc": {}}), r"augment: .*'elastc' was unexpected.*Did you mean 'elastic'\?"),
        (change("protocols.demo.augment", {"noise": {"strenght": 1}}), r"augment: noise: 'strenght' is not one of \['prob"),
        (change("protocols.demo.augment", {"noise": {"strength": "1"}}), r"noise: strength: '1' is not of type 'number'"),
        (change("datasets.brain_cohort.source", {"pth": "x"}), r"datasets: brain_cohort: source: "),
        (change("datasets.brain_cohort.preprocess.spacing", [1, 1]), r"spacing: \[1, 1\] is too short"),
        (change("datasets.brain_cohort.lesions", {"structures": ["csf"], "overlap": 0.1}), r"lesions: overlap: 0.1 is less than the minimum of 0.5"),
        (change("datasets.my-data", {}), r"datasets: 'my-data' does not match .* A name becomes a folder"),
        (change("architecture", {}), r"^config: Additional .*'architecture' was unexpected.*Did you mean 'architectures'\?"),
    ],
)  # fmt: skip
def test_the_schema_refuses_unknown_keys_and_values_in_one_line(config, edit, message):
    edit(config)
    with pytest.raises(WorkflowError) as refused:
        validate(config, str(ROOT / "config/schemas/config.schema.yaml"))
    text = explain(refused.value.__context__)
    assert re.search(message, text), text
    assert "\n" not in text


def test_the_schema_knows_the_transforms_of_the_augmentation():
    from lib.training.augment import DEFAULTS

    protocol = yaml.safe_load((ROOT / "config/schemas/config.schema.yaml").read_text())["properties"]["protocols"]
    transforms = protocol["additionalProperties"]["properties"]["augment"]["anyOf"][1]["properties"]
    assert {name: part["propertyNames"]["enum"] for name, part in transforms.items()} == {
        name: list(keys) for name, keys in DEFAULTS.items()
    }


def test_images_and_labels_of_a_source_folder_are_watched_and_nothing_else(tmp_path):
    dataset = {
        "source": {"path": str(tmp_path)},
        "files": {"image": "{patient}/t1.nii", "label": "{patient}/seg[1].nii"},
    }
    for name in ("t1.nii", "seg[1].nii"):
        (tmp_path / "p1").mkdir(exist_ok=True)
        (tmp_path / "p1" / name).write_text("1")
    before = folder_state("hearts", dataset)
    (tmp_path / "notes.txt").write_text("1")
    (tmp_path / "p1" / "seg1.nii").write_text("1")
    assert folder_state("hearts", dataset) == before
    (tmp_path / "p1" / "seg[1].nii").write_text("changed")
    changed = folder_state("hearts", dataset)
    assert changed != before
    (tmp_path / "p2").mkdir()
    (tmp_path / "p2" / "t1.nii").write_text("1")
    assert folder_state("hearts", dataset) != changed
    assert folder_state("simulated", {"source": {"simulate": "icbm152"}}) == ""
    source = {"path": "nowhere", "manual": "Register at the hospital."}
    with pytest.raises(BadInput, match=r"hearts: source: path: the folder 'nowhere' does not exist .*\n.*Register at"):
        folder_state("hearts", dataset | {"source": source})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.DS_Store").touch()
    with pytest.raises(BadInput, match=r"is empty .*\n.*Register at"):
        folder_state("hearts", dataset | {"source": source | {"path": str(tmp_path / "empty")}})


def test_profiles_agree_with_the_configuration():
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    slurm = yaml.safe_load((ROOT / "slurm-gpu/config.yaml").read_text())
    assert not default.keys() & slurm.keys(), "profiles/default would win over slurm-gpu key by key"
    schema = yaml.safe_load((ROOT / "config/schemas/config.schema.yaml").read_text())
    assert default["retries"] + 1 == schema["properties"]["attempts"]["default"]
    assert not {"code", "input"} & set(default["rerun-triggers"])
    assert "resources" not in default


def test_the_conda_environment_is_the_lock_file():
    environment = yaml.safe_load((ROOT / "envs/segcross.yaml").read_text())
    assert {"pip": ["-r ../requirements.lock"]} in environment["dependencies"]
    lock = dict(
        line.strip().split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
    )
    assert lock["torch"] and "+" not in lock["torch"], "a local version would shut out CPU or CUDA builds"
    assert lock["snakemake"] == "9.27.1"


def test_forgotten_structures_are_read_from_the_datasets_own_files(tmp_path, config):
    (tmp_path / "dataset.json").write_text(
        '{"labels": {"background": 0, "Left Kidney": 1, "tumor": 2}, "file_ending": ".nii.gz"}'
    )
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "imagesTr").mkdir()
    config["datasets"]["mine"] = {"source": {"path": str(tmp_path)}, "layout": "nnunet"}
    with pytest.raises(WorkflowError) as caught:
        validate(config, str(ROOT / "config/schemas/config.schema.yaml"))
    text = explain(caught.value.__context__)
    assert "datasets: mine: 'structures' is a required property" in text
    assert re.search(r"structures: \{left_kidney: 1, tumor: 2\}", text, re.IGNORECASE), text


def test_a_protocol_has_one_budget(config):
    demo = config["protocols"]["demo"]
    demo["epochs"] = 3
    with pytest.raises(
        BadInput, match="protocols: demo: has iterations and epochs; give one budget, as iterations: 400"
    ):
        check_meaning(config)
    del demo["iterations"]
    check_meaning(config)
    del demo["epochs"]
    with pytest.raises(BadInput, match=r"protocols: demo: has no budget; give one budget, .* or minutes: 20"):
        check_meaning(config)


@pytest.mark.parametrize("given", [{"epochs": 3}, {"minutes": 0.5}, {"iterations": 7}, {"lr": 0.1}])
def test_the_budget_of_an_overlay_replaces_that_of_the_catalogue(config, given):
    overlay = {"protocols": {"demo": given}}
    update_config(config, overlay)
    replace_blocks(config, overlay)
    check_meaning(config)
    budget = {key: v for key, v in config["protocols"]["demo"].items() if key in ("iterations", "epochs", "minutes")}
    assert budget == (given if "lr" not in given else {"iterations": 250})


def test_a_dataset_may_be_a_variant_of_another(config):
    base = copy.deepcopy(config["datasets"]["brain_cohort"])
    own = {"source": {"path": "data/x"}, "preprocess": {"intensity": {"percentiles": [1, 99]}, "spacing": [3, 3, 3]}}
    config["datasets"]["finer"] = {"base": "brain_cohort"} | copy.deepcopy(own)
    put_on_bases(config, update_config)
    finer = config["datasets"]["finer"]
    assert "base" not in finer and finer["source"] == own["source"]  # replaced as a whole
    assert finer["preprocess"] == base["preprocess"] | own["preprocess"]
    assert finer["structures"] == base["structures"]
    assert config["datasets"]["brain_cohort"] == base
    validate(config, str(ROOT / "config/schemas/config.schema.yaml"))
    check_meaning(config)


def test_a_base_that_is_unknown_or_a_variant_is_refused(config):
    config["datasets"] |= {"finer": {"base": "brain_cohrt"}}
    with pytest.raises(BadInput, match=r"datasets: finer: base: 'brain_cohrt' is not .* Did you mean 'brain_cohort'"):
        put_on_bases(config, update_config)
    config["datasets"] |= {"finer": {"base": "coarser"}, "coarser": {"base": "brain_cohort"}}
    with pytest.raises(BadInput, match="'coarser' has a base itself; name that one, 'brain_cohort'"):
        put_on_bases(config, update_config)
