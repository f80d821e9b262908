"""The page about a dataset: complete, self-contained, well-formed, and there even when nothing can be read."""

from __future__ import annotations

import base64
import copy
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from scipy.ndimage import gaussian_filter

from lib.data.cases import Case
from lib.data.check import check_cases
from lib.figures import cases as case_figure
from lib.report import check as report
from lib.report.check import build_check_page

VOID = {"meta", "link", "img", "br", "hr", "input"}
BLOCK = {
    "source": {"path": "data/x"}, "structures": {"rv": 1, "wall": [2, 3]}, "palette": None, "ignore": [],
    "preprocess": {"colour": None, "spacing": [None, None, None]}, "licence": "CC BY 4.0", "cite": "",
    "check": {"on_error": "stop", "near_duplicates": {"threshold": 0.9, "action": "list"}},
}  # fmt: skip


def block(on_error: str = "stop", action: str = "list", **changes) -> dict:
    result = copy.deepcopy(BLOCK) | changes
    result["check"] = {"on_error": on_error, "near_duplicates": {"threshold": 0.9, "action": action}}
    return result


class Page(HTMLParser):
    """Tags that close, ids, links, addresses, pictures and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.tags, self.text = [], [], [], [], set(), []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        attributes = dict(attributes)
        assert not [name for name in names if name.startswith("on")]
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "href" in attributes:
            self.links.append(attributes["href"])
        self.sources += [
            attributes[name] for name in ("src", "srcset", "data", "action", "poster") if name in attributes
        ]
        if tag == "img":
            assert attributes["alt"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def pictures(self) -> list[np.ndarray]:
        coded = [source.removeprefix("data:image/png;base64,") for source in self.sources]
        return [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(code, validate=True))).convert("RGB")) for code in coded
        ]


def page(cases: list[Case], settings: dict) -> Page:
    html = build_check_page(check_cases(cases, settings, "hearts"), cases, settings, 3.0)
    assert html.lstrip().lower().startswith("<!doctype html>")
    for outside in ("http://", "https://", "@import", "url(", "<script", "<iframe"):
        assert outside not in html
    result = Page(html)
    assert len(result.ids) == len(set(result.ids))
    assert all(link.startswith("#") and link[1:] in result.ids for link in result.links)
    assert all(source.startswith("data:image/png;base64,") for source in result.sources)
    assert not result.tags & {"script", "link", "iframe", "object", "embed", "base"}
    return result


def volume(path: Path, array: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2, 5, 1])), path)
    return str(path)


@pytest.fixture
def cases(tmp_path) -> list[Case]:
    rng = np.random.default_rng(0)
    made = []
    for number, name in enumerate(("a_1", "a_2", "b_1")):
        label = np.zeros((12, 10, 4), np.uint8)
        label[2:6, 2:5, 1], label[7:9, 4:8, 1 : 2 + number] = 1, 2
        files = {"image": volume(tmp_path / f"{name}.nii.gz", rng.normal(50, 9, label.shape).astype(np.float32))}
        made.append(
            Case(name, name[0], files, {"label": volume(tmp_path / f"{name}_gt.nii.gz", label)}, None, {"site": "oslo"})
        )
    return made


@pytest.fixture
def blank(monkeypatch) -> None:
    """Figures are drawn and not rendered, which takes most of the time; for tests of the words."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    monkeypatch.setattr(report, "_png", lambda figure: base64.b64encode(buffer.getvalue()).decode())


def test_how_the_patients_would_be_divided(cases, blank):
    text = page(cases, block()).words()
    assert "The patients cannot be divided, and nothing is trained until they can: splits: there are 2 patients" in text
    assert "Folds" not in text
    several = [replace(case, case=f"{case.case}{n}", patient=f"p{n}{case.case}") for n in range(2) for case in cases]
    settings = block(splits={"folds": 3, "validation": 0.5}, structures={"rv": 1, "wall": [2, 3]})
    text = report.build_check_page(check_cases(several, settings, "hearts"), several, settings, 3.0)
    assert "same image under the patients" in text  # each is there twice, which is not for the split to judge
    assert "<dt>Folds</dt><dd>3; patients that train 2, validate 2, test 2</dd>" in text
    assert "divided" not in text


def test_a_sound_dataset(cases):
    text = page(cases, block()).words()
    assert "Yes: 3 cases of 2 patients can be used." in text
    assert "Found 3 cases of 2 patients, 3 of them read" in text
    assert "12 × 10 × 4 (3)" in text and "2 × 2 × 5 mm (3)" in text and "RAS (3)" in text
    assert "site oslo (3)" in text
    assert "rv 1 3 of 3 0.24 0.24 0.24" in text  # 12 voxels of 20 mm³
    assert "wall 2, 3 3 of 3 0.32 0.16 0.48" in text
    assert "Licence CC BY 4.0" in text and "cite" not in text
    assert "No images of different patients correlate above 0.9" in text
    # float32 image and uint8 label of 480 voxels in three cases
    assert "about 0.0072 MB per condition" in text
    assert "Licence CC BY 4.0; cite someone2020" in page(cases, block(cite="someone2020")).words()


def test_the_picture_shows_cases_with_their_contours(cases):
    (plain,) = page(cases, block(structures={"rv": 9})).pictures()
    (drawn,) = page(cases, block()).pictures()
    assert plain.shape[1] > 300
    saturation = [int((picture.max(-1).astype(int) - picture.min(-1) > 60).sum()) for picture in (plain, drawn)]
    assert saturation[1] > saturation[0] + 200


def test_the_page_is_reproducible(cases):
    settings = block()
    check = check_cases(cases, settings, "hearts")
    assert build_check_page(check, cases, settings, 3.0) == build_check_page(check, cases, settings, 3.0)


def test_problems_are_listed_with_advice(cases, blank):
    array = np.asarray(nib.load(cases[1].labels["label"]).dataobj).copy()
    array[0, 0, :2] = 7
    volume(Path(cases[1].labels["label"]), array)
    image = np.asarray(nib.load(cases[0].images["image"]).dataobj).copy()
    image[0, 0, 0] = np.nan
    volume(Path(cases[0].images["image"]), image)
    result = page(cases, block())
    text = result.words()
    assert "No: 2 problems, and nothing is trained until they are mended." in text
    assert f"{cases[0].images['image']}: 1 voxels are NaN or infinite" in text
    assert "label values that `structures` does not declare: 7 (2 voxels)" in text
    assert "structures: {rv: 1, wall: [2, 3], label_7: 7}" in text
    assert "pre" in result.tags
    assert "can be used" not in text
    assert len(result.pictures()) == 1


def test_the_advice_corrects_the_value_of_the_one_structure_that_no_case_has(cases):
    for declared, advised in (
        ({"rv": 1, "wall": 255}, "{rv: 1, wall: 2}"),
        ({"rv": 255, "wall": [2, 3]}, "{wall: [2, 3], rv: 1}"),
        ({"wall": 255}, "{label_1: 1, label_2: 2}"),
    ):
        advice = check_cases(cases, block(structures=declared), "hearts")["advice"]
        assert advice.endswith(f"structures: {advised}")


@pytest.mark.parametrize("depth", [2, 9])
def test_a_label_map_of_another_shape_is_shown_without_contours(cases, depth, blank):
    label = np.zeros((12, 10, depth), np.uint8)
    label[2:6, 2:5, -1] = 1
    volume(Path(cases[0].labels["label"]), label)
    text = page(cases, block()).words()
    assert f"shape (12, 10, {depth}) differs from shape (12, 10, 4)" in text
    figure = case_figure.draw(cases[:2], ["a_1", "a_2"], {"rv": [1]})
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:2] == ["a_1\n(the label map has another shape)", "a_2"]
    assert [len(ax.collections) for ax in figure.axes[:2]] == [0, 1]
    orange = case_figure.draw(cases[:2], ["a_1", "a_2"], {"rv": [1]}, colours={"lv": "#0000ff", "rv": "#ff8800"})
    assert to_hex(orange.axes[1].collections[0].get_edgecolor()[0]) == "#ff8800", "its colour in other figures"


def test_nothing_readable_at_all(cases, tmp_path):
    for case in cases:
        for file in (*case.images.values(), *case.labels.values()):
            Path(file).write_bytes(b"")
    for on_error in ("stop", "drop"):
        result = page(cases, block(on_error))
        text = result.words()
        assert "not a readable NIfTI file" in text
        assert "Found 3 cases of 2 patients, 0 of them" in text
        assert "rv 1 0 of 0 – – –" in text
        assert len(result.pictures()) == 1


def test_cases_left_out(cases, blank):
    Path(cases[2].images["image"]).unlink()
    text = page(cases, block("drop")).words()
    assert "Yes: 2 cases of 1 patient can be used." in text
    assert f"b_1 : {cases[2].images['image']}: this file does not exist" in text
    assert "Found 3 cases of 2 patients, 2 of them used" in text


def test_names_are_escaped(cases, tmp_path):
    label = volume(tmp_path / "l.nii", np.ones((12, 10, 4), np.uint8))
    image = volume(tmp_path / "<b>&x.nii", np.random.default_rng(1).normal(size=(12, 10, 4)))
    odd = Case("<i>&1$^$", "p<script>", {"image": image}, {"label": label}, None, {"<site>": "a&b<u>"})
    result = page([odd], block(structures={"rv": 1}, licence="<a href='http:x'>"))
    text = result.words()
    for name in ("<i>&1$^$", "p<script>", "<b>&x.nii", "<site>", "a&b<u> (1)", "<a href='http:x'>"):
        assert name in text
    assert not result.tags & {"i", "b", "u", "site"}


def test_pairs_of_near_duplicates(cases, tmp_path, blank):
    scene = gaussian_filter(np.random.default_rng(3).normal(size=(40, 50, 8)), 2) * 100
    label = np.zeros(scene.shape, np.uint8)
    label[3, 3, 3], label[5, 5, 5] = 1, 2
    frames = [
        Case(
            name, name, {"image": volume(tmp_path / f"{name}.nii", (scene * factor).astype(np.float32))},
            {"label": volume(tmp_path / f"{name}_gt.nii", label)}, None, {"site": ""},
        )
        for name, factor in (("c", 1), ("d", 2))
    ]  # fmt: skip
    sentences = {
        "list": "They are listed only",
        "group": "Their patients stay in one part of every fold",
        "stop": "They stop the run.",
    }
    for action, sentence in sentences.items():
        result = page(cases + frames, block(action=action))
        text = result.words()
        assert "1 pair of images of different patients correlate above 0.9" in text
        assert sentence in text
        assert "site (empty) (2), oslo (3)" in text
        assert "c and d (patients c, d): 1.000" in text
        assert len(result.pictures()) == 2
        assert ("No: 1 problem," in text) == (action == "stop")
    simulated = page(cases + frames, block(source={"simulate": "x"}, action="stop")).words()
    assert "the cohort is simulated, and its images are alike by design" in simulated


def pictures(folder: Path, names: str, files: tuple[str, ...] = ("image",)) -> list[Case]:
    rng = np.random.default_rng(2)
    made = []
    for number, name in enumerate(names):
        size = (20 + number, 30)
        label = np.zeros(size, np.uint8)
        label[3 : 6 + number, 2:12] = 1
        paths = {kind: folder / f"{name}_{kind}.png" for kind in (*files, "label")}
        for kind in files:
            Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(paths[kind])
        Image.fromarray(label).save(paths["label"])
        made.append(Case(name, name, {kind: str(paths[kind]) for kind in files}, {"label": str(paths["label"])}))
    return made


def test_pictures_are_counted_in_pixels(tmp_path, blank):
    text = page(pictures(tmp_path, "ab"), block(structures={"polyp": 1})).words()
    assert "Median area, pixels" in text and "volume, ml" not in text
    assert "polyp 1 2 of 2 35 30 40" in text
    assert "1 × 1 × 1 px (2)" in text
    assert "Intensity of channel 2" in text


def test_many_shapes_are_a_range_of_numbers(tmp_path, blank):
    cases = pictures(tmp_path, "abcdefgh")
    for number, case in enumerate(cases):  # as text, "10 × …" comes before "9 × …"
        array = np.asarray(Image.open(case.images["image"]))[: 8 + number]
        Image.fromarray(array).save(case.images["image"])
        Image.fromarray(np.ones(array.shape[:2], np.uint8)).save(case.labels["label"])
    text = page(cases, block(structures={"polyp": 1})).words()
    assert "Shape 8 different, from 8 × 30 × 1 to 15 × 30 × 1" in text


def test_channels_are_named_by_their_files_where_each_has_one(tmp_path, cases, blank):
    two = pictures(tmp_path, "ab", ("first", "second"))
    text = page(two, block(structures={"polyp": 1})).words()  # two colour pictures: six channels
    assert "Channels 6 (2)" in text and "Intensity of channel 5" in text
    text = page(two, block(structures={"polyp": 1}, preprocess={"colour": "grey", "spacing": [None] * 3})).words()
    assert "Intensity of channel first" in text and "Intensity of channel second" in text


def test_a_case_with_more_channels_than_files(cases, tmp_path, blank):
    array = np.random.default_rng(4).normal(size=(12, 10, 4, 3)).astype(np.float32)
    cases[0] = replace(cases[0], images={"image": volume(tmp_path / "four.nii.gz", array)})
    text = page(cases, block()).words()
    assert "has 3 channels, but most images have 1" in text
    assert "Channels 1 (2), 3 (1)" in text
    assert "Intensity of channel 2" in text
