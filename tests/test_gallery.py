"""The gallery: which cases it chooses, and that its pictures are the slices of the files."""

from __future__ import annotations

import base64
import io

import fake_results as fake
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.data.cases import Case
from lib.figures import gallery, montage

STRUCTURES = {"a": 1, "b": 2}


def scores(values: dict[str, dict[str, list[float]]], structure: str = "a", metric: str = "dice") -> pd.DataFrame:
    """{method: {case: values of the seeds}} as a score table."""
    rows = [
        {"method": method, "case": case, "fold": 0, "seed": seed, "structure": structure, "metric": metric}
        | {"value": value, "status": "scored", "patient": case}
        for method, cases in values.items()
        for case, seeds in cases.items()
        for seed, value in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


VALUES = {
    "x+ce": {"c1": [0.1, 0.1], "c2": [0.9, 0.9], "c3": [0.5, 0.7], "c4": [0.6, 0.6], "c5": [0.8, 0.8]},
    "y+ce": {"c1": [0.1, 0.1], "c2": [0.3, 0.3], "c3": [0.5, 0.7], "c4": [0.7, 0.7], "c5": [0.8, 0.8]},
}


def roles(table: pd.DataFrame, metric: str = "dice") -> dict[str, list[str]]:
    return {case: of for (case, structure), of in gallery.choose(table, {"a": 1}, metric).items() if structure == "a"}


def test_the_worst_and_the_most_disputed_cases_by_hand():
    assert roles(scores(VALUES)) == {
        "c1": ["worst"],
        "c2": ["second worst", "most disputed between methods"],  # 0.9 against 0.3
        "c3": ["third worst", "most disputed between seeds"],  # 0.5 and 0.7 under both methods; ties by name
        "c4": ["second most disputed between methods"],
    }
    distances = {m: {c: [100 * (1 - v) for v in seeds] for c, seeds in cases.items()} for m, cases in VALUES.items()}
    assert roles(scores(distances, metric="hd95"), "hd95") == roles(scores(VALUES))


def test_what_cannot_be_disputed_is_not():
    one = {"x+ce": {case: seeds[:1] for case, seeds in VALUES["x+ce"].items()}}
    assert {role for of in roles(scores(one)).values() for role in of} == {"worst", "second worst", "third worst"}
    equal = {method: {"c1": [0.5, 0.5], "c2": [0.5, 0.5]} for method in VALUES}
    assert roles(scores(equal)) == {"c1": ["worst"], "c2": ["second worst"]}
    assert gallery.choose(scores(VALUES).assign(status="failed"), {"a": 1}) == {
        (f"c{i}", "mean"): [] for i in range(1, 6)
    }


def test_a_method_that_missed_a_fold_does_not_decide():
    values = VALUES | {"z+ce": {"c5": [0.0, 0.0]}}
    assert roles(scores(values))["c1"] == ["worst"] and "c5" not in roles(scores(values))


def test_every_case_has_a_picture_up_to_the_limit():
    many = {"x+ce": {f"c{i:02d}": [i / 100] for i in range(60)}}
    chosen = {case for case, structure in gallery.choose(scores(many), {"a": 1}) if structure == "mean"}
    assert len(chosen) == gallery.CASES and {"c00", "c01", "c02", "c29", "c59"} <= chosen


@pytest.fixture
def case(tmp_path) -> tuple[Case, dict, np.ndarray, np.ndarray]:
    """A volume of 30 × 20 × 10 voxels, 1 × 2 × 3 mm, in LAS axes: a box `a`, largest in slice 4, and `b` in slice 7."""
    reference = np.zeros((30, 20, 10), np.uint8)
    for z, size in ((3, 6), (4, 10), (5, 6)):
        reference[5 : 5 + size, 4 : 4 + size, z] = 1
    reference[20:24, 10:13, 7] = 2
    guess = np.roll(reference, 2, axis=0)
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    image = reference * 50.0 + np.arange(30)[:, None, None]
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), tmp_path / "i.nii.gz")
    nib.save(nib.Nifti1Image(reference, affine), tmp_path / "l.nii.gz")
    folder = tmp_path / "x/ce/fold0/seed0/predictions"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(guess, affine), folder / "c1.nii.gz")
    one = Case("c1", "c1", {"image": str(tmp_path / "i.nii.gz")}, {"label": str(tmp_path / "l.nii.gz")})
    return one, {("x+ce", 0, 0): folder}, reference, guess


def decoded(picture: dict) -> np.ndarray:
    """(panels, rows, columns) of label positions."""
    with Image.open(io.BytesIO(base64.b64decode(picture["labels"]))) as stack:
        return np.asarray(stack).reshape(-1, picture["size"][1], picture["size"][0])


def test_a_picture_is_the_slice_of_the_reference_radiological_with_every_method_in_it(case):
    one, folders, reference, guess = case
    table = scores({"x+ce": {"c1": [0.6]}, "y+ce": {"c1": [0.2]}})
    table = pd.concat([table, table.assign(structure="b", value=0.4)])
    figures, found = gallery.draw(table, [one], folders, STRUCTURES, ["x+ce", "y+ce", "z+ce"])
    assert len(figures) == 2 and found["values"] == [0, 1, 2] and found["structures"] == {"a": [1], "b": [2]}
    by_view = {p["structure"]: p for p in found["pictures"]}
    assert set(by_view) == {"a", "b", "mean"}
    assert by_view["a"]["where"] == "axial slice 5 of 10" and by_view["b"]["where"] == "axial slice 8 of 10"
    assert by_view["a"]["panels"] == ["x+ce"] and by_view["a"]["aspect"] == 2
    assert {m: f["absent"] for m, f in by_view["a"]["methods"].items()} == {
        "x+ce": "",
        "y+ce": "no prediction",
        "z+ce": "missing",
    }
    for view, z in (("a", 4), ("b", 7)):
        panels = decoded(by_view[view])
        assert panels.shape[0] == 2
        for panel, volume in zip(panels, (reference, guess), strict=True):
            # The file runs to the patient's left, so its first axis already runs as a radiologist looks; anterior is up.
            seen = np.flip(volume[:, :, z].T, axis=0)
            rows, columns = np.nonzero(seen)
            low, left = np.nonzero(panel)[0].min(), np.nonzero(panel)[1].min()
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            box = seen[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert np.array_equal(panel[low : low + height, left : left + width], box)
            assert np.count_nonzero(panel) == np.count_nonzero(seen)
    assert "Dice 0.600" in figures[0].subfigs[0].axes[2].get_title(), "the value is that of the structure shown"


def test_large_slices_are_shrunk_and_labels_stay_on_the_image(tmp_path):
    reference = np.zeros((1000, 700, 1), np.uint8)
    reference[200:600, 100:500] = 1
    image = Image.fromarray((reference[..., 0] * 200).astype(np.uint8))
    image.save(tmp_path / "i.png")
    Image.fromarray(reference[..., 0]).save(tmp_path / "l.png")
    one = Case("c1", "c1", {"image": str(tmp_path / "i.png")}, {"label": str(tmp_path / "l.png")})
    (block,) = montage.read_planes(one, [{"a": 1}], scores(VALUES), {}, {"a": 1}, [])
    shown = gallery.picture(block, [0, 1])
    assert max(shown["size"]) <= gallery.SIDE
    with Image.open(io.BytesIO(base64.b64decode(shown["image"]))) as drawn:
        assert drawn.size == tuple(shown["size"])
        bright = np.asarray(drawn.convert("L")) > 100
    assert (bright == (decoded(shown)[0] == 1)).mean() > 0.98


def test_folders_are_those_of_the_scored_cells():
    place = {"dataset": "d", "condition": "c", "protocol": "p"}
    rows = [("unet", "ce", 0, 1), ("unet", "ce", 0, 1), ("nnunet_v2", "external", 0, 0)]
    table = pd.DataFrame(rows, columns=["architecture", "loss", "fold", "seed"]).assign(**place)
    found = montage.prediction_folders(table)
    assert set(found) == {("unet+ce", 0, 1), ("nnunet_v2", 0, 0)}
    assert str(found["unet+ce", 0, 1]) == "results/cells/d/c/p/unet/ce/fold0/seed1/predictions"


def test_without_scores_there_is_a_notice():
    figures, found = gallery.draw(fake.fake_scores().iloc[:0], [], {}, fake.STRUCTURES, [])
    assert len(figures) == 1 and found["pictures"] == []
