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
    "higher mean Dice, hatched orange that the row's has. The darker, the larger the effect size, which the number "
    "gives: the paired difference in units of its standard deviation over patients. An empty square is a pair that is "
    "not separated, which does not make the two methods equal. With up to eight methods the upper half gives the "
    "difference in mean Dice, the row's method minus the column's, and its 95 % interval, which is not adjusted for "
    "the number of pairs."
)

FEW = 8  # methods of which the differences fit as numbers
COLUMN, ROW = (  # the palest colour is still not white, so that a small difference that is real is seen
    LinearSegmentedColormap.from_list(name, colours)
    for name, colours in (("column", ["#a9cbe3", "#4f8dba", "#123f63"]), ("row", ["#f2c9a5", "#d0813f", "#7a3200"]))
)


def draw(comparisons: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """One panel per dataset × condition × protocol.

    comparisons: all pairs by the primary metric (method_a, method_b, difference a − b, low, high, effect_size,
    separated). ranking: gives the order of the methods and n.
    """
    panels = style.situations(comparisons)
    if not panels:
        return style.notice("Significance map: there are no two methods to compare.")
    orders = [_order(style.at(comparisons, panel), style.ranked(ranking, panel)) for panel in panels]
    _, height = style.row_labels([method for order in orders for method in order])
    heights = [10 + (max(9.0, height) if len(order) <= FEW else height) * len(order) for order in orders]
    figure = style.figure(style.TWO_COLUMNS, (22 + sum(heights)) * style.MM)
    *blocks, foot = figure.subfigures(len(panels) + 1, 1, height_ratios=[*heights, 22])
    effects = comparisons.loc[comparisons["separated"].astype(bool), "effect_size"].abs()
    finite = effects[np.isfinite(effects)]
    limit = max(1.0, float(np.ceil(np.quantile(finite, 0.95)))) if len(finite) else 1.0
    colours = {sign: ScalarMappable(Normalize(0, limit), hues) for sign, hues in ((1, COLUMN), (-1, ROW))}
    signs = set()
    for block, panel, order in zip(blocks, panels, orders, strict=True):
        pairs = style.at(comparisons, panel)
        signs |= _panel(block.subplots(), pairs, order, colours)
        rows = style.ranked(ranking, panel)
        text = f"{int(pairs['separated'].astype(bool).sum())} of {len(pairs)} pairs separated"
        few_seeds = "" if rows["seeds_enough"].astype(bool).any() else " (fewer than 3 seeds)"
        title = f"{style.title_with_n(panel, rows)} · {text}{few_seeds}"
        block.suptitle(title, x=0.01, ha="left", fontsize=7.5)
    _key(foot, colours, signs, few=any(len(order) <= FEW for order in orders))
    return figure


def _order(pairs: pd.DataFrame, ranked: pd.DataFrame) -> list[str]:
    compared = {*pairs["method_a"], *pairs["method_b"]}
    return [method for method in ranked["method"] if method in compared]


def _panel(ax: Axes, pairs: pd.DataFrame, order: list[str], colours: dict[int, ScalarMappable]) -> set[int]:
    """Draws the pairs; returns the directions that occur among the separated ones."""
    place = {method: k for k, method in enumerate(order)}
    few = len(order) <= FEW
    signs = set()
    for pair in pairs.to_dict("records"):
        a, b = place[pair["method_a"]], place[pair["method_b"]]
        flip = 1 if a < b else -1
        column, row = min(a, b), max(a, b)  # the column's method ranks before the row's
        difference, low, high = flip * pair["difference"], *sorted((flip * pair["low"], flip * pair["high"]))
        sign = 1 if difference >= 0 else -1
        box = {"xy": (column - 0.46, row - 0.46), "width": 0.92, "height": 0.92}
        if pair["separated"]:
            signs.add(sign)
            effect = abs(np.nan_to_num(pair["effect_size"], posinf=1e9, neginf=-1e9))
            face = colours[sign].to_rgba(effect)
            hatch = {} if sign > 0 else {"hatch": "////", "edgecolor": "white", "linewidth": 0}
            ax.add_patch(Rectangle(**box, facecolor=face, gid="separated", **hatch))
            if few:
                look = {"fontsize": 6.5, "color": "white" if style.luminance(face) < 0.2 else style.INK}
                background = {"facecolor": face, "edgecolor": "none", "pad": 1}
                ax.text(column, row, f"{effect:.1f}", ha="center", va="center", bbox=background, **look)
        else:
            ax.add_patch(Rectangle(**box, facecolor="white", edgecolor=style.FAINT, linewidth=0.5, gid="not separated"))
        if few:  # the same pair, mirrored
            look = {"ha": "center", "va": "center", "color": style.INK if pair["separated"] else style.MUTED}
            weight = "bold" if pair["separated"] else "normal"
            ax.text(row, column - 0.17, style.signed(difference), fontsize=6.5, fontweight=weight, **look)
            if pd.notna(low):
                ax.text(row, column + 0.2, f"[{style.signed(low)}, {style.signed(high)}]", fontsize=5, **look)
    n = len(order)
    for k in range(n):
        ax.add_patch(Rectangle((k - 0.46, k - 0.46), 0.92, 0.92, facecolor="#eceff2", edgecolor="none"))
        ax.text(k, k, str(k + 1), ha="center", va="center", fontsize=6.5 if few else 5, color=style.MUTED)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.set_yticks(range(n), [f"{label}  {k + 1}" for k, label in enumerate(style.row_labels(order)[0])])
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return signs


def _key(foot, colours: dict[int, ScalarMappable], signs: set[int], few: bool) -> None:
    """What the squares mean, left; the colours of the effect sizes, right."""
    left, right = foot.subfigures(1, 2, width_ratios=[1.15, 1])
    frame = {"facecolor": "white", "edgecolor": style.MUTED, "linewidth": 0.5}
    handles = [Patch(**frame, label="not separated (which is not “equal”)")]
    if -1 in signs:
        handles.insert(0, Patch(facecolor=ROW(0.6), hatch="////", edgecolor="white", linewidth=0,
                                label="separated, the row's method has the higher mean"))  # fmt: skip
    if 1 in signs:
        handles.insert(0, Patch(facecolor=COLUMN(0.6), label="separated, the column's method has the higher mean"))
    if few:
        text = f"above the diagonal: difference in mean {style.METRIC_NAMES[style.PRIMARY]}, row − column"
        handles.append(Patch(facecolor="none", edgecolor="none", label=f"{text} [95 % interval]"))
    left.legend(handles=handles, loc="center left")
    for k, sign in enumerate(sorted(signs, reverse=True)):
        box = right.add_axes((0.15, 0.62 - 0.24 * k, 0.78, 0.16))
        bar = right.colorbar(colours[sign], cax=box, orientation="horizontal", extend="max")
        bar.outline.set_visible(False)
        if k == len(signs) - 1:
            bar.set_label("effect size: |difference| ÷ its SD over patients")
        else:
            box.tick_params(bottom=False, labelbottom=False)
