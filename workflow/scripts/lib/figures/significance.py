"""Significance map: which pairs of methods are separated, in which direction, and how large the difference is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from lib.figures import style

TITLE = "Which pairs of methods are separated"
CAPTION = (
    "Each square compares the method of its column with the method of its row. A filled square is a pair that the "
    "deciding test separates (with a seed component, Holm over all pairs); blue says that the column's method has the "
    "higher mean Dice, orange that the row's has. The darker, the larger the effect size: the paired difference in units "
    "of its standard deviation over patients. An empty square is a pair that is not separated, which does not make the "
    "two methods equal. With up to eight methods the upper half gives the difference in mean Dice and its unadjusted "
    "95 % interval."
)

FEW = 8  # methods of which the differences fit as numbers
HUES = LinearSegmentedColormap.from_list("direction", ["#8f3b00", "#d98a4e", "#f7ede4", "#e6eef5", "#5b94bd", "#17507c"])


def draw(comparisons: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """One panel per dataset × condition × protocol.

    comparisons: all pairs by the primary metric (method_a, method_b, difference a − b, low, high, effect_size,
    separated). ranking: gives the order of the methods and n.
    """
    panels = style.situations(comparisons)
    if not panels:
        return style.notice("Significance map: there are no two methods to compare.")
    orders = [_order(style.at(comparisons, panel), style.ranked(ranking, panel)) for panel in panels]
    heights = [18 + _side(len(order)) * len(order) for order in orders]
    figure = style.figure(style.TWO_COLUMNS, (22 + sum(heights)) * style.MM)
    *blocks, foot = figure.subfigures(len(panels) + 1, 1, height_ratios=[*heights, 22])
    effects = comparisons.loc[comparisons["separated"].astype(bool), "effect_size"].abs()
    finite = effects[np.isfinite(effects)]
    limit = float(np.quantile(finite, 0.95)) if len(finite) else 1.0
    colours = ScalarMappable(Normalize(-limit, limit), HUES)
    for block, panel, order in zip(blocks, panels, orders, strict=True):
        pairs = style.at(comparisons, panel)
        _panel(block.subplots(), pairs, order, colours)
        text = f"{int(pairs['separated'].astype(bool).sum())} of {len(pairs)} pairs separated"
        title = f"{style.title_with_n(panel, style.ranked(ranking, panel))} · {text}"
        block.suptitle(title, x=0.01, ha="left", fontsize=7.5)
    _key(foot, colours, any_separated=len(finite) > 0)
    return figure


def _order(pairs: pd.DataFrame, ranked: pd.DataFrame) -> list[str]:
    compared = {*pairs["method_a"], *pairs["method_b"]}
    return [method for method in ranked["method"] if method in compared]


def _side(n: int) -> float:
    """Height of a row in mm."""
    return 9.0 if n <= FEW else max(3.2, min(6.0, 130 / n))


def _panel(ax: Axes, pairs: pd.DataFrame, order: list[str], colours: ScalarMappable) -> None:
    place = {method: k for k, method in enumerate(order)}
    few = len(order) <= FEW
    for pair in pairs.to_dict("records"):
        a, b = place[pair["method_a"]], place[pair["method_b"]]
        sign = 1 if a < b else -1
        column, row = min(a, b), max(a, b)
        difference, low, high = sign * pair["difference"], *sorted((sign * pair["low"], sign * pair["high"]))
        box = {"xy": (column - 0.46, row - 0.46), "width": 0.92, "height": 0.92}
        if pair["separated"]:
            effect = np.sign(difference) * abs(np.nan_to_num(pair["effect_size"], posinf=1e9))
            face = colours.to_rgba(effect)
            ax.add_patch(Rectangle(**box, facecolor=face, edgecolor="none", gid="separated"))
            if few:
                ink = "white" if style.luminance(face) < 0.2 else style.INK
                ax.text(column, row, style.signed(effect, 1), ha="center", va="center", fontsize=6.5, color=ink)
        else:
            ax.add_patch(Rectangle(**box, facecolor="white", edgecolor=style.FAINT, linewidth=0.5, gid="not separated"))
        if few:
            # the column's method stands below the diagonal on the left: read the same pair mirrored
            weight = "bold" if pair["separated"] else "normal"
            colour = style.INK if pair["separated"] else style.MUTED
            ax.text(row, column - 0.17, style.signed(difference), ha="center", va="center", fontsize=6.5,
                    fontweight=weight, color=colour)  # fmt: skip
            if pd.notna(pair["low"]):
                interval = f"[{style.signed(low)}, {style.signed(high)}]"
                ax.text(row, column + 0.2, interval, ha="center", va="center", fontsize=5, color=colour)
    for k in range(len(order)):
        ax.add_patch(Rectangle((k - 0.46, k - 0.46), 0.92, 0.92, facecolor="#eceff2", edgecolor="none"))
        ax.text(k, k, str(k + 1), ha="center", va="center", fontsize=6.5 if few else 5, color=style.MUTED)
    n = len(order)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.set_yticks(range(n), [f"{style.wrapped(method, 36)}  {k + 1}" for k, method in enumerate(order)])
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _key(foot, colours: ScalarMappable, any_separated: bool) -> None:
    """What the squares mean, left; the colour bar, right, where a pair is separated."""
    left, right = foot.subfigures(1, 2, width_ratios=[1, 1])
    handles = [Patch(facecolor="white", edgecolor=style.MUTED, linewidth=0.5, label="not separated (not: equal)")]
    if any_separated:
        handles.insert(0, Patch(facecolor=HUES(0.9), label="separated, the column's method has the higher mean"))
        handles.insert(1, Patch(facecolor=HUES(0.1), label="separated, the row's method has the higher mean"))
        bar = foot.colorbar(colours, cax=right.add_axes((0.12, 0.55, 0.8, 0.16)), orientation="horizontal", extend="both")
        bar.outline.set_visible(False)
        bar.set_label("effect size: difference ÷ its SD over patients")
    left.legend(handles=handles, loc="center left")
