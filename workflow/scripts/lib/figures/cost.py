"""Score against cost: mean Dice over parameters, FLOPs, training time and energy, with the Pareto front."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from lib.figures import style

TITLE = "What the score costs"
CAPTION = (
    "Mean Dice with its 95 % interval against the size of the network, the operations of one forward pass, and the "
    "time and energy of one training (mean over folds and seeds), on logarithmic axes. Filled marks joined by the "
    "line are the Pareto front of the means: no other method has a higher mean at no higher cost. The front knows "
    "nothing of intervals; whether two methods on it are separated is in the significance map. Numbers follow the "
    "rank, colours stand for architectures (seven, then again), shapes for losses. Times and energy compare only on "
    "equal machines."
)


def draw(ranking: pd.DataFrame, ledger: pd.DataFrame) -> Figure:
    """One row of panels per dataset × condition × protocol; one panel per kind of cost that is known."""
    looks = style.looks(list(ledger["method"].unique()))
    panels = [panel for panel in style.situations(ledger) if len(style.ranked(ranking, panel).dropna(subset="mean"))]
    if not panels:
        return style.notice("Score against cost: no method was scored.")
    tables = [_table(style.ranked(ranking, panel), style.at(ledger, panel)) for panel in panels]
    columns = [column for column in COSTS if any(table[column].notna().any() for table in tables)]
    if not columns:
        return style.notice("Score against cost: no method has a known cost; external predictions bring none.")
    keys = [_key(table, looks) for table in tables]
    heights = [70 + 3.3 * -(-len(names) // n_columns) for _, names, n_columns in keys]
    figure = style.figure(style.TWO_COLUMNS, sum(heights) * style.MM)
    blocks = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=heights))
    drawn = []
    for block, panel, table, (handles, names, n_columns) in zip(blocks, panels, tables, keys, strict=True):
        axes = block.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for ax, column in zip(axes, columns, strict=True):
            drawn.append((ax, *_panel(ax, table, column, looks, _devices(style.at(ledger, panel)))))
        axes[0].set_ylabel(f"mean {style.METRIC_NAMES[style.PRIMARY]}")
        block.legend(handles=handles, labels=names, loc="outside lower left", ncols=n_columns, handletextpad=0.3)
        block.suptitle(style.title_with_n(panel, table), x=0.01, ha="left", fontsize=7.5)
    figure.draw_without_rendering()
    for ax, labels, points in drawn:
        style.label_points(ax, labels, points)
    return figure


# column of the table: axis label, and the unit's size
COSTS = {
    "parameters": ("parameters", 1),
    "flops": ("FLOPs of a forward pass, one patch", 1),
    "gpu_hours": ("GPU-hours per training", 1),
    "wall_seconds": ("minutes per training", 60),
    "energy_kwh": ("energy per training, Wh", 1e-3),
}


def _table(ranked: pd.DataFrame, ledger: pd.DataFrame) -> pd.DataFrame:
    """The ranked methods with their costs; NaN where unknown. GPU-hours stand for the time where there was a GPU."""
    done = ledger[ledger["state"] == "ok"]
    costs = done.groupby("method")[list(COSTS)].mean()
    costs = costs.where(costs > 0)
    table = ranked.dropna(subset="mean").merge(costs, left_on="method", right_index=True, how="left")
    time = "wall_seconds" if table["gpu_hours"].notna().any() else "gpu_hours"
    return table.assign(number=range(1, len(table) + 1), **{time: np.nan})


def _devices(ledger: pd.DataFrame) -> str:
    devices = [device for device in ledger["device"].dropna().unique() if device]
    return devices[0] if len(devices) == 1 else f"on {len(devices)} kinds of device"


def _key(table: pd.DataFrame, looks: dict) -> tuple[list[Line2D], list[str], int]:
    unknown = table[list(COSTS)].isna().all(axis=1)
    names = [
        f"{number} {method}" + (" (cost unknown)" if lacks else "")
        for number, method, lacks in zip(table["number"], table["method"], unknown, strict=True)
    ]
    handles = [
        Line2D([], [], linestyle="none", marker=looks[m]["marker"], color=looks[m]["color"], markersize=4.5)
        for m in table["method"]
    ]
    return handles, names, max(1, min(4, int(176 / (1.28 * max(map(len, names)) + 6))))


def _panel(ax: Axes, table: pd.DataFrame, column: str, looks: dict, device: str) -> tuple[list[str], np.ndarray]:
    """Draws the known methods; returns their numbers and points, to be labelled once the layout is fixed."""
    label, size = COSTS[column]
    known = table.dropna(subset=column)
    cost, mean = known[column].to_numpy(float) / size, known["mean"].to_numpy(float)
    front = pareto(cost, mean)
    order = front[np.argsort(cost[front], kind="stable")]
    ax.step(cost[order], mean[order], where="post", color=style.MUTED, linewidth=0.9, zorder=1, gid="front")
    for k, row in enumerate(known.to_dict("records")):
        look = looks[row["method"]]
        ax.plot([cost[k]] * 2, [row["low"], row["high"]], color="#c3c9d0", linewidth=0.9, zorder=0, gid="interval")
        face = look["color"] if k in front else "white"
        ax.plot([cost[k]], [mean[k]], marker=look["marker"], markersize=4.6, markerfacecolor=face,
                markeredgecolor=look["color"], markeredgewidth=1, linestyle="none", zorder=3, gid="method")  # fmt: skip
    ax.set_xscale("log")
    if len(cost):
        span = max(cost.max() / cost.min(), 4.0)
        middle, half = np.sqrt(cost.max() * cost.min()), np.sqrt(span) * span**0.12
        ax.set_xlim(middle / half, middle * half)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 30 else (1,)))
    ax.xaxis.set_major_formatter(EngFormatter(sep="") if column in ("parameters", "flops") else "{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    on = f"\n{style.wrapped(device, 34)}" if column in ("gpu_hours", "wall_seconds", "energy_kwh") else ""
    ax.set_xlabel(label + on)
    ax.grid(True, axis="both")
    ax.set_axisbelow(True)
    return known["number"].astype(str).tolist(), np.column_stack((cost, mean))


def pareto(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Positions of the points that no other dominates: score at least as high, cost no higher, one of them strictly."""
    no_worse = (cost[:, None] <= cost) & (score[:, None] >= score)
    strictly = (cost[:, None] < cost) | (score[:, None] > score)
    return np.flatnonzero(~(no_worse & strictly).any(axis=0))
