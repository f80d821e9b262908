"""Every claim of the catalogue and what came of it: one square per claim and situation, a row per paper."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from lib.figures import style

TITLE = "What became of published claims"
CAPTION = (
    "A row is a paper, a square one of its claims in one situation (data set, condition, budget), and its colour the "
    "verdict here. White squares are claims that no published experiment has tested. Undecided is "
    "not refuted: the interval leaves room for both, or excludes 0 and does not outlast the adjustment for the number "
    "of claims. Squares of a paper may rest on the same trainings: they are no votes to be counted."
)

UNTESTED = "not tested"
# Face, edge and hatching of a verdict, which says the same in grey.
VERDICTS = {
    "reproduced": ("#0072B2", "#0072B2", ""),
    "smaller": ("#56B4E9", "#0072B2", "////"),
    "inconclusive": ("#d5dae0", "#5d6670", ""),
    "not reproduced": ("#D55E00", "#D55E00", ""),
    "one training": ("#ffffff", "#5d6670", "////"),
    "missing": ("#ffffff", "#5d6670", "xxxx"),
    UNTESTED: ("#ffffff", "#b7bec6", ""),
}
SIDE = 3.4  # mm
ACROSS = 26  # squares in a line


def draw(verdicts: pd.DataFrame) -> Figure:
    """verdicts: source (the paper) and verdict, a row per claim and situation, in the order of the papers."""
    if verdicts.empty:
        return style.notice("Overview: there is no claim.")
    order = [*VERDICTS]
    rows = [
        (source, sorted(group, key=order.index))
        for source, group in verdicts.groupby("source", sort=False)["verdict"].agg(list).items()
    ]
    labels = [style.wrapped(source, 66) for source, _ in rows]
    lines = [
        max(label.count("\n") + 1, -(-len(found) // ACROSS)) for label, (_, found) in zip(labels, rows, strict=True)
    ]
    heights = np.array([SIDE * n + 1.8 for n in lines])
    figure = style.figure(style.TWO_COLUMNS, (heights.sum() + 14) * style.MM)
    ax = figure.subplots()
    tops = np.cumsum(heights) - heights
    for top, height, (_, found) in zip(tops, heights, rows, strict=True):
        used = -(-len(found) // ACROSS)
        for k, verdict in enumerate(found):
            line, column = divmod(k, ACROSS)
            face, edge, hatch = VERDICTS[verdict]
            corner = (column * SIDE, top + (height - used * SIDE) / 2 + line * SIDE)
            ax.add_patch(
                Rectangle(corner, 0.82 * SIDE, 0.82 * SIDE, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.7)
            )
    ax.set_yticks(tops + heights / 2 - 0.09 * SIDE, labels, fontsize=6)
    ax.set_ylim(heights.sum(), 0)
    ax.set_xlim(-1, ACROSS * SIDE)
    ax.set_aspect("equal", anchor="W")
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    counts = verdicts["verdict"].value_counts()
    handles = [
        Patch(facecolor=face, edgecolor=edge, hatch=hatch, label=f"{verdict} ({counts[verdict]})")
        for verdict, (face, edge, hatch) in VERDICTS.items()
        if verdict in counts
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    return figure
