"""Rank stability: how often each method takes each rank when patients and trainings are drawn again."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures import style

TITLE = "Would other patients and other seeds rank the methods the same?"
CAPTION = (
    "The area of a disc is the share of bootstrap samples (patients and trainings drawn again) in which the method "
    "took that rank; rank 1 is best. The cross is the median rank, the line spans the central 95 %. Up to ten methods "
    "show every way to make a ranking, more show the first of them. Where the lines of two methods overlap, their "
    "order depends on who was tested and on luck in training. Of a method with fewer than three seeds patients alone "
    "are drawn again, so its line does not show that luck."
)

FEW = 10  # methods of which all schemes fit side by side


def draw(distribution: pd.DataFrame, ranking: pd.DataFrame, empty: str = "penalise") -> Figure:
    """One row of panels per dataset × condition × protocol; one panel per scheme where the methods are few.

    distribution: rank_distribution.csv (method, scheme, empty, rank, share); `empty`: the policy that is drawn.
    ranking: gives the order of the methods and n.
    """
    shares = distribution[(distribution["metric"] == style.PRIMARY) & (distribution["empty"] == empty)]
    panels = style.situations(shares)
    if not panels:
        return style.notice("Rank stability: no method was ranked.")
    orders = [_order(style.at(shares, panel), style.ranked(ranking, panel)) for panel in panels]
    schemes = [scheme for scheme in style.SCHEMES if scheme in set(shares["scheme"])]
    if max(map(len, orders)) > FEW:
        schemes = schemes[:1]
    labels, height = style.row_labels([method for order in orders for method in order])
    size = _diameter(max(map(len, orders)), len(schemes), labels)
    heights = [17 + height * len(order) for order in orders]
    figure = style.figure(style.TWO_COLUMNS, (8 + sum(heights)) * style.MM)
    *blocks, foot = figure.subfigures(len(panels) + 1, 1, height_ratios=[*heights, 8])
    for block, panel, order in zip(blocks, panels, orders, strict=True):
        here = style.at(shares, panel)
        axes = block.subplots(1, len(schemes), sharey=True, squeeze=False)[0]
        for ax, scheme in zip(axes, schemes, strict=True):
            _panel(ax, here[here["scheme"] == scheme], order, size)
            ax.set_title(style.SCHEMES[scheme])
        style.method_axis(axes[0], style.row_labels(order)[0])
        block.suptitle(style.title_with_n(panel, style.ranked(ranking, panel)), x=0.01, ha="left", fontsize=7.5)
    disc = {"linestyle": "none", "marker": "o", "color": style.BLUE, "markeredgewidth": 0}
    handles = [
        Line2D([], [], markersize=size * np.sqrt(share), label=f"{share:.0%} of samples", **disc)
        for share in (1, 0.5, 0.1)
    ]
    cross = {"color": style.INK, "linewidth": 0.8, "marker": "x", "markersize": 3.5}
    handles.append(Line2D([], [], label="median, central 95 %", **cross))
    foot.legend(handles=handles, loc="center", ncols=4, columnspacing=2.5)
    return figure


def _diameter(n_methods: int, n_schemes: int, labels: list[str]) -> float:
    """Diameter in points of the disc of a share of 1, so that discs of neighbouring ranks do not overlap."""
    names = 1.3 * max(len(line) for label in labels for line in label.split("\n"))
    between = (170 - names - 4 * n_schemes) / n_schemes / (n_methods + 0.4)  # mm
    return min(3.6, 1.4 * between) * style.MM * 72


def _order(shares: pd.DataFrame, ranked: pd.DataFrame) -> list[str]:
    return [method for method in ranked["method"] if method in set(shares["method"])]


def _panel(ax: Axes, shares: pd.DataFrame, order: list[str], size: float) -> None:
    shares = shares[shares["share"] > 0].sort_values("rank")
    for y, method in enumerate(order):
        row = shares[shares["method"] == method]
        if row.empty:
            continue
        below = row["share"].cumsum().to_numpy() / row["share"].sum()
        low, median, high = (row["rank"].to_numpy()[np.searchsorted(below, q - 1e-9)] for q in (0.025, 0.5, 0.975))
        disc = {"s": size**2 * row["share"], "color": style.BLUE, "linewidth": 0}
        ax.scatter(row["rank"], [y] * len(row), **disc, zorder=2, gid="shares")
        ax.plot([low, high], [y, y], color=style.INK, linewidth=0.6, zorder=3, gid="interval")
        ax.scatter([median], [y], marker="x", s=9, color=style.INK, linewidth=0.9, zorder=4, gid="median")
    style.method_axis(ax, order)
    ax.grid(True, axis="both")
    ax.set_xlim(0.3, len(order) + 0.7)
    ax.set_xticks(style.rank_ticks(len(order)))
    ax.set_xlabel("rank")
