"""Distributions: every case of every cell as a point, with a box per method, one panel per structure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style

TITLE = "All cases, per structure"
CAPTION = (
    "A point is one test case under one seed. The box spans the middle half of the points, its bar is the median, the "
    "whiskers reach the 5th and 95th percentile, and the diamond is the mean. A cross at 0 is a case in which the "
    "structure was missed, and it counts in the mean. Cases of failed cells are counted but not drawn."
)

NAMES = 34  # characters of a line of a name


def draw(scores: pd.DataFrame, structures: list[str], metric: str = style.PRIMARY) -> Figure:
    """One row of panels per dataset × condition × protocol, one panel per structure.

    structures: their order, which also fixes their colours; one that a dataset lacks gives no panel there. A
    point is one test case under one seed. The box spans the quartiles of the points, the bar is the median,
    the diamond the mean. A case whose structure was missed is a cross at 0, with its count; rows of failed
    cells are counted, not drawn. Methods are sorted by their mean over all points.
    """
    table = scores[scores["metric"] == metric]
    drawable = table[table["status"] != "failed"]
    if drawable.empty:
        failed = table[["method", "fold", "seed"]].drop_duplicates()
        return style.notice(f"Distributions: no case was scored ({len(failed)} cells failed).")
    colours = style.overlays(structures)
    panels = style.situations(table)
    names = [[s for s in structures if s in set(style.at(table, panel)["structure"])] for panel in panels]
    per_row = 4
    rows = [
        (p, group[k : k + per_row])
        for p, group in zip(panels, names, strict=True)
        for k in range(0, len(group), per_row)
    ]
    counts = [style.at(table, panel)["method"].nunique() for panel, _ in rows]
    _, height = style.row_labels(list(table["method"].unique()), NAMES)
    height = max(height, 8.5 if max(counts) <= 12 else 5.5)
    heights = [16 + height * n for n in counts]
    figure = style.figure(style.TWO_COLUMNS, (4 + sum(heights)) * style.MM)
    blocks = np.atleast_1d(figure.subfigures(len(rows), 1, height_ratios=heights))
    for block, (panel, shown) in zip(blocks, rows, strict=True):
        here = style.at(table, panel)
        order = _order(here)
        axes = block.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        low = _floor(here)
        for ax, structure in zip(axes, shown, strict=True):
            _panel(ax, here[here["structure"] == structure], order, colours[structure], low)
            ax.set_title(structure, color=style.on_white(colours[structure]), fontweight="bold")
            ax.set_xlabel(f"{style.METRIC_NAMES[metric]} per case")
        axes[0].set_yticks(range(len(order)), style.row_labels(order, NAMES)[0])
        block.suptitle(style.situation_title(panel), x=0.01, ha="left", fontsize=7.5)
    return figure


def _order(table: pd.DataFrame) -> list[str]:
    """Methods from the highest mean down; those that only failed at the end."""
    means = table[table["status"] != "failed"].groupby("method")["value"].mean().sort_values(ascending=False)
    return [*means.index, *sorted(set(table["method"]) - set(means.index))]


def _floor(table: pd.DataFrame) -> float:
    """Left end of the axis: 0 where something was missed, else a tenth below the lowest value."""
    drawn = table[table["status"] != "failed"]
    if drawn["status"].isin(["missed", "hallucinated"]).any():
        return 0.0
    return max(0.0, np.floor(drawn["value"].min() * 10) / 10)


def _panel(ax: Axes, table: pd.DataFrame, order: list[str], colour: str, low: float) -> None:
    ink = style.on_white(colour)
    span = 1 - low
    for y, method in enumerate(order):
        rows = table[table["method"] == method]
        points = rows[rows["status"].isin(["scored", "both_empty"])].sort_values(["case", "fold", "seed"])
        absent = rows[rows["status"].isin(["missed", "hallucinated"])]
        values = pd.concat([points["value"], absent["value"]]).to_numpy(float)
        # A golden-ratio sequence spreads the points evenly without chance, so that the figure repeats.
        jitter = (np.arange(len(points)) * 0.6180339887 % 1 - 0.5) * 0.56
        ax.scatter(
            points["value"],
            y + jitter,
            s=7,
            color=colour,
            edgecolor=ink,
            linewidth=0.35,
            alpha=0.75,
            zorder=2,
            gid="cases",
        )
        if len(values):
            ax.boxplot(
                values, positions=[y], orientation="horizontal", widths=0.5, showfliers=False, whis=(5, 95),
                patch_artist=True, manage_ticks=False, zorder=3,
                boxprops={"facecolor": "none", "edgecolor": style.INK, "linewidth": 0.7},
                medianprops={"color": style.INK, "linewidth": 1.6},
                whiskerprops={"color": style.INK, "linewidth": 0.7}, capprops={"linewidth": 0},
            )  # fmt: skip
            ax.scatter(
                [values.mean()],
                [y],
                marker="D",
                s=9,
                color="white",
                edgecolor=style.INK,
                linewidth=0.8,
                zorder=4,
            )
        if len(absent):
            spread = (np.arange(len(absent)) * 0.6180339887 % 1 - 0.5) * 0.56
            ax.scatter(
                absent["value"],
                y + spread,
                marker="x",
                s=11,
                color=style.ALERT,
                linewidth=0.9,
                zorder=5,
                clip_on=False,
            )
        kinds = rows["status"].value_counts()
        notes = [f"{kinds[kind]} cases {kind}" for kind in ("missed", "hallucinated", "failed") if kind in kinds]
        if notes:
            ax.text(
                low + 0.04 * span,
                y - 0.08,
                ", ".join(notes),
                va="bottom",
                fontsize=5.5,
                color=style.ALERT,
                zorder=6,
            )
    ax.set(xlim=(low - 0.02 * span, 1 + 0.02 * span), ylim=(len(order) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
