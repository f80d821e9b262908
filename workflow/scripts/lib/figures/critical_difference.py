"""Critical-difference diagram: mean ranks over patients, with bars that join methods the rank test does not separate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style

TITLE = "Critical-difference diagram"
CAPTION = (
    "Mean rank of every method over patients (1 is best), as in Demšar (2006); a bar joins methods that the test on "
    "ranks does not separate. This diagram is descriptive: seeds are averaged before ranking, so luck in training is not "
    "in its test, and it may separate what the deciding test does not."
)

LEVEL = 3.4  # mm between the names


def draw(table: pd.DataFrame) -> Figure:
    """One panel per dataset × condition × protocol.

    table: critical_difference.csv; `groups` holds the numbers of the bars that a method belongs to.
    """
    table = table[(table["metric"] == style.PRIMARY) & table["mean_rank"].notna()]
    panels = style.situations(table)
    if not panels:
        return style.notice("Critical-difference diagram: fewer than two methods, or too few patients to rank on.")
    heights = [_height(style.at(table, panel)) for panel in panels]
    figure = style.figure(style.TWO_COLUMNS, sum(heights) * style.MM)
    blocks = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=heights))
    for block, panel, height in zip(blocks, panels, heights, strict=True):
        here = style.at(table, panel).sort_values(["mean_rank", "method"], kind="stable")
        _panel(block.add_axes((0, 0, 1, (height - 8) / height)), here, height - 8)
        block.suptitle(f"{style.situation_title(panel)}{_test(here)}", x=0.01, ha="left", fontsize=7.5)
    return figure


def _bars(rows: pd.DataFrame) -> list[tuple[float, float]]:
    """(lowest, highest mean rank) of every bar."""
    groups = rows["groups"].fillna("").astype(str).str.split().explode().dropna()
    spans = rows["mean_rank"].loc[groups.index].groupby(groups.to_numpy()).agg(["min", "max"])
    return sorted(spans.itertuples(index=False, name=None))


def _levels(bars: list[tuple[float, float]]) -> list[int]:
    """The line of each bar, so that bars on one line leave a gap."""
    ends: list[float] = []
    lines = []
    for low, high in bars:
        line = next((k for k, end in enumerate(ends) if low > end + 0.15), len(ends))
        ends[line : line + 1] = [high]
        lines.append(line)
    return lines


def _height(rows: pd.DataFrame) -> float:
    bars = max(_levels(_bars(rows)), default=-1) + 1
    return 8 + 11 + 2.0 * bars + 2 + LEVEL * -(-len(rows) // 2) + 2


def _test(rows: pd.DataFrame) -> str:
    parts = []
    if pd.notna(rows["p_friedman"].iloc[0]):
        p = rows["p_friedman"].iloc[0]
        parts.append("Friedman p " + ("< 0.001" if p < 0.001 else f"= {p:.3f}"))
    difference = rows["critical_difference"].iloc[0] if "critical_difference" in rows else None
    if isinstance(difference, float) and pd.notna(difference):
        parts.append(f"critical difference {difference:.2f}")
    elif isinstance(difference, str):
        parts.append(difference)
    return "".join(f" · {part}" for part in parts)


def _panel(ax: Axes, rows: pd.DataFrame, height: float) -> None:
    """Demšar's layout in mm: the axis above, bars under it, the names of the better half left, of the others right."""
    width = style.TWO_COLUMNS / style.MM
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    n = len(rows)
    half = -(-n // 2)
    left = 6 + max(_width(method) for method in rows["method"][:half])
    right = width - 6 - max([_width(method) for method in rows["method"][half:]], default=0)
    ranks = rows["mean_rank"].to_numpy(float)
    low, high = np.floor(ranks.min()), max(np.ceil(ranks.max()), np.floor(ranks.min()) + 1)

    def at(rank: float) -> float:
        return left + 4 + (rank - low) / (high - low) * (right - left - 8)

    axis = 8.0
    ax.plot([at(low), at(high)], [axis, axis], color=style.INK, linewidth=0.8)
    step = max(1, round((high - low) / 12))
    for tick in np.arange(low, high + 0.01, step):
        ax.plot([at(tick)] * 2, [axis - 1, axis], color=style.INK, linewidth=0.8)
        ax.text(at(tick), axis - 1.6, f"{tick:g}", ha="center", va="bottom", fontsize=6.5)
    ax.text((left + right) / 2, 0.2, "mean rank over patients (1 is best)", ha="center", va="top", fontsize=7)
    bars = _bars(rows)
    lines = _levels(bars)
    for (first, last), line in zip(bars, lines, strict=True):
        y = axis + 3 + 2.0 * line
        ax.plot([at(first) - 0.7, at(last) + 0.7], [y, y], color=style.INK, linewidth=2.2, solid_capstyle="butt",
                gid="bar", zorder=3)  # fmt: skip
    top = axis + 3 + 2.0 * (max(lines, default=-1) + 1) + 2
    for k, (method, rank) in enumerate(zip(rows["method"], ranks, strict=True)):
        on_left = k < half
        y = top + LEVEL * (k if on_left else n - 1 - k)
        end = left if on_left else right
        ax.plot([at(rank), at(rank), end], [axis, y, y], color=style.MUTED, linewidth=0.6, zorder=2)
        ax.scatter([at(rank)], [axis], s=9, color=style.BLUE, zorder=4, clip_on=False, gid="rank")
        label = f"{method}  {rank:.2f}" if on_left else f"{rank:.2f}  {method}"
        ax.text(end + (-1 if on_left else 1), y, label, ha="right" if on_left else "left", va="center", fontsize=6.5)


def _width(method: str) -> float:
    """Width in mm of a name and its rank at 6.5 points, generously."""
    return 1.42 * (len(method) + 6)
