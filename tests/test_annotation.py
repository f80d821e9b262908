"""Segmentation by hand: what a person draws reaches the method, and what is saved lies where the case's file does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from annotate import buildable
from tiny_store import tiny_store

from lib.data.cases import read_index
from lib.data.store import open_store
from lib.errors import BadInput
from lib.files import read_json, write_json
from lib.interactive import BACKGROUND, FOREGROUND
from lib.interactive.annotation import Annotation, View
from lib.interactive.experiment import by_hand
from lib.interactive.methods.growcut import GrowCut

ROOT = Path(__file__).parents[1]
CASE = "p0_a"


class Painter:
    """What is scribbled, a pixel wider for every answer that it gave: a method that remembers."""

    needs_seeds = True

    def begin(self, crop) -> None:
        self.crop, self.answers = crop, 0

    def segment(self, scribbles):
        from scipy.ndimage import binary_dilation

        self.answers += 1
        return binary_dilation(scribbles == FOREGROUND, iterations=self.answers)


def store_in(folder: Path, spatial_dims: int = 2, **shape):
    tiny_store(folder, spatial_dims, **shape)
    meta = read_json(folder / "store/store.json")
    for entry in meta["cases"].values():
        entry["geometry"]["unit"] = "mm"
    write_json(folder / "store/store.json", meta)
    return open_store(folder / "store")


def opened(folder: Path, spatial_dims: int = 2, **options) -> Annotation:
    store = store_in(folder, spatial_dims)
    source = next(case for case in read_index(folder / "index.csv") if case.case == CASE)
    return Annotation(store, CASE, source, ["ball", "box"], **options)


@pytest.fixture
def work(tmp_path) -> Annotation:
    return opened(tmp_path)


def test_the_method_sees_the_box_of_the_slice(work):
    method = Painter()
    work.start(method, 2, ((20.2, 25.0), (4.6, 9.0)))
    assert work.box == (slice(5, 21), slice(9, 26)) and work.corners(2) == (5, 9, 20, 25) and work.corners(1) is None
    assert (method.crop.image == work.image[:, 2, 5:21, 9:26]).all() and method.crop.spacing == (1.0, 1.0)
    assert not work.mask.any() and method.answers == 0
    work.mark(2, [(10, 12), (10, 18)], foreground=True)
    scribbled = work.scribbled(2)
    assert set(zip(*np.nonzero(scribbled == FOREGROUND), strict=True)) == {(10, x) for x in range(12, 19)}
    assert (scribbled == BACKGROUND).sum() == 2 * (16 + 17) - 4, "the border of the box, as the robots' methods get it"
    assert work.shown(2)[9, 12:19].all() and not work.shown(3).any()


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_clicked_is_what_is_there(turned):
    """Each voxel's middle, and the picture itself: the voxel under the pointer has its colour."""
    view = View((5, 7), (1.0, 2.5), turned)
    colours = np.random.default_rng(0).integers(0, 255, (5, 7, 3))
    rows = view.picture(colours)
    width, height = view.size
    assert (width, height) == ((200, 700) if turned else (700, 200)) and view.zoom == (40.0, 100.0)
    for place in np.ndindex(5, 7):
        x, y = view.shown(place)
        assert view.place(x, y) == pytest.approx(place)
        assert (rows[int(y * len(rows) / height), int(x * rows.shape[1] / width)] == colours[place]).all()
    assert (rows[0, 0] == colours[0, -1 if turned else 0]).all(), "scans: the second axis points up"


def test_undo_repeats_the_others_from_the_start(work):
    work.start(Painter(), 2, ((5, 5), (30, 30)))
    history = [work.mask.copy()]
    for row in (8, 14, 20):
        work.mark(2, [(row, 8), (row, 20)], foreground=row != 14)
        history.append(work.mask.copy())
    assert len({mask.tobytes() for mask in history}) == 4
    for before in reversed(history[:-1]):
        work.undo()
        assert (work.mask == before).all()
    work.undo()
    assert work.box is None
    work.undo()  # nothing left: no harm


def test_objects_are_accepted_and_taken_back(work):
    for structure, row in (("ball", 8), ("box", 9)):
        work.start(Painter(), 1, ((5, 5), (30, 30)))
        work.mark(1, [(row, 8), (row, 20)], foreground=True)
        work.accept(structure)
    ball, box = work.masks
    assert box[1, 8:11, 8:21].all() and not (ball & box).any() and ball[1, 7, 8:21].all(), "the later one wins"
    work.undo()
    assert not work.masks[1].any() and work.masks[0][1, 7:10, 8:21].all()
    with pytest.raises(BadInput, match="no object yet"):
        work.accept("ball")


def test_what_a_person_may_do_wrong(work):
    with pytest.raises(BadInput, match="Draw a box"):
        work.mark(1, [(3, 3)], foreground=True)
    with pytest.raises(BadInput, match="too small"):
        work.start(Painter(), 1, ((5, 5), (6, 30)))
    work.start(Painter(), 1, ((5, 5), (30, 30)))
    with pytest.raises(BadInput, match="Draw a box"):
        work.mark(2, [(8, 8)], foreground=True)
    with pytest.raises(BadInput, match="outside the box"):
        work.mark(1, [(0, 0), (2, 2)], foreground=True)
    work.mark(1, [(-50, 8), (8, 8), (500, 8)], foreground=False)
    assert work.marks[0][0].all(axis=0).any(), "a stroke that leaves the box counts inside"


def test_a_volume_has_a_box_through_slices(tmp_path):
    work, method = opened(tmp_path, spatial_dims=3), Painter()
    work.start(method, 3, ((5, 5), (30, 30)), depth=(1, 4))
    assert method.crop.image.shape == (1, 4, 26, 26) and method.crop.spacing == (3.0, 1.0, 1.0)
    work.mark(4, [(10, 10), (10, 20)], foreground=True)
    assert work.shown(4)[10, 15] and work.shown(3)[10, 15] and not work.shown(2)[10, 15] and work.corners(0) is None
    with pytest.raises(BadInput, match="outside the box"):
        work.mark(5, [(10, 10)], foreground=True)


def test_a_network_of_one_channel_sees_the_one_that_is_shown(tmp_path):
    work, method = opened(tmp_path, one_channel=True), Painter()
    work.image = np.concatenate([work.image, work.image + 7])
    work.channel = 1
    work.start(method, 2, ((5, 5), (30, 30)))
    assert (method.crop.image == work.image[1:, 2, 5:31, 5:31]).all()


def test_the_file_has_the_grid_and_the_values_of_the_case(tmp_path):
    work = opened(tmp_path)
    reference = work.store.label(CASE)
    for number in (1, 2):
        work.masks[number - 1] = reference == number
    path = work.save(tmp_path / "by_hand")
    written, image = nib.load(path), nib.load(tmp_path / f"raw/{CASE}.image.nii.gz")
    assert path.name == f"{CASE}.nii.gz" and written.shape == image.shape and (written.affine == image.affine).all()
    assert (np.asarray(written.dataobj) == np.asarray(nib.load(tmp_path / f"raw/{CASE}.label.nii.gz").dataobj)).all()


def test_regions_may_share_voxels(tmp_path):
    store = store_in(tmp_path)
    store.meta["regions"] = [[1, 2], [2]]
    source = read_index(tmp_path / "index.csv")[0]
    work = Annotation(store, CASE, source, ["whole", "core"])
    for structure, rows in (("whole", (8, 12)), ("core", (10,))):
        work.start(Painter(), 1, ((5, 5), (30, 30)))
        for row in rows:
            work.mark(1, [(row, 8), (row, 20)], foreground=True)
        work.accept(structure)
    assert (work.masks[0] & work.masks[1]).any()
    values = np.asarray(nib.load(work.save(tmp_path / "out")).dataobj)
    assert (values == 20).sum() == work.masks[1].sum() and (values > 0).sum() == (work.masks[0] | work.masks[1]).sum()


# --- which methods are offered


def test_methods_are_offered_with_the_network_of_the_first_fold_and_repeat_once_it_is_there(tmp_path):
    recipes = {"bifseg": {"name": "bifseg"}, "other": {"name": "bifseg"}, "growcut": {"name": "growcut"}}
    block = {
        "methods": ["bifseg", "growcut"],
        "repeats": [4, 5],
        "network": {"architecture": "pnet", "protocol": "boxes"},
    }
    experiment = {"name": "e", "datasets": ["d"], "conditions": ["clean"], "folds": [1, 2], "interactive": block}
    offered = by_hand({"experiment": experiment, "interactive": recipes, "exclude": []}, "d", "clean")
    network = offered["bifseg"]["network"]
    assert network.endswith("/pnet/box_network/fold1/seed4/training")
    assert offered["other"] == {"recipe": {"name": "bifseg"}, "network": None}, (
        "in the catalogue, not in the experiment"
    )
    assert by_hand(
        {"experiment": experiment | {"interactive": {}}, "interactive": recipes, "exclude": []}, "d", "clean"
    )
    assert list(buildable(offered)) == ["growcut"]
    offered["bifseg"]["network"] = tmp_path / "training"
    (tmp_path / "training").mkdir()
    assert list(buildable(offered)) == ["growcut"], "training has not ended"
    (tmp_path / "training/weights.pt").touch()
    assert list(buildable(offered)) == ["bifseg", "growcut"]
    assert isinstance(buildable(offered)["growcut"](), GrowCut)


# --- the page, in a real browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SERVER = """
import sys
from pathlib import Path
sys.path.insert(0, {scripts!r})
from lib.data.cases import read_index
from lib.data.store import open_store
from lib.interactive import METHODS
from lib.interactive.annotation import Annotation
from lib.interactive.page import serve
store, sources = open_store({folder!r} + "/store"), {{c.case: c for c in read_index({folder!r} + "/index.csv")}}
serve(
    {{case: case for case in sorted(sources)}},
    lambda case: Annotation(store, case, sources[case], ["ball", "box"]),
    {{name: METHODS.get(name) for name in ("growcut", "grabcut")}},
    Path({folder!r}) / "by_hand",
    {port},
)
"""


@pytest.fixture
def page(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("nicegui", reason="needs NiceGUI: pip install -r requirements.lock")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium")
    store_in(tmp_path, shape=(6, 80, 72))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = SERVER.format(scripts=str(ROOT / "workflow/scripts"), folder=str(tmp_path), port=port)
    with (tmp_path / "server.log").open("w") as log:
        # NiceGUI behaves differently inside pytest.
        environment = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
        server = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, cwd=tmp_path, env=environment)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        listening = [
            line.split()[1]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if f":{port:04X} 00000000:0000" in line
        ]
        assert listening == [f"0100007F:{port:04X}"], "on this computer only"
        with playwright.sync_playwright() as running:
            browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            visitor = browser.new_page(viewport={"width": 1280, "height": 1000})
            visitor.set_default_timeout(20_000)
            asked = []
            visitor.on("request", lambda request: asked.append(request.url))
            visitor.goto(f"http://127.0.0.1:{port}")
            visitor.wait_for_selector("img")
            yield visitor
            assert all(
                url.startswith((f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", "data:", "blob:"))
                for url in asked
            )
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_a_person_draws_a_box_and_a_scribble_and_saves(page, tmp_path):
    reference = np.load(tmp_path / f"store/{CASE}.label.npy") == 1
    at = 3  # the middle slice, where the page opens
    rows, columns = np.nonzero(reference[at])
    centre = int(np.median(rows)), int(np.median(columns))

    def place(row: float, column: float) -> tuple[float, float]:
        box = page.locator("img").first.bounding_box()
        # a scan, so turned: the first axis to the right, the second upwards
        return box["x"] + (row + 0.5) / 80 * box["width"], box["y"] + (71.5 - column) / 72 * box["height"]

    def drag(*places: tuple[float, float]) -> None:
        page.mouse.move(*place(*places[0]))
        page.mouse.down()
        for there in places[1:]:
            page.mouse.move(*place(*there), steps=6)
        page.mouse.up()

    def answered(text: str) -> None:
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=text)

    def choose(text: str) -> None:
        page.get_by_role("button", name=text, exact=True).click()

    source = page.locator("img").first.get_attribute("src")
    drag((rows.min() - 4, columns.min() - 4), (rows.max() + 4, columns.max() + 4))
    answered("Scribble inside the object")
    drag((centre[0], columns.min() + 4), (centre[0], columns.max() - 4))
    page.wait_for_function("before => document.querySelector('img').src != before", arg=source)
    choose("Background")
    answered("Scribble outside the object")
    top, left, bottom, right = rows.min() - 3, columns.min() - 3, rows.max() + 3, columns.max() + 3
    drag((top, left), (top, right), (bottom, right), (bottom, left), (top, left))
    page.wait_for_timeout(1500)
    page.screenshot(path=tmp_path / "page.png")
    choose("Next object")
    answered("Drag a box")
    choose("Save")
    answered("Saved")
    written = nib.load(tmp_path / f"by_hand/{CASE}.nii.gz")
    image = nib.load(tmp_path / f"raw/{CASE}.image.nii.gz")
    assert (written.affine == image.affine).all() and written.shape == image.shape
    mask = np.asarray(written.dataobj)[..., at] == 10
    assert 2 * (mask & reference[at]).sum() / (mask.sum() + reference[at].sum()) > 0.85
    assert (np.asarray(written.dataobj) > 0).sum() == mask.sum(), "nothing elsewhere"
    choose("Undo")
    page.wait_for_timeout(500)
    choose("Save")
    page.wait_for_timeout(500)
    assert not np.asarray(nib.load(tmp_path / f"by_hand/{CASE}.nii.gz").dataobj).any()
