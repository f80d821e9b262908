"""Degradation: the score of every method as the noise grows, and the area under that curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style

TITLE = "How the score falls as the noise grows"
CAPTION = (
    "Above: mean Dice with its 95 % interval at every strength of one kind of noise, weakest first, one panel per "
    "loss; lines of the other losses are grey. Below: the area under each method's curve divided by the range of "
    "strengths, so a Dice averaged over the noise, with its 95 % interval; the samples at the right are the key to "
    "the lines. Where intervals overlap, the order of two methods may be chance."
)


PER_ROW = 4


def draw(degradation: pd.DataFrame, methods: list[str]) -> Figure:
    """One block per dataset × protocol × family of noise.

    degradation: rows with a number in `strength` are points of the curves, rows with "area" the area under them.
    methods: architecture+loss in the order of the configuration, which fixes the colours.
    """
    if degradation.empty:
        return style.notice("Degradation: no two conditions differ in the strength of one kind of noise.")
    looks = style.looks(methods)
    blocks = list(degradation.groupby(["dataset", "protocol", "family"], sort=False))
    heights = [_heights(table) for _, table in blocks]
    figure = style.figure(style.TWO_COLUMNS, sum(map(sum, heights)) * style.MM)
    parts = figure.subfigures(len(blocks), 1, height_ratios=[sum(h) for h in heights], squeeze=False)[:, 0]
    for part, ((dataset, protocol, family), table), height in zip(parts, blocks, heights, strict=True):
        is_area = table["strength"].astype(str) == "area"
        curves = table[~is_area].assign(strength=lambda t: t["strength"].astype(float))
        upper, lower = part.subfigures(2, 1, height_ratios=height)
        losses = _losses([method for method in methods if method in set(curves["method"])])
        columns = min(PER_ROW, len(losses))
        axes = upper.subplots(-(-len(losses) // columns), columns, sharex=True, sharey=True, squeeze=False)
        for ax in axes.ravel()[len(losses) :]:
            ax.set_axis_off()
        for ax, loss in zip(axes.ravel(), losses, strict=False):
            _curves(ax, curves, loss, looks)
            ax.set_title(style.wrapped(loss, 26) if len(losses) > 1 else "", pad=3)
            ax.set_xlabel(f"strength {family[family.rindex('(') :]}" if family.endswith(")") else "strength")
            ax.tick_params(labelbottom=True)
        if curves["strength"].iloc[0] > curves["strength"].iloc[-1]:
            axes[0, 0].invert_xaxis()  # of all: fewer training patients are more noise
        for ax in axes[:, 0]:
            ax.set_ylabel(f"mean {style.METRIC_NAMES[style.PRIMARY]}")
        _areas(lower.subplots(), table[is_area], looks)
        upper.suptitle(style.title_with_n((dataset, family, protocol), table), x=0.01, ha="left", fontsize=7.5)
    return figure


def _losses(methods: list[str]) -> list[str]:
    return list(dict.fromkeys(style.loss_of(method) for method in methods))


def _heights(table: pd.DataFrame) -> tuple[float, float]:
    """Height in mm of the curves and of the areas of one block."""
    methods = list(table["method"].unique())
    return 7 + 52 * -(-len(_losses(methods)) // PER_ROW), 13 + style.row_labels(methods)[1] * len(methods)


def _curves(ax: Axes, curves: pd.DataFrame, loss: str, looks: dict) -> None:
    mine = [method for method in looks if method in set(curves["method"]) and style.loss_of(method) == loss]
    step = 0.016 * np.ptp(curves["strength"]) / max(1, len(mine) / 4)  # apart, so that no interval hides another
    for method, rows in curves.groupby("method", sort=False):
        if method not in mine:
            ax.plot(rows["strength"], rows["mean"], color="#d9dde2", linewidth=0.8, zorder=0)
            continue
        look = looks[method]
        at = rows["strength"] + step * (mine.index(method) - (len(mine) - 1) / 2)
        ax.vlines(at, rows["low"], rows["high"], color=look["color"], linewidth=0.7, zorder=1)
        ax.plot(at, rows["mean"], linewidth=1.2, markersize=3, zorder=2, gid="curve", **look)
    ax.set_xticks(sorted(curves["strength"].unique()))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)


def _areas(ax: Axes, areas: pd.DataFrame, looks: dict) -> None:
    areas = areas.sort_values(["mean", "method"], ascending=[False, True], ignore_index=True)
    for y, row in areas.iterrows():
        look = looks[row["method"]]
        ax.plot([row["low"], row["high"]], [y, y], color=look["color"], linewidth=1.1)
        ax.plot([row["mean"]], [y], marker=look["marker"], color=look["color"], markersize=4, gid="area")
        ax.plot([1.01, 1.04, 1.07], [y] * 3, transform=ax.get_yaxis_transform(), clip_on=False, linewidth=1.2,
                markersize=3, markevery=[1], **look)  # fmt: skip
    style.method_axis(ax, style.row_labels(list(areas["method"]))[0])
    ax.set_xlabel("area under the curve ÷ range of strengths")
