"""Agreement: Kendall's τ between rankings of the same methods by other schemes, metrics and empty-mask policies."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.figures import style

TITLE = "Does the ranking depend on how one ranks?"
CAPTION = (
    "Kendall's τ between two rankings of the same methods, with the central 95 % over bootstrap samples: 1 is the "
    "same order, 0 no relation, −1 the reverse. Left: between the ways to make a ranking from Dice; on the diagonal, "
    "a ranking against the same one with patients and trainings drawn again. Middle: between the two policies for "
    "empty masks. Right: between metrics. A low τ among methods that are not separated says little, because their "
    "order is chance."
)
SIDE = 9.5  # height of a square in mm


def draw(agreement: pd.DataFrame) -> Figure:
    """One row of panels per dataset × condition × protocol.

    agreement: ranking_a, ranking_b ("scheme, metric, policy"), kendall_tau, low, high.
    """
    parts = [agreement[f"ranking_{side}"].str.split(", ", expand=True) for side in "ab"]
    if agreement.empty:
        return style.notice("Agreement: fewer than two methods were ranked.")
    for side, names in zip("ab", parts, strict=True):
        agreement = agreement.assign(**{f"{k}_{side}": names[i] for i, k in enumerate(("scheme", "metric", "policy"))})
    tables = [(panel, style.at(agreement, panel)) for panel in style.situations(agreement)]
    schemes, metrics = (
        [name for name in names if name in {*agreement[f"{kind}_a"], *agreement[f"{kind}_b"]}]
        for kind, names in (("scheme", style.SCHEMES), ("metric", style.METRIC_NAMES))
    )
    height = 22 + SIDE * max(len(schemes), len(metrics))
    figure = style.figure(style.TWO_COLUMNS, (14 + height * len(tables)) * style.MM)
    *blocks, foot = figure.subfigures(len(tables) + 1, 1, height_ratios=[height] * len(tables) + [14])
    colours = ScalarMappable(Normalize(min(0.0, agreement["kendall_tau"].min()), 1), style.SEQUENTIAL)
    for block, (panel, table) in zip(blocks, tables, strict=True):
        _row(block, table, schemes, metrics, colours)
        block.suptitle(style.situation_title(panel), x=0.01, ha="left", fontsize=7.5)
    bar = foot.colorbar(colours, cax=foot.add_axes((0.35, 0.65, 0.3, 0.2)), orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_label("Kendall's τ")
    return figure


def _row(block, table: pd.DataFrame, schemes: list[str], metrics: list[str], colours: ScalarMappable) -> None:
    left, middle, right = block.subplots(1, 3, width_ratios=[len(schemes), 1.2, len(metrics)])
    first = table.iloc[0]  # by the primary metric, under the policy of the experiment
    metric, policy = first["metric_a"], first["policy_a"]
    same_metric = table[(table["metric_a"] == metric) & (table["metric_b"] == metric) & (table["policy_a"] == policy)]
    names = [style.SCHEMES[scheme] for scheme in schemes]
    _squares(left, same_metric[same_metric["policy_b"] == policy], "scheme", schemes, schemes, colours)
    left.set_yticks(range(len(schemes)), names)
    left.set_xticks(range(len(schemes)), [name.replace(" ", "\n") for name in names])
    left.set_title(f"schemes ({style.METRIC_NAMES[metric]}, empty masks: {policy})")
    other = same_metric[same_metric["policy_b"] != policy]
    _squares(middle, other.assign(policy_a="", policy_b=""), "scheme", schemes, [""], colours)
    middle.set_xticks([0], ["penalise,\nexclude"])
    middle.set_title("policies")
    here = table[(table["scheme_a"] == schemes[0]) & (table["scheme_b"] == schemes[0])]
    here = here[(here["policy_a"] == policy) & (here["policy_b"] == policy)]
    _squares(right, here, "metric", metrics, metrics, colours)
    labels = [style.METRIC_NAMES[name] for name in metrics]
    right.set_yticks(range(len(metrics)), labels)
    right.set_xticks(range(len(metrics)), labels)
    right.set_title(f"metrics ({style.SCHEMES[schemes[0]]})")


def _squares(
    ax: Axes, table: pd.DataFrame, kind: str, rows: list[str], columns: list[str], colours: ScalarMappable
) -> None:
    """Squares of τ below and on the diagonal; of one column, where there is one."""
    for pair in table.to_dict("records"):
        a, b = rows.index(pair[f"{kind}_a"]), rows.index(pair[f"{kind}_b"])
        column, row = (0, a) if len(columns) == 1 else sorted((a, b))
        if pd.isna(pair["kendall_tau"]):
            ax.text(column, row, "all tied", fontsize=5.5, ha="center", va="center", color=style.MUTED)
            continue
        face = colours.to_rgba(pair["kendall_tau"])
        again = a == b and len(columns) > 1
        frame = {"linestyle": ":", "edgecolor": style.INK, "linewidth": 0.8} if again else {"edgecolor": "none"}
        ax.add_patch(Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, facecolor=face, gid="pair", **frame))
        look = {"ha": "center", "va": "center", "color": "white" if style.luminance(face) < 0.2 else style.INK}
        ax.text(column, row - 0.14, f"{pair['kendall_tau']:.2f}".replace("-", "−"), fontsize=6.5, **look)
        if pd.notna(pair["low"]):
            interval = f"[{pair['low']:.2f}, {pair['high']:.2f}]".replace("-", "−")
            ax.text(column, row + 0.22, interval, fontsize=4.6, **look)
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), yticks=[])
    ax.tick_params(length=0, labelsize=6)
    ax.spines[:].set_visible(False)
