"""Interactive methods: how many interactions they need, how often they fail, the area under the curve."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures import style

TITLE = "Interactions to reach a Dice, and the area under Dice"
CAPTION = (
    "Left: the area under Dice over interactions, divided by their number, so a Dice averaged over the session. The "
    "others: the number of interactions until the Dice first reaches a threshold; a session that never does counts "
    "with the most that were allowed, and the percentage at the right is the share of such instances, seen above "
    "unseen. Means with 95 % intervals over patients and repeats, under the first simulated user; methods in the order "
    "of the area over all structures."
)
METRICS = {
    "dice_auc": "area under Dice",
    "interactions_to_0.85": "interactions to 0.85",
    "interactions_to_0.90": "interactions to 0.90",
    "interactions_to_0.95": "interactions to 0.95",
}
LOOKS = {"seen": (style.BLUE, "o", -0.16), "unseen": (style.ORANGE, "D", 0.16)}


def draw(interactions: pd.DataFrame, budget: int) -> Figure:
    """One block per dataset × condition × protocol, a row per method.

    interactions: interactions.csv of the interactive track; its first robot is drawn. budget: most interactions.
    """
    if interactions.empty:
        return style.notice("Interactions: no session has ended.")
    first = interactions[interactions["robot"] == interactions["robot"].iloc[0]]
    situations = style.situations(first)
    orders = [_order(style.at(first, situation)) for situation in situations]
    heights = [18 + max(5.5, style.row_labels(order)[1]) * len(order) for order in orders]
    figure = style.figure(style.TWO_COLUMNS, (sum(heights) + 7) * style.MM)
    *blocks, foot = figure.subfigures(len(situations) + 1, 1, height_ratios=[*heights, 7])
    for block, situation, order in zip(blocks, situations, orders, strict=True):
        here = style.at(first, situation)
        block.suptitle(style.title_with_n(situation, here), x=0.01, ha="left", fontsize=7.5)
        axes = block.subplots(1, len(METRICS), sharey=True)
        for ax, (metric, label) in zip(axes, METRICS.items(), strict=True):
            _panel(ax, here[here["metric"] == metric], order)
            ax.set_xlabel(label)
            ax.set_xlim(*((0, 1) if metric == "dice_auc" else (-0.03 * budget, 1.03 * budget)))
        style.method_axis(axes[0], style.row_labels(order)[0])
        for ax in axes[1:]:
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=4, label=group)
        for group, (colour, marker, _) in LOOKS.items()
    ]
    foot.legend(handles=handles, loc="center", ncols=2)
    return figure


def _order(here: pd.DataFrame) -> list[str]:
    rows = here[(here["metric"] == "dice_auc") & (here["structure"] == "mean")]
    return list(rows.sort_values(["mean", "method"], ascending=[False, True])["method"])


def _panel(ax: Axes, rows: pd.DataFrame, order: list[str]) -> None:
    for group, (colour, marker, shift) in LOOKS.items():
        found = rows[rows["structure"] == group].set_index("method").reindex(order)
        at = [y + shift for y in range(len(order))]
        ax.hlines(at, found["low"], found["high"], color=colour, linewidth=1)
        ax.plot(found["mean"], at, linestyle="", marker=marker, markersize=3.2, color=colour, gid=group)
        for y, rate in zip(at, found["failure_rate"], strict=True):
            if pd.notna(rate):
                ax.text(1.02, y, f"{100 * rate:.0f} %", color=style.on_white(colour), fontsize=5, va="center",
                        transform=ax.get_yaxis_transform(), gid="failure")  # fmt: skip
    ax.grid(True, axis="x")
    ax.set_axisbelow(True)
