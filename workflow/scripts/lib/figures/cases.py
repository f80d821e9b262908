"""Cases of a dataset as they came: one slice each, with the contours of their structures."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.data.cases import Case, load_label
from lib.figures import style
from lib.figures.montage import Structures, choose_slice, load_shown, outline, slice_axis, upright, upright_spacing

COLUMNS = 4
SIDE = 46  # mm


def draw(
    cases: list[Case],
    titles: list[str],
    structures: Structures,
    palette: dict | None = None,
    colour: str | None = None,
    colours: dict[str, str] | None = None,
) -> Figure:
    """One panel per case: the slice across its coarsest axis in which the structures are seen best, RAS upright.

    `titles`: one per case. `colour`: how pictures are read; `colours`: of the contours, by default in the order of
    `structures`. Raises BadInput when a file cannot be read.
    """
    if not cases:
        return style.notice("No case could be read.")
    lines = -(-len(cases) // COLUMNS)
    columns = min(COLUMNS, len(cases))
    figure = style.figure(columns * SIDE * style.MM, (lines * (SIDE + 6) + 8) * style.MM)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    colours = colours or style.overlays(list(structures))
    for ax in axes:
        ax.set_axis_off()
    for ax, case, title in zip(axes, cases, titles, strict=False):
        pixels, label, pixel = _slice(case, structures, palette, colour)
        note = "" if label is not None else "\n(the label map has another shape)"
        ax.imshow(
            pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1, origin="lower",
            interpolation="nearest", aspect=pixel[1] / pixel[0],
        )  # fmt: skip
        for name, values in structures.items() if label is not None else ():
            outline(ax, np.isin(label, values), colours[name])
        ax.set_title(style.wrapped(title, 30) + note, fontsize=6.5, pad=2, parse_math=False)
    handles = [Line2D([], [], color=colours[name], linewidth=2.5, label=name) for name in structures]
    box = {"frameon": True, "facecolor": "#3a3f45", "edgecolor": "none", "labelcolor": "white"}
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), **box)
    return figure


def _slice(case: Case, structures: Structures, palette: dict | None, colour: str | None) -> tuple:
    """Grey values or colours (Y, X, 1 or 3) in 0…1, labels (X, Y), and the two sides of a pixel.

    Labels are None, and the slice is the middle one, where the label map does not have the image's shape.
    """
    channels, geometry = load_shown(case, colour)
    label, spacing = load_label(case, structures, palette)[0], upright_spacing(geometry)
    through = slice_axis(channels[0].shape, spacing)
    label = upright(label, geometry) if label.shape == geometry.shape else None
    at = channels[0].shape[through] // 2 if label is None else choose_slice(np.moveaxis(label, through, -1), structures)
    planes = np.stack([np.take(channel, at, axis=through) for channel in channels], axis=-1).astype(float)
    low, high = np.percentile(planes, [0.5, 99.5])
    planes = np.clip((planes - low) / max(high - low, 1e-12), 0, 1)
    pixel = [spacing[axis] for axis in range(3) if axis != through]
    return planes.transpose(1, 0, 2), None if label is None else np.take(label, at, axis=through), pixel
