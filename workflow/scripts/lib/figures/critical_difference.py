"""Critical-difference diagram: mean ranks over patients, and bars over methods that the rank test does not separate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style

TITLE = "Critical-difference diagram"
CAPTION = (
    "Mean rank of every method over patients (1 is best) after Demšar (2006), turned so that long names fit. A bar "
    "joins methods whose mean ranks differ by less than the critical difference (Nemenyi), so that their ranks do not "
    "separate them. This diagram is descriptive: seeds are averaged before ranking, so luck in training is not in its "
    "test, and it may separate what the deciding test does not."
)

BAR = 2.0  # mm between two bars


def draw(table: pd.DataFrame) -> Figure:
    """One panel per dataset × condition × protocol.

    table: critical_difference.csv; `groups` holds the numbers of the bars that a method belongs to.
    """
    table = table[(table["metric"] == style.PRIMARY) & table["mean_rank"].notna()]
    panels = style.situations(table)
    if not panels:
        return style.notice("Critical-difference diagram: fewer than two methods, or too few patients to rank on.")
    _, height = style.row_labels(list(table["method"].unique()))
    parts = [style.at(table, p).sort_values(["mean_rank", "method"], kind="stable", ignore_index=True) for p in panels]
    heights = [16 + height * len(rows) for rows in parts]
    figure = style.figure(style.TWO_COLUMNS, sum(heights) * style.MM)
    blocks = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=heights))
    for block, panel, rows in zip(blocks, panels, parts, strict=True):
        bars = bars_of(rows)
        n_lines = max(lines_of(bars), default=0) + 1
        left, right = block.subplots(1, 2, sharey=True, width_ratios=[120, max(20, BAR * n_lines)])
        _ranks(left, rows)
        _bars(right, bars, n_lines, len(rows))
        block.suptitle(f"{style.situation_title(panel)}{_test(rows)}", x=0.01, ha="left", fontsize=7.5)
    return figure


def bars_of(rows: pd.DataFrame) -> list[list[int]]:
    """The rows that each bar joins, from the top; rows are sorted by mean rank."""
    groups = rows["groups"].fillna("").astype(str).str.split().explode().dropna()
    return sorted(sorted(members) for members in groups.index.groupby(groups.to_numpy()).values() if len(members) > 1)


def lines_of(bars: list[list[int]]) -> list[int]:
    """The line of each bar: bars that share a row lie on different lines."""
    ends: list[int] = []
    lines = []
    for members in bars:
        line = next((k for k, end in enumerate(ends) if members[0] > end), len(ends))
        ends[line : line + 1] = [members[-1]]
        lines.append(line)
    return lines


def _test(rows: pd.DataFrame) -> str:
    """What the title says of the test."""
    first = rows.iloc[0]
    p = "< 0.001" if first["p_friedman"] < 0.001 else f"= {first['p_friedman']:.3f}"
    difference = f"critical difference {first['critical_difference']:.2f}"
    return f" · {int(first['n_patients'])} patients · Friedman p {p} · {difference}"


def _ranks(ax: Axes, rows: pd.DataFrame) -> None:
    n = len(rows)
    for y, rank in rows["mean_rank"].items():
        ax.plot([rank + 0.07 * n, 1.08 * n + 0.5], [y, y], color=style.FAINT, linewidth=0.5, zorder=0)
        ax.scatter([rank], [y], s=20, color=style.BLUE, zorder=3, gid="rank")
        ax.annotate(f"{rank:.2f}", (rank, y), (4.5, 0), textcoords="offset points", va="center", fontsize=6)
    style.method_axis(ax, style.row_labels(list(rows["method"]))[0])
    ax.set_xlim(0.5, 1.08 * n + 0.5)
    ax.set_xticks(style.rank_ticks(n))
    ax.set_xlabel("mean rank over patients (1 is best)")


def _bars(ax: Axes, bars: list[list[int]], n_lines: int, n: int) -> None:
    for y in range(n):
        ax.plot([-1, n_lines], [y, y], color=style.FAINT, linewidth=0.5, zorder=0)
    for members, line in zip(bars, lines_of(bars), strict=True):
        ax.plot([line, line], [members[0] - 0.18, members[-1] + 0.18], color=style.INK, linewidth=2.2,
                solid_capstyle="butt", gid="bar")  # fmt: skip
    ax.set_xlim(-1, max(n_lines, 20 / BAR))
    ax.text(
        -1, 1.0, "not separated\nby the rank test", transform=ax.get_xaxis_transform(), fontsize=5.5, color=style.MUTED
    )
    ax.set_axis_off()
