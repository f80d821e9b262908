"""Seed variance: the mean score of every single training, and the standard deviation between trainings."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures import style

TITLE = "How much luck is in one training"
CAPTION = (
    "Left: a mark is one training, its mean Dice over the patients of its test fold; folds have their own marks and "
    "lines, because they test different patients. The spread of one kind of mark along its line is luck in training. "
    "Right: the standard deviation between trainings that differ in their seed alone, with its 95 % interval where "
    "there is one; a difference between two methods that is no larger can turn round with the next seed."
)


def draw(scores: pd.DataFrame, components: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """One row of two panels per dataset × condition × protocol.

    scores: scores.csv. components: components.csv (sd_training of the mean over structures). ranking: gives the order
    of the methods and n. Trainings that failed are counted, not drawn.
    """
    trainings = _trainings(scores[scores["metric"] == style.PRIMARY])
    if not trainings["mean"].notna().any():
        return style.notice("Seed variance: no training was scored.")
    deviations = components[(components["metric"] == style.PRIMARY) & (components["structure"] == "mean")]
    panels = style.situations(trainings)
    orders = [_order(style.at(trainings, panel), style.ranked(ranking, panel)) for panel in panels]
    _, height = style.row_labels([method for order in orders for method in order])
    folds = sorted(trainings["fold"].unique())
    height = max(height, 1.3 * len(folds) + 1.2)
    heights = [17 + height * len(order) for order in orders]
    figure = style.figure(style.TWO_COLUMNS, (7 + sum(heights)) * style.MM)
    *blocks, foot = figure.subfigures(len(panels) + 1, 1, height_ratios=[*heights, 7])
    for block, panel, order in zip(blocks, panels, orders, strict=True):
        left, right = block.subplots(1, 2, sharey=True, width_ratios=[2.2, 1])
        _points(left, style.at(trainings, panel), order, folds)
        _deviations(right, style.at(deviations, panel), order)
        names = [_with_failures(method, style.at(trainings, panel)) for method in order]
        style.method_axis(left, style.row_labels(names)[0])
        block.suptitle(style.title_with_n(panel, style.ranked(ranking, panel)), x=0.01, ha="left", fontsize=7.5)
    handles = [
        Line2D([], [], linestyle="none", label=f"fold {fold}", markersize=3.6, **_mark(k))
        for k, fold in enumerate(folds)
    ]
    foot.legend(handles=handles, loc="center", ncols=min(len(handles), 10))
    return figure


def _trainings(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per training: the mean over patients of the mean over their cases and structures; NaN if it failed."""
    keys = ["dataset", "condition", "protocol", "method", "fold", "seed"]
    alive = scores.assign(value=scores["value"].where(scores["status"] != "failed"))
    cases = alive.groupby([*keys, "patient", "case"], sort=False)["value"].mean()
    patients = cases.groupby([*keys, "patient"], sort=False).mean()
    return patients.groupby(keys, sort=False).mean().rename("mean").reset_index()


def _order(trainings: pd.DataFrame, ranked: pd.DataFrame) -> list[str]:
    present = trainings["method"].unique()
    return [*(m for m in ranked["method"] if m in present), *sorted(set(present) - set(ranked["method"]))]


def _mark(k: int) -> dict:
    """Marker of a fold: shapes in turn, first filled, then hollow."""
    hollow = k // len(style.MARKERS) % 2
    face = "white" if hollow else style.BLUE
    edge = {"markeredgecolor": style.INK, "markeredgewidth": 0.4}
    return {"marker": style.MARKERS[k % len(style.MARKERS)], "markerfacecolor": face, **edge}


def _with_failures(method: str, trainings: pd.DataFrame) -> str:
    failed = trainings.loc[trainings["method"] == method, "mean"].isna()
    return f"{method} ({failed.sum()} of {len(failed)} failed)" if failed.any() else method


def _points(ax: Axes, trainings: pd.DataFrame, order: list[str], folds: list[int]) -> None:
    step = 0.72 / len(folds)
    for y, method in enumerate(order):
        mine = trainings[trainings["method"] == method]
        for k, fold in enumerate(folds):
            values = mine.loc[mine["fold"] == fold, "mean"].dropna()
            at = y + (k - (len(folds) - 1) / 2) * step
            if len(values):
                ax.plot([values.min(), values.max()], [at, at], color="#9db4c6", linewidth=0.8, zorder=1)
            ax.plot(values, [at] * len(values), linestyle="none", markersize=3.4, zorder=2, gid="trainings", **_mark(k))
    ax.set_xlabel(f"mean {style.METRIC_NAMES[style.PRIMARY]} of one training")


def _deviations(ax: Axes, components: pd.DataFrame, order: list[str]) -> None:
    for y, method in enumerate(order):
        for row in components[components["method"] == method].to_dict("records"):
            if pd.notna(row.get("sd_training_low")):
                ends = [row["sd_training_low"], row["sd_training_high"]]
                ax.plot(ends, [y, y], color=style.INK, linewidth=1, zorder=1, gid="interval")
            if pd.notna(row["sd_training"]):
                ax.scatter([row["sd_training"]], [y], s=14, color=style.INK, zorder=2, gid="sd")
    if not ax.collections:
        ax.text(0.5, 0.5, "unknown: one seed", transform=ax.transAxes, ha="center", va="center", color=style.MUTED)
        ax.set_xticks([])
    ax.set_xlim(left=0)
    ax.margins(x=0.08)
    ax.set_xlabel("SD between trainings")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(True, axis="x")
    ax.set_axisbelow(True)
