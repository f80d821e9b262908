"""Forest plot: what each claim's paper published against what was measured here."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures import style

TITLE = 'Published against measured'
CAPTION = (
    "A dot with its 95 % interval is the difference measured here, treatment minus control; a diamond is the one the "
    "paper published. A hollow dot is undecided: the interval allows both directions, or there were too few seeds. A "
    "diamond outside the interval means that the published size was not met under this budget."
)

DECIDED = ("reproduced", "smaller", "not reproduced")


def draw(claims: pd.DataFrame) -> Figure:
    """One panel per metric (their units differ), one row per claim and situation; verdicts stand beside."""
    if claims.empty:
        return style.notice("Claims: this experiment tests none.")
    metrics = list(claims["metric"].unique())
    groups = [claims[claims["metric"] == metric].reset_index(drop=True) for metric in metrics]
    counts = [len(group) for group in groups]
    figure = style.figure(style.TWO_COLUMNS, (14 + sum(15 + 11.5 * n for n in counts)) * style.MM)
    axes = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": [n + 0.6 for n in counts]})
    several = len(style.situations(claims)) > 1
    for ax, metric, group in zip(axes[:, 0], metrics, groups, strict=True):
        _panel(ax, group, style.METRIC_NAMES.get(metric, metric), several)
    handles = [
        Line2D([], [], color=style.INK, marker="o", markersize=4.5, label="measured, 95 % interval"),
        Line2D(
            [],
            [],
            color=style.MUTED,
            marker="o",
            markersize=4.5,
            markerfacecolor="white",
            label="measured, undecided",
        ),
        Line2D([], [], color="#D55E00", marker="D", markersize=4.5, linestyle="none", label="published"),
    ]
    if claims["margin"].fillna(0).ne(0).any():
        handles.append(
            Line2D([], [], color=style.INK, linewidth=0.9, linestyle=":", label="smallest gain that matters")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _panel(ax: Axes, claims: pd.DataFrame, metric: str, several: bool) -> None:
    labels = []
    for y, row in claims.iterrows():
        decided = row["verdict"] in DECIDED
        colour = style.INK if decided else style.MUTED
        if pd.notna(row["margin"]) and row["margin"] > 0:
            margin = -row["margin"] if row["metric"] in style.LOWER else row["margin"]
            ax.plot([margin, margin], [y - 0.35, y + 0.35], color=style.INK, linewidth=0.9, linestyle=":", zorder=1)
        if pd.notna(row["low"]) and pd.notna(row["high"]):
            ax.plot(
                [row["low"], row["high"]],
                [y, y],
                color=colour,
                linewidth=1.5,
                solid_capstyle="butt",
                zorder=2,
            )
        if pd.notna(row["difference"]):
            face = colour if decided else "white"
            ax.scatter(
                [row["difference"]],
                [y],
                s=26,
                color=face,
                edgecolor=colour,
                linewidth=1.1,
                zorder=3,
                gid="measured",
            )
        if pd.notna(row["published_difference"]):
            ax.scatter(
                [row["published_difference"]],
                [y],
                s=24,
                marker="D",
                color="#D55E00",
                zorder=4,
                gid="published",
            )
        ax.text(
            1.02,
            y,
            _note(row),
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=6.5,
            linespacing=1.25,
        )
        labels.append(style.wrapped(str(row["claim"]), 34))
        sides = [str(row["treatment"]), f"− {row['control']}"]
        detail = ("\n" if len(" ".join(sides)) > 48 else " ").join(sides)
        detail += f"\n{row['dataset']} · {row['condition']}" if several else ""
        lift = 1.5 + 3.2 * labels[-1].count("\n")
        ax.annotate(
            detail, (0, y), (-3, -lift), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
            ha="right", va="top", fontsize=5, color=style.MUTED, linespacing=1.15,
        )  # fmt: skip
    ax.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(claims)), labels, va="bottom")
    ax.set_ylim(len(claims) - 0.5, -0.5)
    shown = claims[["low", "high", "difference", "published_difference"]].astype(float)
    low, high = min(0.0, shown.min().min()), max(0.0, shown.max().max())
    pad = 0.06 * ((high - low) or 1.0)
    ax.set_xlim(low - pad, high + pad)
    ax.set_xlabel(f"← control higher      difference in mean {metric}, treatment − control      treatment higher →")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def _note(row: pd.Series) -> str:
    second = ""
    if pd.notna(row["difference"]):
        seeds = int(row["n_seeds"])
        counts = f"{int(row['n_patients'])} patients, {seeds} seed{'' if seeds == 1 else 's'}"
        second = f"{style.signed(row['difference'])} · {counts}"
    return f"$\\bf{{{row['verdict'].replace(' ', chr(92) + ' ')}}}$" + (f"\n{second}" if second else "")
