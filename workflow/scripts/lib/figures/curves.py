"""Learning curves: training loss and validation Dice against the iteration, one column per loss function."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from lib.figures import style

TITLE = "Learning curves"
CAPTION = (
    "Thin lines are single trainings, thick lines their mean. Training losses of different loss functions have "
    "different scales, so each has its own panel; validation Dice shares one axis, with the methods of the other "
    "panels in grey. A validation curve that still rises at its end says that the budget was short."
)


def draw(curves: pd.DataFrame, architectures: list[str]) -> Figure:
    """Two rows of panels per dataset × condition × protocol: training loss above, validation Dice below.

    curves: cell columns (method, architecture, loss, fold, seed, ...) and iteration, training_loss,
    validation_dice. architectures: their order, which fixes their colours. Values of different loss functions
    cannot be compared, so each loss has its own panel and axis; the Dice panels share one axis. Thin lines
    are cells (fold × seed), thick lines their mean, grey lines the means of the methods with other losses.
    """
    if curves.empty:
        return style.notice("Learning curves: no cell has been trained.")
    per_row = 4
    rows = []
    for panel in style.situations(curves):
        losses = list(style.at(curves, panel)["loss"].unique())
        rows += [(panel, losses[k : k + per_row]) for k in range(0, len(losses), per_row)]
    columns = max(len(losses) for _, losses in rows)
    shown = [a for a in architectures if a in set(curves["architecture"])]
    names = max(len(name) for name in [*shown, "other losses"])
    per_line = max(1, min(len(shown) + 1, int(176 / (1.3 * names + 9))))
    key = 4 + 3.3 * -(-(len(shown) + 1) // per_line)
    figure = style.figure(style.TWO_COLUMNS, (key + 76 * len(rows)) * style.MM)
    *blocks, foot = figure.subfigures(len(rows) + 1, 1, height_ratios=[76] * len(rows) + [key])
    looks = style.lines(architectures)
    for block, (panel, losses) in zip(blocks, rows, strict=True):
        here = style.at(curves, panel)
        axes = block.subplots(2, columns, sharex=True, squeeze=False)
        for upper, lower in axes[:, len(losses) :].T:
            upper.set_axis_off()
            lower.set_axis_off()
        for j, loss in enumerate(losses):
            upper, lower = axes[:, j]
            for other in here.loc[here["loss"] != loss, "method"].unique():
                mean = _mean(here[here["method"] == other], "validation_dice")
                lower.plot(mean.index, mean, color="#c3c9d0", linewidth=0.9, zorder=0)
            chosen = here[here["loss"] == loss]
            for architecture in chosen["architecture"].unique():
                cells = chosen[chosen["architecture"] == architecture]
                _lines(upper, cells, "training_loss", looks[architecture])
                _lines(lower, cells, "validation_dice", looks[architecture])
            upper.set_title(style.wrapped(loss, 26))
            lower.set_xlabel("iteration")
            losses_seen = chosen["training_loss"].dropna()
            if losses_seen.gt(0).all():
                upper.set_yscale("log")
                narrow = len(losses_seen) and losses_seen.max() < 8 * losses_seen.min()
                upper.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6) if narrow else (1, 2, 5)))
                upper.yaxis.set_major_formatter("{x:g}")
                upper.yaxis.set_minor_formatter(NullFormatter())
        _share_dice(axes[1, : len(losses)], here)
        axes[0, 0].set_ylabel("training loss")
        axes[1, 0].set_ylabel("validation Dice")
        block.suptitle(style.situation_title(panel), x=0.01, ha="left", fontsize=7.5)
    handles = [
        Line2D([], [], label=a, color=looks[a]["color"], linestyle=looks[a]["linestyle"], linewidth=1.6) for a in shown
    ]
    handles.append(Line2D([], [], label="other losses", color="#c3c9d0", linewidth=1.6))
    foot.legend(handles=handles, loc="center", ncols=per_line)
    return figure


def _mean(cells: pd.DataFrame, column: str) -> pd.Series:
    """Mean over cells at each iteration that at least half of them reached, so that a cell that stopped early
    does not bend the end of the line. Between its rows a cell has the values of its line: budgets in epochs or minutes
    give cells different rows."""
    each = [cell.set_index("iteration")[column] for _, cell in cells.dropna(subset=[column]).groupby(["fold", "seed"])]
    if not each:
        return pd.Series(dtype=float)
    lines = pd.concat(each, axis=1).sort_index().interpolate(method="index", limit_area="inside")
    return lines.mean(axis=1)[lines.count(axis=1) * 2 >= cells[["fold", "seed"]].drop_duplicates().shape[0]]


def _lines(ax: Axes, cells: pd.DataFrame, column: str, look: dict) -> None:
    for _, cell in cells.dropna(subset=[column]).groupby(["fold", "seed"]):
        ax.plot(
            cell["iteration"],
            cell[column],
            color=look["color"],
            linewidth=0.5,
            alpha=0.35,
            zorder=1,
            gid="cell",
        )
    mean = _mean(cells, column)
    ax.plot(
        mean.index,
        mean,
        color=look["color"],
        linestyle=look["linestyle"],
        linewidth=1.6,
        zorder=2,
        gid="mean",
    )
    ax.grid(True, axis="y")
    ax.set_axisbelow(True)


def _share_dice(axes: np.ndarray, here: pd.DataFrame) -> None:
    """One Dice axis for all panels of a situation, labelled at the left only."""
    top = here["validation_dice"].max()
    for ax in axes:
        ax.set_ylim(0, 1 if pd.isna(top) else min(1, np.ceil(top * 10 + 0.5) / 10))
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)
