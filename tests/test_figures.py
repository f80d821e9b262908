"""Figures: the data of the tables must be found again in what is drawn."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fake_results as fake
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from lib.config import Cell
from lib.data.cases import Case
from lib.data.formats import Geometry
from lib.errors import BadInput
from lib.figures import claims, curves, distributions, heatmap, montage, style
from lib.ledger import gather_curves, gather_scores

ARCHITECTURES = list(dict.fromkeys(method.split("+")[0] for method in fake.METHODS))


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return fake.fake_scores()


@pytest.fixture(scope="module")
def ledger() -> pd.DataFrame:
    return fake.fake_ledger()


@pytest.fixture(scope="module")
def ranking(scores) -> pd.DataFrame:
    return fake.fake_ranking(scores)


@pytest.fixture(scope="module")
def images(tmp_path_factory, scores):
    return fake.fake_images(tmp_path_factory.mktemp("images"), scores)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def collections(ax, gid: str) -> np.ndarray:
    found = [c.get_offsets() for c in ax.collections if c.get_gid() == gid]
    return np.concatenate(found) if found else np.zeros((0, 2))


def primary(ranking: pd.DataFrame) -> pd.DataFrame:
    return ranking[(ranking["structure"] == "mean") & (ranking["metric"] == "dice")]


# style


def test_files_have_the_journal_width_embedded_fonts_and_repeat_to_the_byte(tmp_path):
    for name in ("a", "b"):
        style.save(claims.draw(fake.fake_claims()), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "b.pdf", "b.png"]
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == pytest.approx(183 / 25.4 * 200, abs=1)
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf, "TrueType fonts are embedded (Type 42), none as Type 3"
    assert b"CreationDate" not in pdf
    for suffix in (".pdf", ".png"):
        digests = {hashlib.sha256((tmp_path / f"{name}{suffix}").read_bytes()).hexdigest() for name in ("a", "b")}
        assert len(digests) == 1


def test_contours_stay_apart_in_grey_and_text_colours_have_contrast():
    colours = list(style.overlays(["a", "b", "c"]).values())
    grey = sorted(style.luminance(to_rgb(c)) for c in colours)
    assert min(np.diff(grey)) > 0.15
    for colour in style.OVERLAY:
        assert 1.05 / (style.luminance(to_rgb(style.on_white(colour))) + 0.05) >= 4.5
    many = style.lines([str(i) for i in range(28)])
    assert len({(look["color"], look["linestyle"]) for look in many.values()}) == 28
    names = [f"s{i}" for i in range(21)]
    assert len(set(style.overlays(names).values())) == 21


def test_long_names_are_wrapped_and_keep_every_character():
    name = "shallow_segnet_with_a_very_long_name+cross_entropy"
    wrapped = style.wrapped(name, 20)
    assert wrapped.replace("\n", "") == name
    assert max(map(len, wrapped.split("\n"))) <= 20
    assert style.wrapped("unet+ce") == "unet+ce"


def test_names_that_look_like_numbers_or_missing_values_stay_text(tmp_path):
    (tmp_path / "t.csv").write_text("case,patient,structure,value\n001,01,NA,0.5\n002,02,null,\n")
    table = style.read_table(tmp_path / "t.csv")
    assert table["case"].tolist() == ["001", "002"] and table["patient"].tolist() == ["01", "02"]
    assert table["structure"].tolist() == ["NA", "null"]
    assert table["value"].isna().tolist() == [False, True]


def test_figures_and_report_start_without_torch():
    code = (
        "import sys; sys.path.insert(0, 'workflow/scripts');"
        "import lib.report, lib.figures.heatmap, lib.figures.distributions, lib.figures.claims, lib.figures.curves,"
        "lib.figures.montage; print([m for m in ('torch', 'monai', 'seaborn') if m in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# heat map


def test_heatmap_shows_every_method_with_interval_and_n(ranking, ledger):
    figure = heatmap.draw(ranking, ledger)
    ax = figure.axes[0]
    assert [t.get_text().replace("\n", "") for t in ax.get_yticklabels()] == ARCHITECTURES
    assert [t.get_text() for t in ax.get_xticklabels()] == ["ce", "wce", "balanced_ce", "dbce"]
    shown = " ".join(t.get_text() for t in ax.texts)
    for row in primary(ranking).itertuples():
        assert f"{row.mean:.3f}" in shown and f"[{row.low:.3f}, {row.high:.3f}]" in shown
    assert shown.count("[") == len(fake.METHODS), "pairs that were not asked for stay blank"
    assert shown.count("n 12 × 3") == len(fake.METHODS) - 2
    assert "1 failed of 6" in shown and "1 missing of 6" in shown


def test_heatmap_marks_the_top_group_only_with_enough_seeds(ranking, ledger):
    marks = sum("●" in t.get_text() for t in heatmap.draw(ranking, ledger).axes[0].texts)
    assert marks == primary(ranking)["top_group"].sum() > 0
    few = heatmap.draw(ranking.assign(seeds_enough=False), ledger)
    assert not any("●" in t.get_text() for t in few.axes[0].texts)
    assert any("Fewer than 3 seeds" in t for t in texts(few))


def test_heatmap_places_each_mean_in_its_own_cell(ranking, ledger):
    ax = heatmap.draw(ranking, ledger).axes[0]
    rows = {t.get_text().replace("\n", ""): i for i, t in enumerate(ax.get_yticklabels())}
    columns = {t.get_text(): j for j, t in enumerate(ax.get_xticklabels())}
    placed = {
        (round(t.get_position()[1] + 0.2), t.get_position()[0]): t.get_text()
        for t in ax.texts
        if re.fullmatch(r"(● )?\d\.\d{3}", t.get_text())
    }
    for row in primary(ranking).itertuples():
        assert placed[rows[row.architecture], columns[row.loss]].endswith(f"{row.mean:.3f}")


def test_heatmap_darker_is_the_value_that_ranks_higher(ranking, ledger):
    def darkness(metric):
        ax = heatmap.draw(ranking, ledger, metric).axes[0]
        faces = [p.get_facecolor() for p in ax.patches if p.get_facecolor()[3] == 1 and p.get_hatch() is None]
        table = ranking[(ranking["structure"] == "mean") & (ranking["metric"] == metric)]
        order = [
            table.set_index(["architecture", "loss"])["mean"].get((a, b))
            for a in ARCHITECTURES
            for b in ("ce", "wce", "balanced_ce", "dbce")
        ]
        values = np.array([v for v in order if v is not None])
        return np.corrcoef(values, [style.luminance(face) for face in faces])[0, 1]

    assert darkness("dice") < -0.9 and darkness("hd95") > 0.9


def test_heatmap_of_failed_and_missing_methods_says_so(ranking, ledger):
    failed = ledger.assign(state="failed", reason="out-of-memory")
    figure = heatmap.draw(ranking.iloc[:0], failed)
    assert sum("out-of-memory" in t.get_text() for t in figure.axes[0].texts) == len(fake.METHODS)
    assert len(figure.axes) == 1, "no colour bar without a value"
    figure = heatmap.draw(ranking.iloc[:0], ledger.assign(state="missing"))
    assert [t.get_text() for t in figure.axes[0].texts] == ["missing"] * len(fake.METHODS)
    assert any("no cells" in t for t in texts(heatmap.draw(ranking, ledger.iloc[:0])))


def test_heatmap_with_many_losses_turns_so_that_the_page_holds_it(tmp_path):
    methods = {f"net{a}+loss_with_a_name_{b}": 0.5 + 0.01 * a + 0.005 * b for a in range(3) for b in range(11)}
    scores = fake.fake_scores(methods, patients=4, seeds=1, failed=None, missing=None)
    figure = heatmap.draw(fake.fake_ranking(scores), fake.fake_ledger(methods, seeds=1))
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["net0", "net1", "net2"]
    assert figure.get_figwidth() == pytest.approx(183 / 25.4)


# distributions


def test_distributions_draw_every_scored_case_once(scores):
    figure = distributions.draw(scores, list(fake.STRUCTURES))
    panels = [ax for block in figure.subfigs for ax in block.axes]
    assert [ax.get_title() for ax in panels] == list(fake.STRUCTURES)
    dice = scores[scores["metric"] == "dice"]
    for ax, structure in zip(panels, fake.STRUCTURES, strict=True):
        rows = dice[dice["structure"] == structure]
        points = collections(ax, "cases")
        expected = np.sort(rows.loc[rows["status"] == "scored", "value"])
        np.testing.assert_allclose(np.sort(points[:, 0]), expected)
    order = [t.get_text().replace("\n", "") for t in panels[0].get_yticklabels()]
    ok = dice[dice["status"] != "failed"]
    assert order == list(ok.groupby("method")["value"].mean().sort_values(ascending=False).index)


def test_distributions_put_missed_cases_at_zero_with_their_count(scores):
    figure = distributions.draw(scores, list(fake.STRUCTURES))
    csf = figure.subfigs[0].axes[0]
    missed = ((scores["status"] == "missed") & (scores["metric"] == "dice")).sum()
    crosses = np.concatenate([c.get_offsets() for c in csf.collections if to_hex(c.get_edgecolor()[0]) == style.ALERT])
    assert len(crosses) == missed == 5 and (crosses[:, 0] == 0).all()
    assert csf.get_xlim()[0] <= 0
    notes = [t.get_text() for t in csf.texts]
    assert notes == ["6 cases failed", "5 cases missed"]
    assert [t.get_text() for t in figure.subfigs[0].axes[2].texts] == ["6 cases failed"]


def test_distributions_of_failures_only_say_so(scores):
    assert any("no case was scored (41 cells failed)" in t.replace("\n", " ") for t in
               texts(distributions.draw(scores.assign(status="failed"), list(fake.STRUCTURES))))  # fmt: skip
    distributions.draw(scores.iloc[:0], list(fake.STRUCTURES))


def test_distributions_give_each_dataset_its_own_structures(scores):
    other = scores[scores["structure"] != "csf"].assign(dataset="second")
    figure = distributions.draw(pd.concat([scores, other]), list(fake.STRUCTURES))
    assert [[ax.get_title() for ax in block.axes] for block in figure.subfigs] == [
        list(fake.STRUCTURES),
        ["gray_matter", "white_matter"],
    ]


# claims


def test_claims_show_measured_published_and_verdict():
    table = fake.fake_claims()
    figure = claims.draw(table)
    ax = figure.axes[0]
    measured, published = collections(ax, "measured"), collections(ax, "published")
    np.testing.assert_allclose(measured[:, 0], table["difference"].dropna())
    np.testing.assert_allclose(published[:, 0], table["published_difference"].dropna())
    assert published[:, 1].tolist() == ax.get_yticks()[[0, 3]].tolist(), "in the row of its claim"
    assert [t.get_text().replace("\n", "") for t in ax.get_yticklabels()] == table["claim"].tolist()
    shown = " ".join(t.get_text() for t in ax.texts).replace("\\ ", " ")
    for row in table.itertuples():
        assert row.verdict in shown and row.treatment in shown and row.control in shown
    assert "+0.105 · 12 patients, 3 seeds" in shown
    segments = [line.get_xdata() for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2]
    assert [list(s) for s in segments] == table[["low", "high"]].dropna().to_numpy().tolist()


def test_claims_with_undecided_verdicts_are_hollow():
    table = fake.fake_claims().iloc[:2]
    ax = claims.draw(table).axes[0]
    faces = [to_hex(c.get_facecolor()[0]) for c in ax.collections if c.get_gid() == "measured"]
    assert faces == [style.INK, "#ffffff"]


def test_claims_of_different_metrics_get_different_axes_and_none_is_said():
    table = fake.fake_claims()
    table.loc[1, "metric"] = "hd95"
    figure = claims.draw(table)
    assert len(figure.axes) == 2
    assert "HD95" in figure.axes[1].get_xlabel() and len(figure.axes[1].get_yticks()) == 1
    assert any("tests none" in t for t in texts(claims.draw(table.iloc[:0])))


# curves


def test_curves_draw_every_cell_and_the_mean(tmp_path):
    table = fake.fake_curves()
    figure = curves.draw(table, ARCHITECTURES)
    *blocks, _ = figure.subfigs
    upper = blocks[0].axes[:4]
    assert [ax.get_title() for ax in upper] == ["ce", "wce", "balanced_ce", "dbce"]
    cells = [line for ax in upper for line in ax.lines if line.get_gid() == "cell"]
    assert len(cells) == len(table[["method", "fold", "seed"]].drop_duplicates()) == 41
    assert sum(len(line.get_xdata()) for line in cells) == len(table)
    wce = table[table["loss"] == "wce"]
    mean = next(line for line in upper[1].lines if line.get_gid() == "mean")
    np.testing.assert_allclose(mean.get_ydata(), wce.groupby("iteration")["training_loss"].mean())
    lower = blocks[0].axes[4:8]
    assert lower[0].get_ylim() == lower[3].get_ylim()
    validated = next(line for line in lower[1].lines if line.get_gid() == "mean")
    np.testing.assert_allclose(validated.get_ydata(), wce.dropna().groupby("iteration")["validation_dice"].mean())


def test_gathered_curves_keep_the_name_of_the_loss_beside_the_training_loss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = Cell("brain_cohort", "clean", "demo", "unet_narrow", "dbce", 0, 1)
    (cell.folder / "training").mkdir(parents=True)
    (cell.folder / "training/curve.csv").write_text(
        "iteration,loss,lr,validation_dice,seconds\n5,0.75,0.001,,1.5\n10,0.5,0.001,0.6,3\n"
    )
    absent = Cell("brain_cohort", "clean", "demo", "unet_narrow", "ce", 0, 1)
    table = gather_curves([cell, absent])
    assert table["loss"].tolist() == ["dbce", "dbce"] and table["training_loss"].tolist() == [0.75, 0.5]
    assert curves.draw(table, ["unet_narrow"]).subfigs[0].axes[0].get_title() == "dbce"
    assert gather_scores([cell]).empty


def test_curves_of_a_diverged_cell_do_not_bend_the_mean_and_negative_losses_are_drawn():
    table = fake.fake_curves()
    dead = table[table["method"] == fake.FAILED[0]]
    assert dead.groupby(["fold", "seed"])["iteration"].max().min() == 40
    upper = curves.draw(table, ARCHITECTURES).subfigs[0].axes[2]
    mean = next(line for line in upper.lines if line.get_gid() == "mean")
    late = dead[dead["iteration"] == 100]["training_loss"].mean()
    assert mean.get_ydata()[list(mean.get_xdata()).index(100)] == pytest.approx(late)
    negative = curves.draw(table.assign(training_loss=-table["training_loss"]), ARCHITECTURES)
    assert negative.subfigs[0].axes[0].get_yscale() == "linear"


def test_curves_without_rows_or_validation():
    assert any("no cell" in t for t in texts(curves.draw(fake.fake_curves().iloc[:0], ARCHITECTURES)))
    figure = curves.draw(fake.fake_curves().assign(validation_dice=np.nan), ARCHITECTURES)
    assert figure.subfigs[0].axes[4].get_ylim() == (0, 1)


def test_an_architecture_keeps_its_colour_when_another_is_absent():
    table = fake.fake_curves()

    def colour(t):
        axes = curves.draw(t, ARCHITECTURES).subfigs[0].axes
        dbce = next(ax for ax in axes if ax.get_title() == "dbce")
        return next(line for line in dbce.lines if line.get_gid() == "mean").get_color()

    assert colour(table) == colour(table[table["architecture"] == "unet_narrow"]) == style.LINES[3]


# montage


def inside(ax, colour: str, shape: tuple[int, int]) -> np.ndarray:
    """Mask of the pixel centres that the contours of one colour enclose, by the even-odd rule."""
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    crossings = np.zeros(shape, int)
    for drawn in ax.collections:
        if to_hex(drawn.get_edgecolor()[0]) != colour.lower():
            continue
        for path in drawn.get_paths():
            for polygon in path.to_polygons(closed_only=False):
                for (x0, y0), (x1, y1) in pairwise(polygon):
                    if y0 != y1:
                        crosses = (y >= min(y0, y1)) & (y < max(y0, y1))
                        crossings += crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(3))
def test_outlines_enclose_exactly_the_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((13, 17)) < 0.4
    ax = Figure().subplots()
    montage.outline(ax, mask, "#56B4E9")
    np.testing.assert_array_equal(inside(ax, "#56B4E9", mask.shape), mask)
    montage.outline(ax, np.zeros((4, 4), bool), "#D55E00")
    assert len(ax.collections) == 1, "nothing is drawn for an absent structure"


def test_cases_are_best_median_and_worst_over_methods():
    rows = [
        {"method": m, "case": c, "metric": "dice", "value": v, "status": "scored", "fold": 0, "seed": 0}
        for m in ("a", "b")
        for c, v in {"p1": 0.9, "p2": 0.3, "p3": 0.6, "p4": 0.7, "p5": 0.5}.items()
    ]
    table = pd.DataFrame(rows)
    assert montage.choose_cases(table) == [("Best case", "p1"), ("Median case", "p3"), ("Worst case", "p2")]
    # method b failed where p1 was tested: that must not make p1 look difficult
    table.loc[(table["method"] == "b") & (table["case"] == "p1"), ["value", "status"]] = [0.0, "failed"]
    assert montage.choose_cases(table)[0] == ("Best case", "p1")
    assert montage.choose_cases(table[table["case"] == "p1"]) == [("Best case", "p1")]
    assert montage.choose_cases(table.assign(status="failed")) == []


def test_the_slice_shows_small_structures_too():
    reference = np.zeros((10, 10, 5), np.uint8)
    reference[:, :, 0] = 1  # largest area of the large structure
    reference[:9, :, 3] = 1
    reference[9, :2, 3] = 2
    assert montage.choose_slice(reference, {"large": 1, "small": 2}) == 3
    assert montage.choose_slice(reference, {"both": [1, 2]}) == 0


def test_montage_shows_each_method_in_the_same_slice_with_its_own_contours(scores, images):
    index, folders = images
    figure = montage.draw(scores, index, folders, fake.STRUCTURES, list(fake.METHODS))
    *blocks, foot = figure.subfigs
    assert [t.get_text() for t in foot.legends[0].get_texts()] == list(fake.STRUCTURES)
    roles = montage.choose_cases(scores)
    colours = style.overlays(list(fake.STRUCTURES))
    assert len(blocks) == 3
    for block, (role, case) in zip(blocks, roles, strict=True):
        heading = block.get_suptitle()
        assert heading.startswith(f"{role}: {case} · mean Dice of all methods")
        panels = [ax for ax in block.axes if ax.images]
        assert len(panels) == 2 + len(fake.METHODS)
        assert len({ax.images[0].get_clim() for ax in panels}) == 1, "one window"
        assert all(np.array_equal(ax.images[0].get_array(), panels[0].images[0].get_array()) for ax in panels[:3])
        assert [ax.get_aspect() for ax in panels] == pytest.approx([1.25 / 1.5] * len(panels))
        assert not panels[0].collections
        at = int(heading.split(" slice ")[1].split(" of ")[0]) - 1
        files = {"reference": next(c for c in index if c.case == case).labels["label"]}
        for method in fake.METHODS:
            fold = int(scores.loc[scores["case"] == case, "fold"].iloc[0])
            if (folder := folders.get((method, fold, 0))) is not None:
                files[method] = folder / f"{case}.nii.gz"
        for ax in panels[1:]:
            name = ax.get_title().rsplit("\n", 1)[0].replace("\n", "") if "\n" in ax.get_title() else ax.get_title()
            if name not in files:
                assert ax.get_title().endswith("missing") and not ax.collections
                continue
            canonical = nib.as_closest_canonical(nib.load(files[name])).get_fdata()[:, :, at]
            shape = ax.images[0].get_array().T.shape
            for structure, value in fake.STRUCTURES.items():
                drawn = inside(ax, colours[structure], shape)
                assert drawn.sum() == (canonical == value).sum(), (case, name, structure)


def test_montage_captions_hold_the_dice_of_the_case_shown(scores, images):
    index, folders = images
    figure = montage.draw(scores, index, folders, fake.STRUCTURES, list(fake.METHODS))
    case = montage.choose_cases(scores)[0][1]
    rows = scores[(scores["case"] == case) & (scores["metric"] == "dice") & (scores["seed"] == 0)]
    expected = rows[rows["method"] == "unet_narrow+dbce"]["value"].mean()
    titles = [ax.get_title() for ax in figure.subfigs[0].axes]
    assert f"unet_narrow+dbce\nDice {expected:.3f} (seed 0)" in titles


def test_montage_falls_back_to_another_seed_and_names_what_is_absent(scores, images):
    index, folders = images
    case = montage.choose_cases(scores)[0][1]
    fold = int(scores.loc[scores["case"] == case, "fold"].iloc[0])
    method = "unet_narrow+dbce"
    moved = {k: v for k, v in folders.items() if k[0] != method} | {(method, fold, 2): folders[method, fold, 0]}
    titles = [ax.get_title() for ax in montage.draw(scores, index, moved, fake.STRUCTURES, [method]).subfigs[0].axes]
    assert titles[2].endswith("(seed 2)")
    titles = [
        ax.get_title() for ax in montage.draw(scores, index, {}, fake.STRUCTURES, [method, "x+y"]).subfigs[0].axes
    ]
    assert titles[2:4] == [f"{method}\nno prediction", "x+y\nmissing"]
    failed = scores.copy()
    failed.loc[failed["method"] == method, "status"] = "failed"
    titles = [ax.get_title() for ax in montage.draw(failed, index, folders, fake.STRUCTURES, [method]).subfigs[0].axes]
    assert titles[2] == f"{method}\nfailed"
    assert any("no case" in t for t in texts(montage.draw(scores.iloc[:0], index, {}, fake.STRUCTURES, [method])))


def test_montage_wraps_many_methods_within_the_page_width(scores, images):
    index, folders = images
    methods = [f"a_rather_long_architecture_name_{i}+some_loss" for i in range(12)]
    figure = montage.draw(scores, index, folders, fake.STRUCTURES, methods)
    assert figure.get_figwidth() == pytest.approx(183 / 25.4)
    assert len([ax for ax in figure.subfigs[0].axes if ax.images]) == 14


def test_montage_names_a_broken_file(scores, images, tmp_path):
    index, folders = images
    case = montage.choose_cases(scores)[0][1]
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"not an image")
    wrong = [replace(c, images={"image": str(broken)}) if c.case == case else c for c in index]
    with pytest.raises(BadInput, match=r"broken\.nii\.gz: not a readable NIfTI file"):
        montage.draw(scores, wrong, folders, fake.STRUCTURES, [])
    fold = int(scores.loc[scores["case"] == case, "fold"].iloc[0])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / f"{case}.nii.gz")
    with pytest.raises(BadInput, match="predict this cell again"):
        montage.draw(scores, index, {("unet_narrow+ce", fold, 0): tmp_path}, fake.STRUCTURES, ["unet_narrow+ce"])


def test_pictures_stand_upright_and_keep_their_colours(tmp_path):
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[2:12, 5:25, 0] = 250  # red, near the top, left of the middle
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray((picture[..., 0] > 0).astype(np.uint8)).save(tmp_path / "a_mask.png")
    case = Case("a", "a", {"image": str(tmp_path / "a.png")}, {"label": str(tmp_path / "a_mask.png")})
    rows = [("u+ce", "a", s, "dice", v, "scored", 0, 0) for s, v in (("wound", 0.9),)]
    table = pd.DataFrame(rows, columns=["method", "case", "structure", "metric", "value", "status", "fold", "seed"])
    figure = montage.draw(table, [case], {}, {"wound": 1}, [])
    shown = figure.subfigs[0].axes[0].images[0]
    array = np.asarray(shown.get_array())
    assert array.ndim == 3 and array.shape[2] == 3
    red = np.argwhere(array[..., 0] > array[..., 1])
    assert red[:, 0].mean() > array.shape[0] / 2, "rows run upwards, so the top of the picture has high y"
    volume = np.arange(24.0).reshape(2, 3, 4)
    geometry = Geometry((2, 3, 4), np.diag([-1.0, 1, 1, 1]), "mm")
    assert np.array_equal(montage.upright(volume, geometry), volume[::-1])
