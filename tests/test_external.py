"""External methods: which cells they have, and that no wrong file passes for a prediction."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from conftest import ROOT
from PIL import Image
from snakemake.utils import validate
from test_config import catalogue, change

from lib.cells import Cell, method_of
from lib.config import cells, check_meaning, claims, predictions_of
from lib.data.cases import Case, write_index
from lib.data.nnunet import write_nnunet
from lib.errors import BadInput
from lib.external import filled, folder_state, imported_state, is_made, nnunet_folder, settings_for
from lib.files import write_json
from lib.inference.external import import_cell
from lib.ledger import build_ledger

SHAPE, AFFINE = (6, 7, 4), np.array([[-1.5, 0, 0, 30], [0, 1.2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
CELL = Cell("hearts", "clean", "p", "theirs", "external", 0, 0)
TESTED, TRAINED = ("a1", "a2", "b1"), ("c1", "d1")  # cases; the letter is the patient


def labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, SHAPE).astype(np.uint8)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


class Folder:
    """A dataset of five cases of four patients, fold 0 of which tests three, and predictions of those."""

    def __init__(self, folder: Path):
        self.folder, self.theirs, self.output = folder, folder / "theirs", folder / "out"
        rng = np.random.default_rng(1)
        cases = [
            Case(
                name, name[0], {"image": str(save(folder / f"{name}.nii.gz", rng.random(SHAPE).astype(np.float32)))}, {}
            )
            for name in (*TESTED, *TRAINED)
        ]
        write_index(folder / "cases.csv", cases)
        of_patient = {p: sorted(c.case for c in cases if c.patient == p) for p in "abcd"}
        self.splits = {
            "folds": [{"train": ["c"], "validation": ["d"], "test": ["a", "b"]}], "cases": of_patient, "groups": [],
        }  # fmt: skip
        for seed, name in enumerate(TESTED):
            save(self.theirs / f"{name}.nii.gz", labels(seed))

    def run(self, cell: Cell = CELL, structures: dict | None = None, **entry) -> dict:
        write_json(self.folder / "splits.json", self.splits)
        settings = settings_for("theirs", {"path": str(self.theirs)} | entry, cell.dataset)
        return import_cell({
            "cell": cell.columns(), "external": filled(settings, cell.columns()), "output": self.output,
            "structures": structures or {"rv": 1, "myo": 2, "lv": 3},
            "index": self.folder / "cases.csv", "splits": self.folder / "splits.json",
        })  # fmt: skip

    def refuses(self, *messages: str, **entry) -> str:
        with pytest.raises(BadInput) as refused:
            self.run(**entry)
        for message in messages:
            assert re.search(message, str(refused.value)), str(refused.value)
        assert not self.output.exists(), "nothing half-made is left"
        return str(refused.value)


@pytest.fixture
def hearts(tmp_path) -> Folder:
    return Folder(tmp_path)


def test_files_become_predictions_in_the_geometry_of_the_case(hearts):
    result = hearts.run()
    assert sorted(p.name for p in hearts.output.iterdir()) == [f"{name}.nii.gz" for name in TESTED]
    for seed, name in enumerate(TESTED):
        written = nib.load(hearts.output / f"{name}.nii.gz")
        assert np.array_equal(np.asarray(written.dataobj), labels(seed))
        assert np.array_equal(written.affine, nib.load(hearts.folder / f"{name}.nii.gz").affine)
        source = hearts.theirs / f"{name}.nii.gz"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        assert result["files"][name] == {"file": str(source), "sha256": digest}
    assert result["cases"] == 3 and result["notes"] == []
    assert result["training_data"].startswith("not verified")


def test_other_axes_are_turned_without_interpolation(hearts):
    for seed, name in enumerate(TESTED):
        image = nib.Nifti1Image(labels(seed), AFFINE)
        turned = image.as_reoriented(
            nib.orientations.axcodes2ornt(("P", "S", "R"), (("L", "R"), ("P", "A"), ("I", "S")))
        )
        assert turned.shape != SHAPE
        nib.save(turned, hearts.theirs / f"{name}.nii.gz")
    result = hearts.run()
    for seed, name in enumerate(TESTED):
        assert np.array_equal(np.asarray(nib.load(hearts.output / f"{name}.nii.gz").dataobj), labels(seed))
    assert "axes swapped or flipped" in result["notes"][0]


def test_a_flip_that_only_the_affine_shows_is_not_taken_for_the_same_grid(hearts):
    flipped = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    save(hearts.theirs / "a1.nii.gz", labels(0), flipped)
    hearts.run()
    written = np.asarray(nib.load(hearts.output / "a1.nii.gz").dataobj)
    assert np.array_equal(written, labels(0)[::-1]) and not np.array_equal(written, labels(0))


def test_files_of_other_formats(hearts):
    """SimpleITK writes MHA with axes the other way round and LPS; NPZ has no millimetres."""
    for file in hearts.theirs.iterdir():
        file.unlink()
    image = sitk.ReadImage(str(hearts.folder / "a1.nii.gz"))
    mha = sitk.GetImageFromArray(labels(0).transpose(2, 1, 0))
    mha.CopyInformation(image)
    sitk.WriteImage(mha, str(hearts.theirs / "a1.mha"))
    np.savez(hearts.theirs / "a2.npz", labels(1))
    save(hearts.theirs / "b1.nii", labels(2).astype(np.float32))
    hearts.run()
    for seed, name in enumerate(TESTED):
        assert np.array_equal(np.asarray(nib.load(hearts.output / f"{name}.nii.gz").dataobj), labels(seed))


def test_pictures(tmp_path):
    rng = np.random.default_rng(0)
    cases = []
    for name in ("a1", "c1", "d1"):
        Image.fromarray(rng.integers(0, 255, (8, 9, 3)).astype(np.uint8)).save(tmp_path / f"{name}.jpg")
        cases.append(Case(name, name[0], {"image": str(tmp_path / f"{name}.jpg")}, {}))
    write_index(tmp_path / "cases.csv", cases)
    (tmp_path / "theirs").mkdir()
    mask = (rng.random((8, 9)) > 0.5).astype(np.uint8)
    hearts = Folder.__new__(Folder)
    hearts.folder, hearts.theirs, hearts.output = tmp_path, tmp_path / "theirs", tmp_path / "out"
    hearts.splits = {"folds": [{"train": ["c"], "validation": ["d"], "test": ["a"]}], "groups": []}
    hearts.splits["cases"] = {"a": ["a1"], "c": ["c1"], "d": ["d1"]}
    Image.fromarray(mask * 255).save(tmp_path / "theirs/a1.png")
    hearts.refuses(r"a1.png: label values 255 \(\d+ voxels\), but the structures declare \[0, 1\].*labels: \{255: 1, …\}",
                   structures={"wound": 1})  # fmt: skip
    hearts.run(structures={"wound": 1}, labels={255: 1})
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/a1.png")), mask)
    Image.fromarray(mask.T).save(tmp_path / "theirs/a1.png")
    (tmp_path / "out/a1.png").unlink()
    (tmp_path / "out").rmdir()
    hearts.refuses(r"a1.png: shape \(9, 8, 1\), but .*a1.jpg has shape \(8, 9, 1\)", structures={"wound": 1})
    (tmp_path / "theirs/a1.png").unlink()
    save(tmp_path / "theirs/a1.nii.gz", mask[..., None], np.diag([-1.0, -1, 1, 1]))
    hearts.refuses(r"a1.nii.gz: states millimetres, but .*a1.jpg is a picture; write PNG", structures={"wound": 1})


def test_every_problem_is_said_at_once_with_file_value_and_fix(hearts):
    save(hearts.theirs / "a1.nii.gz", labels()[:, :, :3])
    (hearts.theirs / "a2.nii.gz").unlink()
    save(hearts.theirs / "b1.nii.gz", labels() + 1)
    text = hearts.refuses(
        r"^external: theirs: 3 problems with the predictions for fold 0:",
        r"a1.nii.gz: shape \(6, 7, 3\) at 1.5 × 1.2 × 3 mm, but .*a1.nii.gz has shape \(6, 7, 4\) .*on the grid of the",
        r"no file for 1 of 3 test cases \(a2\): expected .*theirs/a2.nii.gz or the like; the folder holds a1.nii.gz, b1",
        r"b1.nii.gz: label values 4 \(\d+ voxels\), but the structures declare \[0, 1, 2, 3\]; .*external: theirs",
    )
    assert text.count("\n  - ") == 3


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (AFFINE + np.array([[0, 0, 0, 0.5], *np.zeros((3, 4))]), r"puts voxels up to 0.5 mm away from those of .*a1.nii.gz"),
        (AFFINE @ np.diag([1, 1, 1.01, 1]), r"shape \(6, 7, 4\) at 1.5 × 1.2 × 3.03 mm\) puts voxels up to 0.09 mm"),
        (np.diag([2.0, 2, 2, 1]), r"copy the affine of the image if the voxels correspond, else resample"),
    ],
)  # fmt: skip
def test_another_place_is_refused(hearts, affine, message):
    save(hearts.theirs / "a1.nii.gz", labels(), affine)
    hearts.refuses(message)


def test_a_twentieth_of_a_voxel_is_rounding(hearts):
    save(hearts.theirs / "a1.nii.gz", labels(), AFFINE + np.array([[0, 0, 0, 0.05], *np.zeros((3, 4))]))
    hearts.run()
    assert np.array_equal(nib.load(hearts.output / "a1.nii.gz").affine, nib.load(hearts.folder / "a1.nii.gz").affine)


def test_damaged_and_probability_files_are_refused(hearts):
    (hearts.theirs / "a1.nii.gz").write_bytes(b"\x1f\x8bnothing")
    save(hearts.theirs / "a2.nii.gz", np.full(SHAPE, 0.3, np.float32))
    save(hearts.theirs / "b1.nii.gz", np.zeros((*SHAPE, 3), np.uint8))
    (hearts.theirs / "b1.nii.gz").unlink()
    save(hearts.theirs / "b1.nii.gz", np.stack([labels(k) for k in range(3)], -1))
    hearts.refuses(
        r"a1.nii.gz: not a readable NIfTI file", r"a2.nii.gz: .* not whole numbers", r"b1.nii.gz: has 3 channels"
    )


def test_the_file_of_a_case_is_told_by_its_pattern(hearts):
    for name in TESTED:
        (hearts.theirs / f"{name}.nii.gz").rename(hearts.theirs / f"{name}_seg.nii.gz")
        np.savez(hearts.theirs / f"{name}.npz", np.zeros((2, *SHAPE)))
    assert hearts.run(file="{case}_seg.nii.gz")["cases"] == 3
    hearts.output.rename(hearts.folder / "kept")
    hearts.refuses(r"expected .*theirs/a1_pred.nii; the folder holds a1.npz", file="{case}_pred.nii")
    save(hearts.theirs / "b1_seg.nii", labels())
    hearts.refuses(r"case 'b1' has several files, .*b1_seg.nii, .*b1_seg.nii.gz; keep one", file="{case}_seg.*")
    hearts.refuses(r"a1_seg.nii.gz would be the prediction of a1 and a2; write \{case\}", file="{patient}1_seg.nii.gz")


def test_folders_of_cases(hearts):
    for name in TESTED:
        save(hearts.folder / f"monai/{name[0]}/{name}/{name}_trans.nii.gz", labels())
    hearts.theirs = hearts.folder / "monai"
    assert hearts.run(file="{patient}/{case}/{case}_trans.nii.gz")["cases"] == 3


def test_two_formats_of_one_case_are_refused_without_a_pattern(hearts):
    np.savez(hearts.theirs / "a1.npz", labels())
    hearts.refuses(r"case 'a1' has several files, .*a1.nii.gz, .*a1.npz; keep one, or name it by `file`")


def test_a_missing_folder_is_named(hearts):
    hearts.theirs = hearts.folder / "nowhere"
    hearts.refuses(r"the folder .*nowhere does not exist \(seen from .*\); correct `path`")


def test_labels_are_replaced_as_declared(hearts):
    result = hearts.run(labels={0: 0, 1: 3, 2: 1, 3: 0})
    assert result["cases"] == 3
    written = np.asarray(nib.load(hearts.output / "a1.nii.gz").dataobj)
    assert np.array_equal(written, np.array([0, 3, 1, 0], np.uint8)[labels(0)])
    hearts.output.rename(hearts.folder / "kept")
    hearts.refuses(r"label values 3 \(\d+ voxels\), but `labels` lists \[0, 1, 2\]", labels={1: 3, 2: 1})


def test_a_file_of_nobody_and_cases_of_other_folds_are_noted(hearts):
    for name in ("a1 copy", "c1"):
        save(hearts.theirs / f"{name}.nii.gz", labels())
    (hearts.theirs / "summary.json").write_text("{}")
    (nobodys,) = hearts.run()["notes"]
    assert re.search(r"1 files in .* are of no case of the dataset: a1 copy.nii.gz", nobodys)
    hearts.theirs.rename(hearts.folder / "f0")
    hearts.theirs = hearts.folder / "f{fold}"
    assert re.search("also holds cases that another fold tests here.*c1", "\n".join(hearts.run()["notes"]))


def nnunet_splits(*folds: tuple[list[str], list[str]]) -> list[dict]:
    return [{"train": train, "val": val} for train, val in folds]


@pytest.mark.parametrize(
    ("splits", "known"),
    [
        (nnunet_splits((["c1", "d1"], [*TESTED])), r"^verified: by .*, 2 training patients, other than the fold's own"),
        (nnunet_splits((["c1"], [*TESTED])), r"^verified: by .*, 1 training patients, the fold's own, none"),
        ({"folds": [{"train": ["c"], "validation": ["d"], "test": ["a", "b"]}]}, r"^verified: by .*, 2 training patients"),
        (nnunet_splits((["c1", "x7"], [*TESTED])), r"^not verified: .* also trains on x7, which this dataset does not know"),
    ],
)  # fmt: skip
def test_the_training_data_are_verified_where_splits_tell_them(hearts, splits, known):
    write_json(hearts.folder / "s.json", splits)
    hearts.theirs.rename(hearts.folder / "f0")
    hearts.theirs = hearts.folder / "f{fold}"
    assert re.search(known, hearts.run(splits=str(hearts.folder / "s.json"))["training_data"])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (nnunet_splits((["a2", "c1"], ["a1", "b1"])), r"trained on 2 of the 3 cases that fold 0 tests \(a1, a2\)"),
        ({"folds": [{"train": ["c"], "validation": ["b"], "test": ["a"]}]}, r"trained on 1 of the 3 cases .* \(b1\)"),
        (nnunet_splits((["x1"], ["y1"])), r"trains on x1, none of which is a case or patient of this dataset"),
        ({"training": []}, r"is no list of folds; write \[\{"),
        (None, r"splits: .*s.json does not exist .*; correct `splits`"),
    ],
)
def test_a_method_that_has_seen_its_test_cases_is_refused(hearts, splits, message):
    if splits is not None:
        write_json(hearts.folder / "s.json", splits)
    hearts.theirs.rename(hearts.folder / "f0")
    hearts.theirs = hearts.folder / "f{fold}"
    hearts.refuses(message, splits=str(hearts.folder / "s.json"))


def test_near_duplicates_of_test_patients_in_their_training_are_refused(hearts):
    hearts.splits["groups"] = [["b", "c"]]
    write_json(hearts.folder / "splits_final.json", nnunet_splits((["c1"], [*TESTED])))
    hearts.refuses(r"splits_final.json says that the method was trained on 1 of the 3 cases that fold 0 tests \(b1\)")


def test_predictions_of_all_folds_in_one_folder_are_checked_case_by_case(hearts):
    """As nnU-Net's crossval_results: each case is predicted by the fold that validates on it."""
    folds = nnunet_splits((["a1", "a2", "c1"], ["b1", "d1"]), (["b1", "d1"], ["a1", "a2", "c1"]))
    write_json(hearts.folder / "splits_final.json", folds)
    assert re.search("^verified: .*does not train on its patient", hearts.run()["training_data"])
    hearts.output.rename(hearts.folder / "kept")
    folds[1]["train"].append("a2")
    write_json(hearts.folder / "splits_final.json", folds)
    hearts.refuses(r"trained on 2 of the 3 cases")


def test_the_state_follows_files_and_splits(hearts):
    settings = filled(settings_for("theirs", {"path": str(hearts.theirs)}, "hearts"), CELL.columns())
    states = [folder_state(settings)]
    save(hearts.theirs / "a1.nii.gz", labels(5))
    states.append(folder_state(settings))
    (hearts.theirs / ".DS_Store").touch()
    assert folder_state(settings) == states[-1]
    write_json(hearts.folder / "splits_final.json", [])
    states.append(folder_state(filled(settings_for("theirs", {"path": str(hearts.theirs)}, "h"), CELL.columns())))
    assert len(set(states)) == 3
    assert folder_state(settings | {"path": "nowhere", "splits": None}) == ""


def test_a_folder_that_is_away_costs_nothing_that_was_imported(in_tmp):
    cell = Cell("hearts", "clean", "cpu", "theirs", "external", 0, 0)
    assert imported_state(cell) == ""
    notes = Path("results/attempts") / cell.folder.relative_to("results/cells")
    write_json(notes / "predict.job.json", {"state": "as it was"})
    for state, known in (("ok", "as it was"), ("failed", "")):
        write_json(cell.folder / "predict.json", {"state": state})
        assert imported_state(cell) == known


def test_which_cells_there_are():
    theirs = {"path": "x/{fold}"}
    assert is_made(theirs, {}, first_seed=True)
    assert not is_made(theirs, {}, first_seed=False), "one training"
    assert not is_made(theirs, {"image": {}}, first_seed=True), "noise that it has not seen"
    assert is_made({"path": "x/{seed}", "file": "{condition}_{case}.png"}, {"image": {}}, first_seed=False)


def test_placeholders_and_what_differs_by_dataset():
    entry = {"path": "a/{dataset}/{fold}", "labels": {1: 1}, "datasets": {"x": {"path": "b", "labels": {1: 2}}}}
    assert settings_for("m", entry, "x") == {"path": "b", "labels": {1: 2}}
    settings = filled(settings_for("m", entry | {"file": "{seed}/{case}.png"}, "hearts"), CELL.columns())
    assert (settings["path"], settings["file"], settings["per_fold"]) == ("a/hearts/0", "0/{case}.png", True)
    with pytest.raises(BadInput, match=r"path: 'a/\{case\}' has \{case\}, but may have \{dataset\}, \{condition\}"):
        settings_for("m", {"path": "a/{case}"}, "x")
    with pytest.raises(BadInput, match=r"file: 'seg.nii' tells no case from another; write \{case\}"):
        settings_for("m", {"path": "a", "file": "seg.nii"}, "x")
    with pytest.raises(
        BadInput, match=r"external: m: no path .* dataset 'y'; give\n.*datasets: \{y: \{path: FOLDER\}\}"
    ):
        settings_for("m", {"datasets": {"x": {"path": "b"}}}, "y")


@pytest.fixture(scope="module")
def validated() -> dict:
    given = catalogue()
    given["external"] = {"theirs": {"path": "x/{fold}"}}
    given["conditions"]["noisy"] = {"image": {"kind": "gaussian", "strength": 0.1}}
    given["experiment"] |= {"methods": ["unet_narrow+ce", "theirs"], "claims": [], "conditions": ["clean", "noisy"]}
    validate(given, str(ROOT / "config/schemas/config.schema.yaml"))
    return given


@pytest.fixture
def config(validated) -> dict:
    return copy.deepcopy(validated)


def test_an_external_method_in_an_experiment(config):
    check_meaning(config)
    theirs = [cell for cell in cells(config) if cell.method == "theirs"]
    assert [(c.condition, c.fold, c.seed) for c in theirs] == [("clean", 0, 0), ("clean", 1, 0)]
    assert len(cells(config)) == 2 * 2 * 3 + 2
    assert str(theirs[1].folder) == "results/cells/brain_cohort/clean/demo/theirs/external/fold1/seed0"
    assert theirs[1].columns() | {"architecture": "theirs", "loss": "external"} == theirs[1].columns()
    assert predictions_of(config, theirs[1].columns())["path"] == "x/1"
    assert method_of("unet", "ce") == "unet+ce" and method_of("theirs", "external") == "theirs"

    del config["experiment"]["methods"]
    config["experiment"] |= {"architectures": ["unet"], "losses": ["ce"], "external": ["theirs"]}
    check_meaning(config)
    assert {cell.method for cell in cells(config)} == {"unet+ce", "theirs"}


def test_a_claim_names_an_external_method(config):
    config["claims"]["x"] = {
        "source": "s", "says": "t", "treatment": {"architecture": "unet", "loss": "ce"}, "control": {"method": "theirs"},
        "kind": "superior", "metric": "dice", "structure": "mean", "margin": 0, "provenance": "stated", "published": {},
    }  # fmt: skip
    config["experiment"] |= {"claims": ["x"], "stand_ins": {"unet": "unet_narrow"}}
    check_meaning(config)
    assert claims(config)["x"]["control"] == {"method": "theirs"}
    config["claims"]["x"]["control"] = {"method": "others"}
    with pytest.raises(BadInput, match=r"needs the method 'others' \(control\)"):
        check_meaning(config)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("experiment.methods", ["unet+ce", "their"]), r"methods: 'their' is not in the catalogue. Did you mean 'theirs'\?"),
        (change("experiment.conditions", ["noisy"]), r"theirs has predictions for unchanged data only, .*add clean"),
        (change("external.theirs.labels", {1: 9}), r"external: theirs: labels: 9 is no label of dataset 'brain_cohort'"),
        (change("external.theirs.path", "x/{method}"), r"external: theirs: path: 'x/\{method\}' has \{method\}, but may"),
        (change("external.unet", {"path": "x"}), r"external: 'unet' is the name of an architecture too"),
        (change("losses.external", {"name": "cross_entropy"}), r"losses: 'external' is a kind of method"),
        (change("experiment.external", ["theirs"]), r"give either `methods: \[architecture\+loss, external, …\]`"),
    ],
)  # fmt: skip
def test_faults_of_the_configuration(config, edit, message):
    edit(config)
    if "unet" in config["external"]:
        config["experiment"]["methods"] = ["unet"]
    with pytest.raises(BadInput, match=message):
        check_meaning(config)


def test_the_ledger_says_what_is_known_of_the_training(in_tmp):
    for stage, result in (("predict", {"training_data": "not verified: x"}), ("evaluate", {})):
        record = {
            "state": "ok",
            "stage": stage,
            "reason": "",
            "message": "",
            "log": "",
            "attempts": 1,
            "result": result,
        }
        write_json(CELL.folder / f"{stage}.json", record)
    (row,) = build_ledger([CELL]).to_dict("records")
    assert (row["method"], row["state"], row["training_data"]) == ("theirs", "ok", "not verified: x")
    (CELL.folder / "evaluate.json").unlink()
    (row,) = build_ledger([CELL]).to_dict("records")
    assert (row["state"], row["stage"]) == ("missing", "evaluate")


def test_a_dataset_for_nnunet(hearts, tmp_path):
    """Label values 10 and 20 and an ignored 9 become 1, 2 and the next; two channels; the test patients validate."""
    cases, values = [], np.array([0, 10, 20, 9], np.uint8)
    for seed, name in enumerate((*TESTED, *TRAINED)):
        images = {
            "t1": str(hearts.folder / f"{name}.nii.gz"),
            "t2": str(save(tmp_path / f"{name}_t2.nii.gz", labels())),
        }
        label = save(tmp_path / f"{name}_seg.nii.gz", values[labels(seed)])
        cases.append(Case(name, name[0], images, {"label": str(label)}))
    block = {"structures": {"rv": 10, "lv": 20}, "palette": None, "ignore": [9]}
    block |= {"preprocess": {"colour": None, "intensity": "zscore"}}
    folder = tmp_path / nnunet_folder("hearts")
    write_nnunet(cases, hearts.splits, folder, block)
    assert re.fullmatch(r"Dataset\d{3}_hearts", folder.name)
    about = json.loads((folder / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "t1", "1": "t2"} and about["numTraining"] == 5
    assert about["labels"] == {"background": 0, "rv": 1, "lv": 2, "ignore": 3}
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": ["c1"], "val": [*TESTED]}]
    assert (folder / "imagesTr/a1_0001.nii.gz").resolve() == tmp_path / "a1_t2.nii.gz"
    written = nib.load(folder / "labelsTr/a2.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), labels(1)) and np.allclose(written.affine, AFFINE, atol=1e-6)
    entry = yaml.safe_load((folder / "external.yaml").read_text())["external"]["nnunet_v2"]
    assert entry["labels"] == {0: 0, 1: 10, 2: 20} and folder.name in entry["path"]


def test_regions_and_pictures_for_nnunet(tmp_path):
    cases = []
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((5, 6, 3), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.array([[0, 1, 2, 4, 1, 0]] * 5, np.uint8)).save(tmp_path / f"{name}_seg.png")
        files = {"image": str(tmp_path / f"{name}.png")}, {"label": str(tmp_path / f"{name}_seg.png")}
        cases.append(Case(name, name, *files))
    splits = {"folds": [{"train": ["a"], "validation": ["b"], "test": ["c"]}], "cases": {n: [n] for n in "abc"}}
    block = {"structures": {"whole": [1, 2, 4], "core": [1, 4], "enhancing": 4}, "palette": None, "ignore": []}
    block |= {"preprocess": {"colour": None, "intensity": "none"}}
    write_nnunet(cases, splits, tmp_path / "Dataset123_x", block)
    about = json.loads((tmp_path / "Dataset123_x/dataset.json").read_text())
    names = {"background", "whole", "core", "enhancing"}
    assert set(about["labels"]) == names and about["channel_names"] == {"0": "noNorm", "1": "noNorm", "2": "noNorm"}
    label = np.asarray(nib.load(tmp_path / "Dataset123_x/labelsTr/a.nii.gz").dataobj)[0, :, 0]
    entry = yaml.safe_load((tmp_path / "Dataset123_x/external.yaml").read_text())["external"]["nnunet_v2"]
    back = entry["labels"]
    assert [back[int(v)] for v in label] == [0, 1, 2, 4, 1, 0]
    for name, values in block["structures"].items():
        ours = {n for n, value in back.items() if value in np.atleast_1d(values)}
        assert set(np.atleast_1d(about["labels"][name])) == ours, "a region is the same set of voxels"
    order = about["regions_class_order"]
    # nnU-Net writes the classes of regions one over the other, in this order
    assert [back[number] for number in order] == [2, 1, 4]
    image = nib.load(tmp_path / "Dataset123_x/imagesTr/b_0002.nii.gz")
    assert image.shape == (5, 6, 1) and (np.asarray(image.dataobj) == ord("b")).all()
