"""Agreement: Kendall's τ between the ways to rank the same methods (scheme, metric, empty-mask policy)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.figures import style

TITLE = "Does the ranking depend on how one ranks?"
CAPTION = (
    "Kendall's τ between rankings of the same methods by different schemes, metrics and policies for empty masks: 1 is "
    "the same order, 0 no relation, −1 the reverse. Left: every ranking against the first, which decides, with the "
    "95 % interval. Right: all pairs; darker agrees more. A low τ among methods that are not separated says little, "
    "because their order is chance."
)

FEW = 12  # rankings of which τ fits as numbers


def draw(agreement: pd.DataFrame) -> Figure:
    """One block per dataset × condition × protocol.

    agreement: agreement.csv (ranking_a, ranking_b, kendall_tau, low, high).
    """
    panels = style.situations(agreement)
    if not panels:
        return style.notice("Agreement: fewer than two methods or rankings.")
    tables = [style.at(agreement, panel) for panel in panels]
    names = [list(dict.fromkeys([*table["ranking_a"], *table["ranking_b"]])) for table in tables]
    heights = [17 + (5.0 if len(order) <= FEW else 3.6) * len(order) for order in names]
    figure = style.figure(style.TWO_COLUMNS, (13 + sum(heights)) * style.MM)
    *blocks, foot = figure.subfigures(len(panels) + 1, 1, height_ratios=[*heights, 13])
    colours = ScalarMappable(Normalize(min(0.0, agreement["kendall_tau"].min()), 1), style.SEQUENTIAL)
    for block, panel, table, order in zip(blocks, panels, tables, names, strict=True):
        left, right = block.subplots(1, 2, sharey=True, width_ratios=[1, 1.1])
        _against_first(left, table, order)
        _matrix(right, table, order, colours)
        style.method_axis(left, [name.replace("_", " ") for name in order])
        block.suptitle(style.situation_title(panel), x=0.01, ha="left", fontsize=7.5)
    bar = foot.colorbar(colours, cax=foot.add_axes((0.62, 0.6, 0.34, 0.2)), orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_label("Kendall's τ")
    return figure


def _against_first(ax: Axes, table: pd.DataFrame, order: list[str]) -> None:
    first = table[(table["ranking_a"] == order[0]) | (table["ranking_b"] == order[0])]
    for row in first.to_dict("records"):
        y = order.index(row["ranking_b"] if row["ranking_a"] == order[0] else row["ranking_a"])
        if pd.notna(row["low"]):
            ax.plot([row["low"], row["high"]], [y, y], color=style.INK, linewidth=1, zorder=1, gid="interval")
        ax.scatter([row["kendall_tau"]], [y], s=14, color=style.BLUE, zorder=2, gid="tau")
    ax.text(1, 0, "reference", ha="right", va="center", fontsize=6, color=style.MUTED)
    ax.set_xlim(min(0.0, first[["low", "kendall_tau"]].min().min()) - 0.03, 1.03)
    ax.set_xlabel("Kendall's τ with the first ranking")


def _matrix(ax: Axes, table: pd.DataFrame, order: list[str], colours: ScalarMappable) -> None:
    for row in table.to_dict("records"):
        a, b = sorted((order.index(row["ranking_a"]), order.index(row["ranking_b"])))
        if pd.isna(row["kendall_tau"]):
            continue
        face = colours.to_rgba(row["kendall_tau"])
        ax.add_patch(Rectangle((a - 0.48, b - 0.46), 0.96, 0.92, facecolor=face, edgecolor="none", gid="pair"))
        if len(order) <= FEW:
            ink = "white" if style.luminance(face) < 0.2 else style.INK
            text = f"{row['kendall_tau']:.2f}".replace("-", "−")
            ax.text(a, b, text, ha="center", va="center", fontsize=6, color=ink)
    for k in range(len(order)):
        ax.add_patch(Rectangle((k - 0.48, k - 0.46), 0.96, 0.92, facecolor="#eceff2", edgecolor="none"))
        if len(order) <= 2 * FEW:
            ax.text(k, k, str(k + 1), ha="center", va="center", fontsize=5.5, color=style.MUTED)
    ax.set_xlim(-0.5, len(order) - 0.5)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(f"ranking 1 to {len(order)}, in the order of the rows")
