"""Rank stability: how often each method takes each rank when patients and trainings are drawn again."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style

TITLE = "Would other patients and other seeds rank the methods the same?"
CAPTION = (
    "The area of a disc is the share of bootstrap samples (patients and trainings drawn again) in which the method took "
    "that rank; rank 1 is best. The cross is the median rank, the line spans the central 95 %. Up to ten methods show "
    "every way to make a ranking, more show the first of them. Where the lines of two methods overlap, their order "
    "depends on who was tested and on luck in training."
)

SCHEMES = {  # first the one that decides
    "mean_then_rank": "mean, then rank",
    "median_then_rank": "median, then rank",
    "rank_then_mean": "rank, then mean",
    "rank_then_median": "rank, then median",
    "test_then_rank": "test, then rank",
}
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
    schemes = [scheme for scheme in SCHEMES if scheme in set(shares["scheme"])]
    if max(map(len, orders)) > FEW:
        schemes = schemes[:1]
    labels, height = style.row_labels([method for order in orders for method in order])
    height = max(height, 4.2)
    figure = style.figure(style.TWO_COLUMNS, sum(16 + height * len(order) for order in orders) * style.MM)
    blocks = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=[16 + height * len(o) for o in orders]))
    for block, panel, order in zip(blocks, panels, orders, strict=True):
        here = style.at(shares, panel)
        axes = block.subplots(1, len(schemes), sharey=True, squeeze=False)[0]
        for ax, scheme in zip(axes, schemes, strict=True):
            _panel(ax, here[here["scheme"] == scheme], order)
            ax.set_title(SCHEMES[scheme])
        style.method_axis(axes[0], [style.wrapped(method, 36) for method in order])
        block.suptitle(style.title_with_n(panel, style.ranked(ranking, panel)), x=0.01, ha="left", fontsize=7.5)
    return figure


def _order(shares: pd.DataFrame, ranked: pd.DataFrame) -> list[str]:
    return [method for method in ranked["method"] if method in set(shares["method"])]


def _panel(ax: Axes, shares: pd.DataFrame, order: list[str]) -> None:
    for y, method in enumerate(order):
        row = shares[(shares["method"] == method) & (shares["share"] > 0)].sort_values("rank")
        if row.empty:
            continue
        below = row["share"].cumsum().to_numpy() / row["share"].sum()
        low, median, high = (row["rank"].to_numpy()[np.searchsorted(below, q - 1e-9)] for q in (0.025, 0.5, 0.975))
        ax.plot([low, high], [y, y], color=style.INK, linewidth=0.8, zorder=3, gid="interval")
        ax.scatter([median], [y], marker="x", s=12, color=style.INK, linewidth=1, zorder=4, gid="median")
    known = shares[shares["method"].isin(order) & (shares["share"] > 0)]
    largest = 95 if len(order) <= FEW else 70
    ax.scatter(
        known["rank"],
        known["method"].map({method: y for y, method in enumerate(order)}),
        s=largest * known["share"],
        color=style.BLUE,
        linewidth=0,
        zorder=2,
        gid="shares",
    )
    ax.set_xlim(0.3, len(order) + 0.7)
    step = 1 if len(order) <= 20 else 5
    ax.set_xticks(sorted({1, *range(step, len(order) + 1, step)}))
    ax.set_xlabel("rank")
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="both")
    ax.set_axisbelow(True)
