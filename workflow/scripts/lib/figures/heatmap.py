"""Heat map: mean primary metric of every architecture × loss, with interval and n in each cell."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.figures import style

TITLE = "Mean Dice of every architecture × loss"
CAPTION = (
    "Each cell gives the mean over patients and seeds, its 95 % interval, and the number of patients × seeds. Darker "
    "is higher. A frame with a dot marks the top group, a 95 % confidence set for the highest expected mean; "
    "it appears only from three seeds on. Hatching marks failed cells, dots missing ones; blank combinations "
    "were not asked for. Neighbouring means with overlapping intervals are not a ranking."
)


def draw(ranking: pd.DataFrame, ledger: pd.DataFrame, metric: str = style.PRIMARY) -> Figure:
    """One panel per dataset × condition × protocol.

    A framed cell with a dot is in the top group; a hatched one failed; a dotted one is missing; a blank one
    was not asked for. Architectures and losses keep the order of the ledger. The shorter of the two lists
    makes the columns.
    """
    if ledger.empty:
        return style.notice("Heat map: the ledger lists no cells.")
    means = ranking[(ranking["structure"] == "mean") & (ranking["metric"] == metric)]
    panels = style.situations(ledger)
    grids = [_grid(style.at(ledger, panel)) for panel in panels]
    height = 12 + sum(16 + 15 * len(rows) for rows, _, _ in grids)
    figure = style.figure(style.TWO_COLUMNS, height * style.MM)
    axes = figure.subplots(
        len(panels),
        1,
        squeeze=False,
        gridspec_kw={"height_ratios": [len(rows) + 0.6 for rows, _, _ in grids]},
    )[:, 0]
    values = means["mean"][means["n_failed"].lt(means["n_values"])].dropna()
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    norm = Normalize(low, high if high > low else low + 1e-9)
    # Darker is always the value that ranks higher.
    colours = ScalarMappable(norm, style.SEQUENTIAL.reversed() if metric in style.LOWER else style.SEQUENTIAL)
    for ax, panel, grid in zip(axes, panels, grids, strict=True):
        here = style.at(means, panel)
        # With one training each, a "top group" would only say that nothing can be told apart.
        here = here.assign(top=here["top_group"].astype(bool) & here["seeds_enough"].astype(bool).any())
        _panel(ax, here, style.at(ledger, panel), grid, colours)
        ax.set_title(style.situation_title(panel), loc="left", pad=5)
    if len(values):
        bar = figure.colorbar(colours, ax=list(axes), fraction=0.025, pad=0.015, aspect=28)
        bar.outline.set_visible(False)
        bar.set_label(f"mean {style.METRIC_NAMES[metric]}")
    group = ""
    if len(means):
        group = "Frame and ●: top group, a 95 % confidence set for the highest mean.  "
        if not means["seeds_enough"].astype(bool).any():
            group = "Fewer than 3 seeds: single trainings, so no top group is marked.  "
    figure.supxlabel(
        f"[95 % interval] over n patients × seeds.  {group}  Hatched: failed.  Dotted: missing.  Blank: not asked for.",
        fontsize=6,
        color=style.MUTED,
    )
    return figure


def _grid(ledger: pd.DataFrame) -> tuple[list[str], list[str], bool]:
    """Row names, column names, and whether the rows are losses."""
    architectures, losses = list(ledger["architecture"].unique()), list(ledger["loss"].unique())
    if len(losses) > max(len(architectures), 5):
        return losses, architectures, True
    return architectures, losses, False


def _panel(ax: Axes, means: pd.DataFrame, ledger: pd.DataFrame, grid: tuple, colours: ScalarMappable) -> None:
    rows, columns, rows_are_losses = grid
    width_mm = 150 / len(columns)
    large, small = min(8.5, 0.42 * width_mm), min(6.0, 0.31 * width_mm)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            architecture, loss = (column, row) if rows_are_losses else (row, column)
            cells = ledger[(ledger["architecture"] == architecture) & (ledger["loss"] == loss)]
            mean = means[(means["architecture"] == architecture) & (means["loss"] == loss)]
            if len(cells):
                _cell(ax, i, j, cells, mean, colours, large, small)
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xticks(range(len(columns)), [style.wrapped(c, max(8, int(width_mm * 0.75))) for c in columns])
    ax.set_yticks(range(len(rows)), [style.wrapped(r, 22) for r in rows])
    ax.set_xlabel("architecture" if rows_are_losses else "loss")
    ax.set_ylabel("loss" if rows_are_losses else "architecture")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _cell(
    ax: Axes,
    i: int,
    j: int,
    cells: pd.DataFrame,
    mean: pd.DataFrame,
    colours: ScalarMappable,
    large: float,
    small: float,
) -> None:
    box = {"xy": (j - 0.47, i - 0.46), "width": 0.94, "height": 0.92}
    states = cells["state"].value_counts()
    failed, missing = int(states.get("failed", 0)), int(states.get("missing", 0))
    if mean.empty or not cells["state"].eq("ok").any():
        if failed:
            reasons = ", ".join(sorted(set(cells.loc[cells["state"] == "failed", "reason"].dropna())))
            ax.add_patch(Rectangle(**box, facecolor="white", edgecolor="#8d949c", hatch="////", linewidth=0.6))
            text, colour = f"failed\n{style.wrapped(reasons, 14)}", style.ALERT
        else:
            ax.add_patch(Rectangle(**box, facecolor="none", edgecolor="#8d949c", linestyle=":", linewidth=0.9))
            text, colour = "missing", style.MUTED
        background = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
        ax.text(j, i, text.strip(), ha="center", va="center", fontsize=small + 0.5, color=colour, bbox=background)
        return
    value = mean.iloc[0]
    face = colours.to_rgba(value["mean"])
    ink = "white" if style.luminance(face) < 0.2 else style.INK
    top = bool(value["top"])
    ax.add_patch(Rectangle(**box, facecolor=face, edgecolor="none"))
    if top:
        inner = {"xy": (j - 0.455, i - 0.435), "width": 0.91, "height": 0.87}
        ax.add_patch(Rectangle(**inner, facecolor="none", edgecolor="white", linewidth=3.4))
        ax.add_patch(Rectangle(**inner, facecolor="none", edgecolor="black", linewidth=1.7))
    note = f"n {int(value['n_patients'])} × {int(value['n_seeds'])}"
    if failed or missing:
        note = " · ".join(f"{n} {state}" for n, state in ((failed, "failed"), (missing, "missing")) if n)
        note = f"{note} of {len(cells)}"
        ax.add_patch(
            Rectangle(
                **box,
                facecolor="none",
                edgecolor=ink,
                linewidth=0,
                hatch="////" if failed else "....",
                alpha=0.18,
            )
        )
    ax.text(
        j, i - 0.2, f"{'● ' if top else ''}{value['mean']:.3f}", ha="center", va="center",
        fontsize=large, color=ink, fontweight="bold" if top else "normal",
    )  # fmt: skip
    if pd.notna(value["low"]):
        interval = f"[{value['low']:.3f}, {value['high']:.3f}]"
        ax.text(j, i + 0.09, interval, ha="center", va="center", fontsize=small, color=ink)
    ax.text(j, i + 0.3, note, ha="center", va="center", fontsize=small, color=ink)
