"""Degradation: the score of every method as the noise grows, and the area under that curve."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style

TITLE = "How the score falls as the noise grows"
CAPTION = (
    "Left: mean Dice with its 95 % interval at every strength of one kind of noise, one panel per loss; strength 0 is the "
    "clean data, and lines of the other losses are grey. Right: the area under each method's curve divided by the range of "
    "strengths, so a Dice averaged over the noise, with its 95 % interval; the colours and marks are the key to the lines. "
    "Overlapping intervals do not order two methods."
)


def draw(degradation: pd.DataFrame, methods: list[str]) -> Figure:
    """One block per dataset × protocol × family of noise.

    degradation: rows with a number in `strength` are points of the curves, rows with "area" the area under them.
    methods: architecture+loss in the order of the configuration, which fixes the colours.
    """
    if degradation.empty:
        return style.notice("Degradation: no two conditions differ in the strength of one kind of noise.")
    looks = style.looks(methods)
    blocks = list(degradation.groupby(["dataset", "protocol", "family"], sort=False))
    sizes = [_sizes(table) for _, table in blocks]
    figure = style.figure(style.TWO_COLUMNS, sum(sizes) * style.MM)
    parts = figure.subfigures(len(blocks), 1, height_ratios=sizes, squeeze=False)[:, 0]
    for part, ((dataset, protocol, family), table) in zip(parts, blocks, strict=True):
        area = table["strength"].astype(str) == "area"
        curves = table[~area].assign(strength=lambda t: t["strength"].astype(float)).sort_values("strength")
        losses = list(dict.fromkeys(_loss(m) for m in methods if m in set(curves["method"])))
        columns = min(2, len(losses))
        left, right = part.subfigures(1, 2, width_ratios=[1.15, 1])
        axes = left.subplots(-(-len(losses) // columns), columns, sharex=True, sharey=True, squeeze=False)
        for ax in axes.ravel()[len(losses) :]:
            ax.set_axis_off()
        for ax, loss in zip(axes.ravel(), losses, strict=False):
            _curves(ax, curves, loss, looks)
            if len(losses) > 1:
                ax.set_title(style.wrapped(loss or "no loss", 26), pad=2)
            ax.tick_params(labelbottom=True)
        left.supxlabel(f"strength of {family}", fontsize=7)
        left.supylabel(f"mean {style.METRIC_NAMES[style.PRIMARY]}", fontsize=7)
        _areas(right.subplots(), table[area], looks)
        counts = table.iloc[:0] if table[["n_patients", "n_seeds"]].isna().all(axis=None) else table
        title = style.title_with_n((dataset, family, protocol), counts)
        part.suptitle(title, x=0.01, ha="left", fontsize=7.5)
    return figure


def _loss(method: str) -> str:
    return method.partition("+")[2]


def _sizes(table: pd.DataFrame) -> float:
    """Height of a block in mm: what its rows of panels or its list of methods needs."""
    methods = list(table["method"].unique())
    _, row = style.row_labels(methods, 30)
    panels = -(-len({_loss(m) for m in methods}) // 2)
    return 16 + max(38 * panels if panels > 1 else 55, row * len(methods))


def _curves(ax: Axes, curves: pd.DataFrame, loss: str, looks: dict) -> None:
    for method, rows in curves.groupby("method", sort=False):
        if _loss(method) != loss:
            ax.plot(rows["strength"], rows["mean"], color="#d9dde2", linewidth=0.8, zorder=0)
            continue
        look = looks[method]
        ax.fill_between(rows["strength"], rows["low"], rows["high"], color=look["color"], alpha=0.13, linewidth=0, zorder=1)
        ax.plot(rows["strength"], rows["mean"], color=look["color"], linestyle=look["linestyle"], linewidth=1.3,
                marker=look["marker"], markersize=3, zorder=2, gid="curve")  # fmt: skip
    ax.set_xticks(sorted(curves["strength"].unique()))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(axis="y")
    ax.set_axisbelow(True)


def _areas(ax: Axes, areas: pd.DataFrame, looks: dict) -> None:
    areas = areas.sort_values("mean", ascending=False, kind="stable").reset_index(drop=True)
    for y, row in areas.iterrows():
        look = looks[row["method"]]
        ax.plot([row["low"], row["high"]], [y, y], color=look["color"], linestyle=look["linestyle"], linewidth=1.1)
        ax.plot([row["mean"]], [y], marker=look["marker"], color=look["color"], markersize=4, gid="area")
    style.method_axis(ax, style.row_labels(list(areas["method"]), 30)[0])
    ax.set_xlabel("area under the curve ÷ range of strengths")
