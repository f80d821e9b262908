"""Datasets of every kind, from a block of the configuration to the report."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project import Project

from lib.data.formats import read_label

pytestmark = pytest.mark.slow

PROTOCOLS = {
    "flat": {"iterations": 6, "batch": 2, "patch": [32, 32], "validate_every": 3},
    "solid": {"iterations": 4, "batch": 2, "patch": [16, 16, 16], "validate_every": 4},
}


def pictures(folder):
    """Colour pictures of 9 people, some with two, masks in colours; 4 and 5 are frames of one film, 6 copies 1."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    films = {}
    for person in range(9):
        for shot in "ab"[: 1 + person % 2]:
            size = (40 + person, 52)
            scene = 4 if person == 5 else person
            rows, columns = np.mgrid[: size[0], : size[1]]
            wound = (rows - 12 - scene) ** 2 + (columns - 20 - 2 * scene) ** 2 < 60
            if (scene, shot) not in films:
                films[scene, shot] = rng.integers(0, 255, (12, 14, 3)).astype(np.uint8)
            texture = np.asarray(Image.fromarray(films[scene, shot]).resize(size[::-1], Image.BILINEAR)).astype(float)
            picture = np.clip(texture * 0.6 + wound[..., None] * [90, 10, 20] + rng.normal(0, 3, (*size, 3)), 1, 255)
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{person}_{shot}.png")
            Image.fromarray((wound[..., None] * [128, 0, 0]).astype(np.uint8)).save(
                folder / f"{person}_{shot}_mask.png"
            )
    (folder / "6_a.png").write_bytes((folder / "1_a.png").read_bytes())
    (folder / "6_a_mask.png").write_bytes((folder / "1_a_mask.png").read_bytes())
    (folder / "people.csv").write_text(
        "id,clinic\n" + "".join(f"{p},{'north' if p < 5 else 'south'}\n" for p in range(9))
    )


def volumes(folder):
    """Two-channel volumes of 6 people with a brain mask and nested regions 1, 2, 4."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for person in range(6):
        shape, affine = (22, 24 + person, 20), np.diag([-1.0 - 0.1 * person, -1.2, 1.5, 1])
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
        brain = np.sqrt((grid**2).sum(0)) < 0.95
        radius = np.sqrt(((grid - rng.uniform(-0.2, 0.2, (3, 1, 1, 1))) ** 2).sum(0))
        label = np.select([radius < 0.2, radius < 0.35, radius < 0.5], [4, 1, 2], 0).astype(np.uint8)
        for name, level in (("flair", [0, 3, 2, 0, 3.5]), ("t1c", [0, 1, 0.5, 0, 3])):
            image = np.where(brain, np.array(level)[label] + rng.normal(0, 0.3, shape), -5).astype(np.float32)
            nib.save(nib.Nifti1Image(image, affine), folder / f"p{person}_{name}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / f"p{person}_seg.nii.gz")
        nib.save(nib.Nifti1Image(brain.astype(np.uint8), affine), folder / f"p{person}_mask.nii.gz")


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("flat"), {})
    pictures(project.folder / "data/wounds")
    project.configure({
        "datasets": {"wounds": {
            "source": {"path": "data/wounds"},
            "files": {"image": "{patient}_{shot}.png", "label": "{patient}_{shot}_mask.png",
                      "table": {"file": "people.csv", "match": {"id": "{patient}"}, "fields": {"clinic": "clinic"}}},
            "palette": {7: [128, 0, 0]},
            "structures": {"wound": 7},
            "check": {"on_error": "drop", "near_duplicates": {"action": "group", "threshold": 0.8}},
            "splits": {"folds": 2, "validation": 0.3, "stratify": "clinic"},
        }},
        "conditions": {
            "hard": {"image": {"kind": "gaussian", "strength": 0.2},
                     "train_labels": {"kind": "dilation", "rate": 1.0, "strength_px": 3}, "train_patients": 2},
        },
        "protocols": PROTOCOLS,
        "experiment": {"name": "tiny", "datasets": ["wounds"], "conditions": ["clean", "hard"],
                       "methods": ["unet_narrow+dice"], "protocol": "flat", "folds": [0, 1], "seeds": [0]},
    })  # fmt: skip
    project.snakemake()
    return project


def test_pictures_with_colour_masks_from_a_block_to_the_report(flat):
    data = flat.folder / "results/data/wounds"
    check = json.loads((data / "check.json").read_text())
    assert [entry["case"] for entry in check["dropped"]] == ["6_a"], "the copy of 1_a under another patient"
    assert {"4", "5"} <= {patient for pair in check["near_duplicates"]["pairs"] for patient in pair["patients"]}
    splits = json.loads((data / "splits.json").read_text())
    assert splits["groups"] == [["4", "5"]]
    assert json.loads((data / "certificate.json").read_text())["sound"] is True
    assert "7 of 8" not in (data / "check.html").read_text()
    scores = flat.table("scores.csv")
    assert set(scores["unit"]) == {"", "px"}
    assert "5" not in set(scores["patient"].astype(str)), "the group stands for its patients"
    (file,) = (flat.folder / "results/cells/wounds/clean").glob("*/*/*/*/seed0/predictions/0_a.png")
    labels, geometry = read_label(file)
    assert geometry.shape == (40, 52, 1)
    assert set(np.unique(labels)) <= {0, 7}
    page = (flat.folder / "results/tiny/report/index.html").read_text()
    assert "left out" in page and "6_a" in page
    assert "No patient, image or label map is in two parts of any of 2 folds" in page


def test_a_condition_changes_training_data_and_records_how_much(flat):
    stores = {c: flat.folder / f"results/data/wounds/{c}/store" for c in ("clean", "hard")}
    metas = {c: json.loads((folder / "store.json").read_text()) for c, folder in stores.items()}
    for case in metas["clean"]["cases"]:
        image, label = (np.load(stores["clean"] / f"{case}.{kind}.npy") for kind in ("image", "label"))
        noisy, grown = (np.load(stores["hard"] / f"{case}.{kind}.npy") for kind in ("image", "label"))
        assert not np.array_equal(image, noisy)
        assert (grown >= label).all() and grown.sum() > label.sum()
        noise = metas["hard"]["cases"][case]["noise"]
        assert noise["image"]["asked"]["strength"] == 0.2
        assert noise["train_labels"]["asked"]["rate"] == 1.0
    records = {
        c: json.loads(next((flat.folder / f"results/cells/wounds/{c}").rglob("train.json")).read_text()) for c in metas
    }
    assert {record["state"] for record in records.values()} == {"ok"}
    log = next((flat.folder / "results/logs/train/wounds/hard").rglob("*.log")).read_text()
    assert "2 training" in log or "3 training" in log or "4 training" in log  # cases of two patients


def test_a_corrected_mask_is_trained_on_also_when_the_check_ran_first(flat):
    file = flat.folder / "data/wounds/0_a_mask.png"
    file.touch()
    flat.snakemake("check")
    assert "preprocess" not in flat.planned(), "the same pixels, written again"
    mask = np.asarray(Image.open(file)).copy()
    mask[:, ::2] = 0
    Image.fromarray(mask).save(file)
    flat.snakemake("check")
    assert {"preprocess": 2, "train": 4, "evaluate": 4}.items() <= flat.planned().items()


def test_volumes_with_channels_mask_regions_and_a_spacing_of_the_fold(tmp_path):
    project = Project(tmp_path, {})
    volumes(tmp_path / "data/tumours")
    project.configure({
        "datasets": {"tumours": {
            "source": {"path": "data/tumours"},
            "files": {"image": {"flair": "{patient}_flair.nii.gz", "t1c": "{patient}_t1c.nii.gz"},
                      "label": "{patient}_seg.nii.gz", "mask": "{patient}_mask.nii.gz"},
            "structures": {"whole": [1, 2, 4], "core": [1, 4], "enhancing": 4},
            "preprocess": {"spacing": "median", "slices": None, "crop": "nonzero"},
            "splits": {"folds": 2, "validation": 0.34},
        }},
        "architectures": {"small": {"name": "unet", "width": 4}},
        "protocols": PROTOCOLS,
        "experiment": {"name": "tiny", "datasets": ["tumours"], "methods": ["small+dice", "small+ce"],
                       "protocol": "solid", "folds": [0, 1], "seeds": [0]},
    })  # fmt: skip
    project.snakemake("results/tiny/scores.csv", "results/tiny/ledger.csv")
    data = tmp_path / "results/data/tumours/clean"
    assert sorted(p.name for p in data.iterdir()) == ["store-fold0", "store-fold1"]
    ledger = project.table("ledger.csv")
    assert list(ledger["state"]) == ["ok"] * 4
    scores = project.table("scores.csv")
    assert set(scores["structure"]) == {"whole", "core", "enhancing"}
    (file,) = tmp_path.glob("results/cells/tumours/clean/solid/small/dice/*/seed0/predictions/p3.nii.gz")
    prediction, image = nib.load(file), nib.load(tmp_path / "data/tumours/p3_flair.nii.gz")
    assert prediction.shape == image.shape
    assert np.allclose(prediction.affine, image.affine)
    assert set(np.unique(np.asarray(prediction.dataobj))) <= {0, 1, 2, 4}
    assert pd.Series(scores["value"]).notna().all()


def test_a_dataset_is_downloaded_unpacked_and_checked(tmp_path):
    project = Project(tmp_path / "project", {})
    pictures(tmp_path / "served/wounds")
    archive = Path(shutil.make_archive(str(tmp_path / "served/wounds"), "zip", tmp_path / "served", "wounds"))
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        block = {
            "source": {"url": f"http://127.0.0.1:{server.server_port}/wounds.zip"},
            "files": {"image": "wounds/{patient}_{shot}.png", "label": "wounds/{patient}_{shot}_mask.png"},
            "palette": {1: [128, 0, 0]}, "structures": {"wound": 1}, "check": {"on_error": "drop"},
        }  # fmt: skip
        project.configure({"datasets": {"wounds": block}, "dataset": "wounds"})
        project.snakemake("check")
        lock = (project.folder / "config/downloads.lock.json").read_text()
        assert hashlib.sha256(archive.read_bytes()).hexdigest() in lock
        assert "wound" in (project.folder / "results/data/wounds/check.html").read_text()
        shutil.rmtree(project.folder / "results/data")
        archive.write_bytes(b"other")
        project.snakemake("check")  # from the cache
        block["source"]["sha256"] = "0" * 64
        project.configure({"datasets": {"wounds": block}, "dataset": "wounds"})
        run = project.snakemake("check", check=False)
        assert run.returncode != 0 and "sha256" in run.stdout and "0000" in run.stdout
        server.shutdown()
