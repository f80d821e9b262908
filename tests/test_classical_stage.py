"""Classical methods and the denoiser in the pipeline: the stage, conditions, configuration, ledger, statistics."""

from __future__ import annotations

import copy
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from test_config import config  # noqa: F401
from tiny_store import tiny_store

from lib import classical
from lib.cells import Cell
from lib.config import cells, check_meaning
from lib.data.conditions import apply_condition, check_conditions, denoised, measure_image
from lib.data.strengths import families
from lib.errors import BadInput
from lib.files import write_json
from lib.inference.classical import segment_cell
from lib.ledger import build_ledger
from lib.report.methods import methods_text
from lib.statistics import judge, rank, situations
from lib.statistics.table import COLUMNS

CELL = {"dataset": "tiny", "condition": "clean", "protocol": "p", "method": "otsu", "architecture": "otsu", "loss": "classical", "fold": 0, "seed": 0}  # fmt: skip


def job_of(folder, recipe) -> dict:
    return {
        "cell": CELL,
        "classical": recipe,
        "store": str(folder / "store"),
        "splits": str(folder / "splits.json"),
        "index": str(folder / "index.csv"),
        "checkpoints": str(folder / "kept"),
        "output": str(folder / "predictions"),
        "code": "0",
        "threads": 1,
    }


@pytest.fixture
def tiny(tmp_path):
    tiny_store(tmp_path)
    return tmp_path


def dice(folder, case, value) -> float:
    a, b = (
        np.asarray(nib.load(f).dataobj) == value
        for f in (folder / f"predictions/{case}.nii.gz", folder / f"raw/{case}.label.nii.gz")
    )
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_label_maps_lie_on_the_files_grid_with_the_files_values(tmp_path, spatial_dims):
    tiny_store(tmp_path, spatial_dims)
    result = segment_cell(job_of(tmp_path, {"name": "coupled_tv"}))
    file = nib.load(tmp_path / "predictions/p4_a.nii.gz")
    assert file.shape == (40, 36, 6) and set(np.unique(np.asarray(file.dataobj))) <= {0, 10, 20}
    assert dice(tmp_path, "p4_a", 10) > 0.9 and dice(tmp_path, "p4_a", 20) > 0.9
    assert result["cases"] == 1 and result["learned"]["mapping"] == [2, 0, 1]
    assert {"wall_seconds", "resumed", "peak_memory_mb", "gpu_hours", "device", "threads"} == result["cost"].keys()
    assert result["cost"]["resumed"] == 0


def test_labels_of_test_and_validation_patients_reach_nothing(tiny):
    segment_cell(job_of(tiny, {"name": "otsu"}))
    before = np.asarray(nib.load(tiny / "predictions/p4_a.nii.gz").dataobj)
    for case in ("p3_a", "p4_a"):
        label = np.load(tiny / f"store/{case}.label.npy")
        np.save(tiny / f"store/{case}.label.npy", (label + 1) % 3)
    segment_cell(job_of(tiny, {"name": "otsu"}))
    assert (before == np.asarray(nib.load(tiny / "predictions/p4_a.nii.gz").dataobj)).all()
    for case in ("p0_a", "p1_a", "p2_a"):
        label = np.load(tiny / f"store/{case}.label.npy")
        np.save(tiny / f"store/{case}.label.npy", (label + 1) % 3)
    segment_cell(job_of(tiny, {"name": "otsu"}))
    assert (before != np.asarray(nib.load(tiny / "predictions/p4_a.nii.gz").dataobj)).any()


def test_of_overlapping_structures_the_parts_are_labelled(tiny):
    meta = json.loads((tiny / "store/store.json").read_text())
    write_json(tiny / "store/store.json", meta | {"regions": [[1, 2], [2]]})
    segment_cell(job_of(tiny, {"name": "coupled_tv"}))
    assert dice(tiny, "p4_a", 10) > 0.8 and dice(tiny, "p4_a", 20) > 0.8


def test_fewer_training_patients_are_what_the_condition_leaves(tiny, capsys):
    meta = json.loads((tiny / "store/store.json").read_text())
    write_json(tiny / "store/store.json", meta | {"condition_settings": {"train_patients": 1}})
    segment_cell(job_of(tiny, {"name": "otsu"}))
    assert "learned from 1 training cases" in capsys.readouterr().out


def test_an_interrupted_job_goes_on_where_it_was(tiny, monkeypatch):
    job = job_of(tiny, {"name": "coupled_tv", "weight": [0.5, 1]})
    segment_cell(job)
    whole = np.asarray(nib.load(tiny / "predictions/p4_a.nii.gz").dataobj)
    assert list((tiny / "kept").iterdir()) == []
    seen = []
    divide = classical.CLASSICAL.get("coupled_tv").divide

    def counted(self, *arguments):
        seen.append(self.weight)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return divide(self, *arguments)

    monkeypatch.setattr(classical.CLASSICAL.get("coupled_tv"), "divide", counted)
    (tiny / "predictions/p4_a.nii.gz").unlink()
    with pytest.raises(KeyboardInterrupt):
        segment_cell(job)
    (spent,) = (tiny / "kept").glob("*/spent.json")
    write_json(spent, json.loads(spent.read_text()) | {"seconds": 1000.0})
    cost = segment_cell(job)["cost"]
    assert 1000 < cost["wall_seconds"] < 1100 and cost["resumed"] == 1
    assert seen == [0.5] * 3 + [1] * 4 + [seen[-1]]  # the fifth again, the sixth, then the test case
    assert (np.asarray(nib.load(tiny / "predictions/p4_a.nii.gz").dataobj) == whole).all()


def test_a_fault_of_a_test_image_names_the_case(tiny):
    image = np.load(tiny / "store/p4_a.image.npy")
    np.save(tiny / "store/p4_a.image.npy", np.zeros_like(image))
    with pytest.raises(BadInput, match=r"case 'p4_a': the image has no two different"):
        segment_cell(job_of(tiny, {"name": "otsu"}))


def test_the_ledger_has_the_cost_of_what_was_done_outside_the_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = Cell("d", "clean", "p", "otsu", "classical", 0, 0)
    assert cell.stages == ("predict", "evaluate") and cell.method == "otsu"
    cost = {"wall_seconds": 3.0, "peak_memory_mb": 90.0, "gpu_hours": 0.0, "device": "a CPU", "threads": 1}
    record = {"stage": "predict", "state": "ok", "reason": "", "message": "", "log": "", "attempts": 1, "identity": "i", "hardware": {"cpu": "a CPU"}, "versions": {"numpy": "2"}}  # fmt: skip
    write_json(cell.folder / "predict.json", record | {"result": {"cost": cost}})
    write_json(cell.folder / "evaluate.json", record | {"stage": "evaluate"})
    (row,) = build_ledger([cell]).to_dict("records")
    assert {key: row[key] for key in cost} == cost
    assert (row["hardware"], row["software"], row["state"]) == ("a CPU", "numpy 2", "ok")


# configuration


def with_methods(config, *methods) -> dict:  # noqa: F811
    config = copy.deepcopy(config)
    config["experiment"] |= {"methods": list(methods), "claims": []}
    return config


def test_a_deterministic_method_has_cells_of_one_seed(config):  # noqa: F811
    config = with_methods(config, "unet_narrow+ce", "otsu", "coupled_tv")
    check_meaning(config)
    seeds = {}
    for cell in cells(config):
        seeds.setdefault(cell.method, set()).add(cell.seed)
    assert seeds == {"unet_narrow+ce": {0, 1, 2}, "otsu": {0}, "coupled_tv": {0}}


def test_bad_recipes_stop_the_configuration(config):  # noqa: F811
    config["classical"]["mine"] = {"name": "coupled_tv", "weight": -1}
    with pytest.raises(BadInput, match=r"config, classical: mine: weight: -1 must be a number, 0 or more"):
        check_meaning(config)
    config["classical"]["mine"] = {"name": "coupled_tw"}
    with pytest.raises(BadInput, match=r"config, classical: mine: .* Did you mean 'coupled_tv'"):
        check_meaning(config)


def test_a_name_means_one_method(config):  # noqa: F811
    with pytest.raises(BadInput, match=r"methods: 'otsi' is not in the catalogue. Did you mean 'otsu'"):
        check_meaning(with_methods(config, "otsi"))
    config["external"]["otsu"] = {"path": "x"}
    with pytest.raises(BadInput, match=r"'otsu' is in .* too; rename one"):
        check_meaning(with_methods(config, "otsu"))


# the denoiser as a condition

DENOISE = {"kind": "coupled_tv", "levels": 2, "weight": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 4}, "needs a kind, for example"),
        ({"kind": "coupled_tv"}, "levels: None must be a whole number"),
        (DENOISE | {"weights": 1}, "no key 'weights' here. Did you mean 'weight'"),
        (DENOISE | {"weight": [1, 2]}, "must be one number; make a condition of each"),
        (DENOISE | {"noise": "poisson"}, "noise: 'poisson' must be one of"),
    ],
)
def test_settings_of_the_denoiser_are_checked(settings, message):
    with pytest.raises(BadInput, match=f"config, conditions: c: denoise: .*{message}"):
        check_conditions({"c": {"denoise": settings}})


@pytest.mark.parametrize(("noise", "kind", "gain"), [("gaussian", "gaussian", 10), ("rayleigh", "rayleigh", 6)])
def test_the_denoiser_gains_decibels_on_a_known_image(noise, kind, gain):
    """Two intensities: only voxels in the wrong region and the error of two levels remain of the noise."""
    image = np.full((1, 40, 40, 3), 100, np.float32)
    image[0, 8:30, 10:32] = 300
    condition = {"image": {"kind": kind, "strength": 1.0 if kind == "rayleigh" else 0.3}}
    seen = apply_condition(
        condition | {"denoise": DENOISE | {"noise": noise}},
        "d",
        "c",
        image,
        image[0].astype(int),
        None,
        (1, 1, 5),
        {"x": 300},
    )
    noisy = apply_condition(condition, "d", "c", image, image[0].astype(int), None, (1, 1, 5), {"x": 300})
    before, after = (measure_image(image, one.test_image, None)["psnr_db"][0] for one in (noisy, seen))
    assert after > before + gain
    assert len(np.unique(seen.test_image)) == 2 and seen.test_image is seen.train_image
    assert seen.record["denoise"]["psnr_db"][0] == pytest.approx(after) and seen.record["image"]["psnr_db"][
        0
    ] == pytest.approx(before)
    assert np.sort(np.unique(seen.test_image)) == pytest.approx([100, 300], rel=0.06)


def test_the_denoiser_leaves_what_is_outside_and_every_part_its_own():
    rng = np.random.default_rng(0)
    image = np.zeros((2, 20, 20, 1), np.float32)
    image[:, 4:16, 4:16] = 50 + rng.random((2, 12, 12, 1))
    image[:, 8:12, 8:12] += 20
    found = denoised(image, (image != 0).any(0), (1, 1, 1), DENOISE)
    assert ((found == 0) == (image == 0)).all() and all(len(np.unique(c)) == 3 for c in found)
    condition = {"image": {"kind": "gaussian", "strength": 0.2, "parts": ["test"]}, "denoise": DENOISE}
    seen = apply_condition(condition, "d", "c", image, image[0].astype(int), (image != 0).any(0), (1, 1, 1), {"x": 1})
    assert (seen.train_image == found).all() and (seen.test_image != found).any()


def test_denoised_conditions_are_a_family_of_their_own():
    noisy = {f"r{s}": {"image": {"kind": "rician", "strength": s}} for s in (0.1, 0.2)}
    clear = {f"{name}_tv": c | {"denoise": DENOISE | {"noise": "gaussian", "sigma": None}} for name, c in noisy.items()}
    found = {f.name: f.conditions for f in families({"clean": {}} | noisy | clear)}
    assert found == {
        "image rician": ("clean", "r0.1", "r0.2"),
        "image rician, denoise coupled_tv, levels 2, weight 1, noise gaussian": ("r0.1_tv", "r0.2_tv"),
    }


# statistics


def scores_of(methods: dict[str, np.ndarray]) -> pd.DataFrame:
    """Rows of (seeds, patients) Dice per method; classical ones have one seed."""
    rows = [
        {
            "dataset": "d", "condition": "clean", "protocol": "p", "method": name, "architecture": name.partition("+")[0],
            "loss": name.partition("+")[2] or "classical", "fold": patient % 2, "seed": seed, "patient": f"p{patient:02}",
            "case": f"p{patient:02}", "structure": "x", "metric": "dice", "value": value, "unit": "", "status": "scored",
        }
        for name, table in methods.items()
        for seed, values in enumerate(table)
        for patient, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_method_without_chance_stands_under_every_seed():
    rng = np.random.default_rng(0)
    patients = rng.normal(0.7, 0.03, 16)
    trained = patients + 0.1 + rng.normal(0, 0.01, (3, 16))
    (part,) = situations(scores_of({"unet+ce": trained, "otsu": patients[None]}))
    assert part.scores[0, 1, part.index("otsu")] == pytest.approx(np.tile(patients, (3, 1)))
    ranking, pairs = rank([part])
    mean = pairs[pairs["structure"] == "mean"].iloc[0]
    assert (
        mean["n_seeds"] == 3
        and bool(mean["separated"])
        and abs(mean["difference"]) == pytest.approx((trained - patients).mean())
    )
    assert ranking["seeds_enough"].all()


def test_two_methods_without_chance_are_compared_over_patients():
    rng = np.random.default_rng(1)
    patients = rng.normal(0.7, 0.03, 16)
    (part,) = situations(
        scores_of({"coupled_tv": patients[None] + 0.05 + rng.normal(0, 0.01, (1, 16)), "kmeans": patients[None]})
    )
    claim = {"source": "s", "says": "better", "provenance": "stated", "kind": "superior", "metric": "dice", "structure": "mean", "margin": 0.0, "treatment": {"method": "coupled_tv"}, "control": {"method": "kmeans"}, "published": {}}  # fmt: skip
    (row,) = judge(
        [part],
        {"c": claim},
        conditions={"clean": {}},
        protocols={"p": {"iterations": 1, "batch": 1}},
        ledger=pd.DataFrame(),
    ).to_dict("records")
    assert row["verdict"] == "reproduced" and row["difference"] == pytest.approx(0.05, abs=0.01)


def test_the_methods_text_names_and_cites_them():
    ledger = pd.DataFrame(
        [
            {
                "method": "otsu",
                "architecture": "otsu",
                "loss": "classical",
                "seed": 0,
                "fold": 0,
                "state": "ok",
                "training_data": None,
            }
        ]
    )
    text = " ".join(
        methods_text(
            {"classical": {"otsu": {"name": "otsu", "levels": 4}}, "protocols": {"p": {}}}, ledger, [], [], "1"
        )
    )
    assert (
        "Without a network: otsu (otsu, levels 4) [@otsu1979]; what these learn" in text
        and "No network was trained" in text
    )
