"""The narrow transformers and baselines of the catalogue pass through training and prediction, in 2-D and 3-D."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import ROOT
from tiny_store import restore_torch, tiny_job, tiny_store  # noqa: F401

from lib.inference.predict import predict_cell
from lib.training import train_cell

pytestmark = pytest.mark.slow

CATALOGUE = yaml.safe_load((ROOT / "config/config.yaml").read_text())["architectures"]
FAMILIES = ("unetr", "swin_unetr", "pvt_gcascade", "nnunet", "nnunet_resenc", "segresnet", "mednext")


def predicted(folder, job) -> np.ndarray:
    train_cell(job)
    keys = ("cell", "model", "protocol", "store", "splits", "certificate", "threads")
    predict_cell(
        {key: job[key] for key in keys}
        | {"training": job["output"], "index": str(folder / "index.csv"), "output": str(folder / "predictions")}
    )
    return np.transpose(np.asarray(nib.load(folder / "predictions/p4_a.nii.gz").dataobj), (2, 0, 1)) // 10


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_slices_after_patches(family, tmp_path):
    """Patches of 32 × 32, slices of 70 × 52."""
    tiny_store(tmp_path, shape=(3, 70, 52))
    job = tiny_job(tmp_path, iterations=2, validate_every=2) | {"model": CATALOGUE[f"{family}_narrow"]}
    assert predicted(tmp_path, job).shape == (3, 70, 52)


@pytest.mark.parametrize("family", FAMILIES)
def test_volumes(family, tmp_path):
    tiny_store(tmp_path, spatial_dims=3, shape=(34, 36, 33))
    model = CATALOGUE[f"{family}_narrow"] | ({"deep_supervision": True} if family in ("nnunet", "mednext") else {})
    job = tiny_job(tmp_path, patch=[32, 32, 32], iterations=2, batch=1, validate_every=2) | {"model": model}
    assert predicted(tmp_path, job).shape == (34, 36, 33)
