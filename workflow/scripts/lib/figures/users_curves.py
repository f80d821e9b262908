"""Interactive methods: Dice against the number of interactions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style
from lib.interactive import GROUPS

TITLE = "Dice against the number of interactions"
CAPTION = (
    "Mean Dice inside the box with its 95 % interval over patients and repeats after each mark of a simulated user, "
    "one row per user, for the structures that the network was trained on (seen) and for the others (unseen); 0 is "
    "the answer to the box alone. A session that has converged keeps its last value. Methods of one family share a "
    "panel; lines of the others are grey. A method that needs a first mark starts at 0; one that ignores marks has "
    "its interval once. Where intervals overlap, the order of two methods may be chance."
)
UNMOVED = 1e-9  # a curve that rises by less is that of a method that ignores marks


def draw(curves: pd.DataFrame, methods: list[str], families: dict[str, str]) -> Figure:
    """One block per dataset × condition × protocol: rows of robots, columns of seen and unseen in each family.

    curves: curves.csv of the interactive track. methods: in the order of the configuration, which fixes the looks.
    families: of each method, by which methods share panels.
    """
    if curves.empty:
        return style.notice("Interactions: no session has ended.")
    looks = style.lines(methods)
    names = list(dict.fromkeys(families[method] for method in methods))
    situations = style.situations(curves)
    robots = list(curves["robot"].unique())
    rows_of_key = max(-(-sum(families[m] == name for m in methods) // 2) for name in names)
    height = 8 + 44 * len(robots) + 4 * rows_of_key
    figure = style.figure(style.TWO_COLUMNS, height * len(situations) * style.MM)
    blocks = figure.subfigures(len(situations), 1, squeeze=False)[:, 0]
    for block, situation in zip(blocks, situations, strict=True):
        here = style.at(curves, situation)
        block.suptitle(style.title_with_n(situation, here), x=0.01, ha="left", fontsize=7.5)
        parts = block.subfigures(1, len(names), squeeze=False)[0]
        for part, name in zip(parts, names, strict=True):
            mine = [method for method in methods if families[method] == name]
            axes = part.subplots(len(robots), len(GROUPS), sharex=True, squeeze=False)
            for line, robot in zip(axes, robots, strict=True):
                for ax, group in zip(line, GROUPS, strict=True):
                    rows = here[(here["robot"] == robot) & (here["structure"] == group)]
                    _panel(ax, rows, mine, looks)
                    ax.set_title(f"{group}, {robot}", pad=3)
                line[0].set_ylabel("mean Dice")
            for ax in axes[-1]:
                ax.set_xlabel("interactions")
            handles = [ax_line for ax_line in axes[0, 0].get_lines() if ax_line.get_gid() == "curve"]
            part.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=2.6, columnspacing=1.2)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, mine: list[str], looks: dict) -> None:
    for method, points in rows.groupby("method", sort=False):
        if method not in mine:
            ax.plot(points["interactions"], points["mean"], color="#d9dde2", linewidth=0.8, zorder=0)
    step = 0.3 / max(1, len(mine))  # apart, so that no interval hides another
    for number, method in enumerate(mine):
        points = rows[rows["method"] == method]
        at = points["interactions"] + step * (number - (len(mine) - 1) / 2)
        with_interval = slice(1 if np.ptp(points["mean"]) < UNMOVED else None)  # once, where marks change nothing
        ax.vlines(at[with_interval], points["low"][with_interval], points["high"][with_interval],
                  color=looks[method]["color"], linewidth=0.7, zorder=1)  # fmt: skip
        ax.plot(at, points["mean"], linewidth=1.1, markersize=2.6, markevery=with_interval, zorder=2, gid="curve",
                label=method, **looks[method])  # fmt: skip
    least = rows["low"].min()
    ax.set_ylim(0 if np.isnan(least) else np.floor(10 * least) / 10, 1)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)
