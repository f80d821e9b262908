"""Consensus: the rank of every method over all datasets together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures import style

TITLE = "One ranking over all datasets"
CAPTION = (
    "Mean rank of every method over the datasets (1 is best) with its 95 % interval; grey ticks are its ranks on the "
    "single datasets. Ranks throw away by how much methods differ; where intervals overlap, the order may be chance."
)


def draw(consensus: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """One panel per condition × protocol. ranking: gives the ranks on the single datasets."""
    table = consensus[consensus["metric"] == style.PRIMARY]
    panels = list(table[["condition", "protocol"]].drop_duplicates().itertuples(index=False, name=None))
    if not panels:
        return style.notice("Consensus: a ranking over datasets needs two datasets with the same methods.")
    _, height = style.row_labels(list(table["method"].unique()))
    counts = [((table["condition"] == c) & (table["protocol"] == p)).sum() for c, p in panels]
    heights = [16 + height * n for n in counts]
    figure = style.figure(style.TWO_COLUMNS, sum(heights) * style.MM)
    blocks = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=heights))
    for block, (condition, protocol) in zip(blocks, panels, strict=True):
        rows = table[(table["condition"] == condition) & (table["protocol"] == protocol)]
        single = ranking[(ranking["condition"] == condition) & (ranking["protocol"] == protocol)]
        single = single[(single["structure"] == "mean") & (single["metric"] == style.PRIMARY)]
        _panel(block.subplots(), rows.sort_values(["rank", "method"], kind="stable").reset_index(drop=True), single)
        title = f"{condition} · {protocol} protocol · {int(rows['n_datasets'].max())} datasets"
        block.suptitle(title, x=0.01, ha="left", fontsize=7.5)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, single: pd.DataFrame) -> None:
    for y, row in rows.iterrows():
        ranks = single.loc[single["method"] == row["method"], "rank"].dropna().astype(float)
        ax.scatter(ranks, [y] * len(ranks), s=34, marker="|", color="#8d949c", linewidth=1, zorder=1, gid="single")
        if pd.notna(row["low"]):
            ax.plot([row["low"], row["high"]], [y, y], color=style.INK, linewidth=1.1, zorder=2, gid="interval")
        ax.scatter([row["mean_rank"]], [y], s=18, color=style.BLUE, zorder=3, gid="mean")
        if pd.notna(row["p_best"]):
            ax.text(1.01, y, f"{row['p_best']:.2f}", transform=ax.get_yaxis_transform(), va="center", fontsize=6.5)
    if rows["p_best"].notna().any():
        ax.text(1.01, 1.01, "P(best)", transform=ax.transAxes, va="bottom", fontsize=6.5, color=style.MUTED)
    style.method_axis(ax, style.row_labels([_name(row, rows["n_datasets"].max()) for _, row in rows.iterrows()])[0])
    ax.set_xlim(0.5, len(rows) + 0.5)
    ax.set_xlabel("rank, mean over datasets (1 is best)")


def _name(row: pd.Series, n_datasets: int) -> str:
    """The method, and on how many datasets it was ranked if that is why it has no mean rank."""
    lacking = pd.isna(row["mean_rank"]) and row["n_datasets"] < n_datasets
    return f"{row['method']} (ranked on {row['n_datasets']} of {n_datasets})" if lacking else row["method"]
