"""Interactive methods: pictures of sessions round by round, with box, marks, answer and reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from lib.figures import style
from lib.figures.montage import outline
from lib.interactive import BACKGROUND, FOREGROUND

TITLE = "Sessions round by round"
CAPTION = (
    "The first test patients of the first fold, so no result chose them: of each structure the largest object, with "
    "the first repeat and the first simulated user. Columns count the marks made; a session that has converged "
    "repeats its last picture. Of methods whose answers no mark changes the first is shown, six methods in all. In "
    "3-D one slice is shown, where the reference is largest; marks in other slices are not seen."
)
COLOURS = {
    "answer": style.OVERLAY[2],
    "reference": style.OVERLAY[0],
    "object marked": style.OVERLAY[3],
    "background marked": style.OVERLAY[1],
}
MOST_ROUNDS, MOST_METHODS = 5, 6
NAME_WIDTH = 0.5  # of the names of methods, where a picture has 1


def draw(sessions: Mapping[str, list[dict]], budget: int) -> Figure:
    """One block per object: a row per method, a column per number of interactions.

    sessions: per method, in the order of the configuration, its pictures as `play_cell.read_pictures` gives them.
    budget: most interactions.
    """
    sessions = _shown({method: pictures for method, pictures in sessions.items() if pictures})
    if not sessions:
        return style.notice("Sessions: none has ended that could be shown.")
    objects = _objects(sessions)
    shown = sorted({round(budget * part / (MOST_ROUNDS - 1)) for part in range(MOST_ROUNDS)} | {1})[: MOST_ROUNDS + 1]
    side = style.TWO_COLUMNS / style.MM / (len(shown) + NAME_WIDTH)
    aspects = [_aspect(next(iter(found.values()))) for found in objects.values()]
    heights = [
        10 + len(found) * (side * min(aspect, 1.4) + 4) for found, aspect in zip(objects.values(), aspects, strict=True)
    ]
    figure = style.figure(style.TWO_COLUMNS, (sum(heights) + 8) * style.MM)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)
    *blocks, foot = figure.subfigures(len(objects) + 1, 1, height_ratios=[*heights, 8])
    for block, ((case, structure), found) in zip(blocks, objects.items(), strict=True):
        first = next(iter(found.values()))
        kind = "seen" if first["seen"] else "unseen"
        at = "" if first["slice"] is None else f", slice {first['slice'] + 1}"
        block.suptitle(f"{case}{at} · {structure} ({kind})", x=0.01, ha="left", fontsize=7.5)
        axes = block.subplots(len(found), len(shown) + 1, squeeze=False, width_ratios=[NAME_WIDTH, *[1] * len(shown)])
        for line, (method, picture) in zip(axes, found.items(), strict=True):
            for ax in line:
                ax.set_axis_off()
            line[0].text(0, 0.5, style.wrapped(method, 15), transform=line[0].transAxes, va="center", fontsize=6)
            for ax, made in zip(line[1:], shown, strict=True):
                _session(ax, picture, made)
        for ax, made in zip(axes[0, 1:], shown, strict=True):
            ax.text(0.5, 1.17, "box" if made == 0 else f"{made} mark{'s' * (made > 1)}", transform=ax.transAxes,
                    ha="center", fontsize=6.5)  # fmt: skip
    handles = [Line2D([], [], color=colour, linewidth=2.5, label=name) for name, colour in COLOURS.items()]
    handles.append(Line2D([], [], color="white", linestyle=":", label="box"))
    foot.legend(handles=handles, loc="center", ncols=5, frameon=True, facecolor="#3a3f45", edgecolor="none",
                labelcolor="white")  # fmt: skip
    return figure


def _shown(sessions: Mapping[str, list[dict]]) -> dict[str, list[dict]]:
    """The first MOST_METHODS methods, without those that no mark moves but for the first of these."""
    unmoved = [
        m for m, pictures in sessions.items() if all((p["predictions"] == p["predictions"][0]).all() for p in pictures)
    ]
    moved = [method for method in sessions if method not in unmoved[1:]]
    return {method: sessions[method] for method in moved[:MOST_METHODS]}


def _objects(sessions: Mapping[str, list[dict]]) -> dict[tuple[str, str], dict[str, dict]]:
    """Of each structure the first case's object, with the picture of every method that played it."""
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for method, pictures in sessions.items():
        for picture in pictures:
            taken = next((case for case, structure in found if structure == picture["structure"]), picture["case"])
            if taken == picture["case"]:
                found.setdefault((picture["case"], picture["structure"]), {})[method] = picture
    return found


def _aspect(picture: dict) -> float:
    """Height over width of the picture as it is drawn."""
    height, width = (n * side for n, side in zip(picture["image"].shape, picture["spacing"], strict=True))
    return height / width if picture["unit"] == "px" else width / height


def _session(ax: Axes, picture: dict, made: int) -> None:
    """The answer after `made` marks, in the orientation of the montage: the patient's right on the left."""
    at = min(made, len(picture["predictions"]) - 1)
    whole = np.zeros((3, *picture["image"].shape), np.uint8)
    box = tuple(slice(low, high) for low, high in picture["box"])
    for layer, part in zip(whole, (picture["predictions"], picture["scribbles"]), strict=False):
        layer[box] = part[at]
    whole[2][box] = picture["reference"]
    image, px = picture["image"], picture["unit"] == "px"
    if px:
        image, whole = image.T, whole.swapaxes(1, 2)
    low, high = np.percentile(image, [0.5, 99.5])
    spacing = picture["spacing"][::-1] if px else picture["spacing"]
    ax.imshow(image.T, cmap="gray", vmin=low, vmax=high + 0.2 * (high - low), origin="lower", interpolation="nearest",
              aspect=spacing[1] / spacing[0])  # fmt: skip
    outline(ax, whole[2] == 1, COLOURS["reference"])
    outline(ax, whole[0] == 1, COLOURS["answer"])
    for value, name in ((FOREGROUND, "object marked"), (BACKGROUND, "background marked")):
        marked = np.argwhere(whole[1] == value)
        ax.plot(*marked.T, linestyle="", marker="s", markersize=1.1, markeredgewidth=0, color=COLOURS[name], gid=name)
    (x0, x1), (y0, y1) = picture["box"][::-1] if px else picture["box"]
    ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor="white", linestyle=":"))
    ax.set(xlim=(-0.5, image.shape[0] - 0.5), ylim=(-0.5, image.shape[1] - 0.5))
    if px:
        ax.invert_yaxis()
    elif picture["axes"][0] == 0:
        ax.invert_xaxis()
    ended = f" ({at})" if at < made else ""
    ax.set_title(f"Dice {picture['dice'][at]:.3f}{ended}", fontsize=5.5, pad=2)
