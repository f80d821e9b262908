"""Montage: best, median and worst case; image, reference and every method in the same slice and window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from nibabel.orientations import apply_orientation, io_orientation

from lib.cells import OUTPUTS, Cell
from lib.data.cases import Case, load_image, load_label
from lib.data.formats import Geometry, label_suffix, read_label
from lib.errors import BadInput
from lib.figures import style

TITLE = "Best, median and worst case"
CAPTION = (
    "Cases are chosen by their mean Dice over all methods, not by the eye. All panels of a case show the same slice "
    "and grey-value window; the slice is chosen from the reference alone. Contours run just inside the border of each "
    "structure. Axial and coronal slices show the patient's right on the left. Dice is that of the whole case, as the "
    "mean over structures."
)

Structures = Mapping[str, int | list[int]]


def draw(
    scores: pd.DataFrame,
    cases: list[Case],
    predictions: Mapping[tuple[str, int, int], Path],
    structures: Structures,
    methods: list[str],
    palette: dict | None = None,
    colours: Mapping[str, str] | None = None,
    metric: str = style.PRIMARY,
) -> Figure:
    """One block per case; within it image, reference, then `methods` in their order.

    scores: rows of ONE dataset, condition and protocol. cases: of the dataset. predictions: folder of each
    (method, fold, seed); a method is shown under the lowest seed that predicted the case. structures: label
    value or values of each, as in the files; palette: as of the dataset. colours: of the contours, by structure.
    """
    chosen = choose_cases(scores, metric)
    if not chosen:
        return style.notice("Montage: no case was scored.")
    known = {case.case: case for case in cases}
    blocks = []
    for role, name in chosen:
        (block,) = read_planes(known[name], [structures], scores, predictions, structures, methods, palette, metric)
        mean = scored_mean(scores, name, metric)
        title = f"{role}: {name} · mean {style.METRIC_NAMES[metric]} of all methods {mean:.3f}"
        blocks.append(block | {"title": f"{title}{block['where']}"})
    colours = colours or style.overlays(list(structures))
    return draw_blocks(blocks, structures, colours, methods, style.METRIC_NAMES[metric])


def draw_blocks(
    blocks: list[dict], structures: Structures, colours: Mapping[str, str], methods: list[str], metric: str
) -> Figure:
    """Blocks of `read_planes`, each with a `title`: image, reference, `methods`, with the contours of `structures`.

    metric: its name in the captions.
    """
    panels = 2 + len(methods)
    lines = -(-panels // 6)
    columns = -(-panels // lines)
    width = style.TWO_COLUMNS / columns
    heights = [lines * (width * 0.95 * min(b["aspect"], 1.6) + 9 * style.MM) + 6 * style.MM for b in blocks]
    page = 238 * style.MM
    if lines <= 3 and sum(heights) > page:
        heights = [height * page / sum(heights) for height in heights]
    figure = style.figure(style.TWO_COLUMNS, sum(heights) + 8 * style.MM)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.02, wspace=0.0, hspace=0.0)
    *parts, foot = figure.subfigures(len(blocks) + 1, 1, height_ratios=[*heights, 8 * style.MM])
    for part, block in zip(parts, blocks, strict=True):
        part.suptitle(block["title"], x=0.01, ha="left", fontsize=7.5)
        axes = part.subplots(lines, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        _show(axes[0], block, None, structures, colours)
        axes[0].set_title("image", fontsize=6.5, pad=2)
        _show(axes[1], block, block["reference"], structures, colours)
        axes[1].set_title("reference", fontsize=6.5, pad=2)
        for ax, method in zip(axes[2:], methods, strict=False):
            found = block["methods"][method]
            caption = found["absent"] or f"{metric} {found['value']:.3f} (seed {found['seed']})"
            _show(ax, block, found["labels"], structures, colours)
            ax.set_title(f"{style.wrapped(method, int(118 / columns))}\n{caption}", fontsize=6, pad=2, linespacing=1.15)
    handles = [Line2D([], [], color=colours[name], linewidth=2.5, label=name) for name in structures]
    box = {"frameon": True, "facecolor": "#3a3f45", "edgecolor": "none", "labelcolor": "white"}
    foot.legend(handles=handles, loc="center", ncols=min(len(handles), 6), **box)
    return figure


def choose_cases(scores: pd.DataFrame, metric: str = style.PRIMARY) -> list[tuple[str, str]]:
    """(role, case) of the best, median and worst case by mean score over structures, seeds and methods.

    Only methods that scored every case count, so that a fold in which a method failed does not look
    difficult; where there is none, all scores count. Ties go to the case whose name sorts first.
    """
    table = scores[(scores["metric"] == metric) & (scores["status"] != "failed")]
    reached = table.groupby("method")["case"].nunique()
    complete = reached.index[reached == scores["case"].nunique()]
    if len(complete):
        table = table[table["method"].isin(complete)]
    means = table.groupby("case")["value"].mean().sort_index().sort_values(ascending=False, kind="stable")
    if means.empty:
        return []
    picks = {"Best case": 0, "Median case": len(means) // 2, "Worst case": len(means) - 1}
    seen: dict[str, str] = {}
    for role, position in picks.items():
        seen.setdefault(means.index[position], role)
    return [(role, case) for case, role in seen.items()]


def choose_slice(reference: np.ndarray, structures: Structures) -> int:
    """Position along the last axis where the structures are seen best.

    Each structure's area is divided by its largest area in any slice, so that a small structure counts as
    much as a large one; the sum decides. It looks at the reference alone, so no method can steer it.
    """
    areas = np.array([np.isin(reference, labels).sum(axis=(0, 1)) for labels in structures.values()], float)
    share = areas / np.maximum(areas.max(axis=1, keepdims=True), 1)
    return int(share.sum(axis=0).argmax())


def upright(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """An array (X, Y, Z) with its axes turned to RAS; a picture (rows, columns, 1) with x to the right and y up."""
    if geometry.unit == "px":
        return np.flip(np.swapaxes(array, 0, 1), 1)
    return apply_orientation(array, io_orientation(geometry.affine))


def upright_spacing(geometry: Geometry) -> np.ndarray:
    """Voxel sides along the axes that `upright` gives."""
    order = [1, 0, 2] if geometry.unit == "px" else np.argsort(io_orientation(geometry.affine)[:, 0])
    return geometry.spacing[order]


def load_shown(case: Case, colour: str | None = None) -> tuple[list[np.ndarray], Geometry]:
    """The upright channels that a figure shows, three of a colour picture and else the first; the geometry."""
    channels, geometry = load_image(case, colour)
    coloured = geometry.unit == "px" and len(channels) == 3
    return [upright(channel, geometry) for channel in (channels if coloured else channels[:1])], geometry


def slice_axis(shape: tuple[int, ...], spacing: np.ndarray) -> int:
    """The axis across the slices that are shown: the coarsest, the one between acquired planes; the last for cubes."""
    if min(shape) == 1:
        return int(np.argmin(shape))
    return int(np.argmax(np.round(spacing, 3) * [1, 1, 1.0001]))


def scored_mean(scores: pd.DataFrame, case: str, metric: str) -> float:
    """Mean of a case over structures, seeds and methods, without failed cells."""
    rows = (scores["case"] == case) & (scores["metric"] == metric) & (scores["status"] != "failed")
    return float(scores.loc[rows, "value"].mean())


def prediction_folders(scores: pd.DataFrame) -> dict[tuple[str, int, int], Path]:
    """Where the predictions lie that were scored, by (method, fold, seed)."""
    names = [field.name for field in fields(Cell)]
    cells = [Cell(**row) for row in scores[names].drop_duplicates().to_dict("records")]
    return {(cell.method, cell.fold, cell.seed): cell.folder / OUTPUTS["predict"] for cell in cells}


def read_planes(
    case: Case,
    views: list[Structures],
    scores: pd.DataFrame,
    predictions: Mapping[tuple[str, int, int], Path],
    structures: Structures,
    methods: list[str],
    palette: dict | None = None,
    metric: str = style.PRIMARY,
) -> list[dict]:
    """What is shown of a case, one block for each of `views`: the structures that choose the slice.

    A block: pixels (X, Y, 1 or 3) and window, reference (X, Y), methods {name: labels (X, Y) or None, absent (why),
    fold, seed, value (mean over the view's structures)}, pixel (sides), aspect, flip (x runs to the left), where (the
    slice, in words). All of it is cropped alike. Volumes are read once for all views, one method after the other.
    """
    channels, geometry = load_shown(case)
    volume, _ = load_label(case, structures, palette)
    shape, spacing = volume.shape, upright_spacing(geometry)
    volume = upright(volume, geometry)
    through = slice_axis(channels[0].shape, spacing)
    plane_axes = [axis for axis in range(3) if axis != through]
    positions = [choose_slice(np.moveaxis(volume, through, -1), view) for view in views]

    def planes(array: np.ndarray) -> list[np.ndarray]:
        return [np.take(array, at, axis=through) for at in positions]

    rows = scores[(scores["case"] == case.case) & (scores["metric"] == metric)]
    references, images = planes(volume), list(zip(*map(planes, channels), strict=True))
    found: dict[str, dict] = {}
    for method in methods:
        labels, record = _prediction(method, case, rows, predictions, shape)
        shown = [None] * len(views) if labels is None else planes(upright(labels, geometry))
        found[method] = record | {"planes": shown}
    blocks = []
    for view, at in enumerate(positions):
        drawn = {m: r["planes"][view] for m, r in found.items() if r["planes"][view] is not None}
        foreground = np.isin(np.stack([references[view], *drawn.values()]), _labels(structures)).any(axis=0)
        crop = _crop(foreground)
        pixels = np.stack([plane[crop].astype(float) for plane in images[view]], axis=-1)
        finite = pixels[np.isfinite(pixels)]
        low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
        size = [n * spacing[axis] for n, axis in zip(pixels.shape[:2], plane_axes, strict=True)]
        name = {0: "sagittal", 1: "coronal", 2: "axial"}[through]
        blocks.append(
            {
                "where": "" if geometry.unit == "px" else f" · {name} slice {at + 1} of {channels[0].shape[through]}",
                "pixels": pixels,
                # The brightest tissue stays grey, so that light contours show on it.
                "window": (low, high + 0.2 * (high - low)),
                "pixel": [float(spacing[axis]) for axis in plane_axes],
                "aspect": size[1] / size[0],
                # Radiological: the patient's right on the viewer's left.
                "flip": plane_axes[0] == 0 and geometry.unit == "mm",
                "reference": references[view][crop],
                "methods": {
                    m: {key: record[key] for key in ("absent", "fold", "seed")}
                    | {"labels": drawn[m][crop] if m in drawn else None}
                    | {"value": record["values"].reindex(list(views[view])).mean() if m in drawn else None}
                    for m, record in found.items()
                },
            }
        )
    return blocks


def _prediction(method, case, rows, predictions, shape) -> tuple[np.ndarray | None, dict]:
    """The label map of the lowest seed that predicted the case, with its fold, seed and scores, or why not."""
    mine = rows[rows["method"] == method]
    scored = mine[mine["status"] != "failed"]
    for (seed, fold), values in scored.groupby(["seed", "fold"]):
        folder = Path(predictions.get((method, int(fold), int(seed)), ""))
        path = folder / f"{case.case}{label_suffix(next(iter(case.images.values())))}"
        if path.is_file():
            volume, _ = read_label(path)
            if volume.shape != shape:
                raise BadInput(f"{path}: shape {volume.shape}, but the reference has {shape}; predict this cell again")
            by_structure = values.set_index("structure")["value"]
            return volume, {"absent": "", "fold": int(fold), "seed": int(seed), "values": by_structure}
    absent = "missing" if mine.empty else "failed" if scored.empty else "no prediction"
    return None, {"absent": absent, "fold": None, "seed": None}


def _labels(structures: Structures) -> list[int]:
    return [value for labels in structures.values() for value in np.atleast_1d(labels)]


def _crop(foreground: np.ndarray) -> tuple[slice, slice]:
    """Bounding box of the foreground with a margin of a tenth (at least 4 pixels); everything when there is
    none.
    """
    slices = []
    for axis in (0, 1):
        hits = np.flatnonzero(foreground.any(axis=1 - axis))
        if hits.size == 0:
            return slice(None), slice(None)
        margin = max(4, round(0.1 * (hits[-1] - hits[0] + 1)))
        slices.append(slice(max(0, int(hits[0]) - margin), int(hits[-1]) + margin + 1))
    return tuple(slices)


def _show(ax: Axes, block: dict, labels: np.ndarray | None, structures: Structures, colours: dict[str, str]) -> None:
    pixels = block["pixels"]
    if labels is None and ax.get_subplotspec().num1 > 1:
        pixels = np.full_like(pixels, block["window"][0])
    low, high = block["window"]
    shown = np.clip((pixels - low) / max(high - low, 1e-12), 0, 1).transpose(1, 0, 2)
    ax.imshow(
        shown if shown.shape[2] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1, origin="lower",
        interpolation="nearest", aspect=block["pixel"][1] / block["pixel"][0],
    )  # fmt: skip
    if labels is not None:
        for name, values in structures.items():
            outline(ax, np.isin(labels, values), colours[name])
    ax.set(xlim=(-0.5, pixels.shape[0] - 0.5), ylim=(-0.5, pixels.shape[1] - 0.5))
    if block["flip"]:
        ax.invert_xaxis()


def outline(ax: Axes, mask: np.ndarray, colour: str) -> None:
    """Contour of a boolean mask (X, Y), a little inside its border so that touching structures stay apart."""
    if mask.any():
        padded = np.pad(mask, 1).astype(float)
        x, y = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
        drawn = ax.contour(x, y, padded.T, levels=[0.7], colors=[colour], linewidths=0.8)
        drawn.set_path_effects([withStroke(linewidth=1.3, foreground="#00000080")])
