"""The look of every figure: fonts, sizes, colours, and how a figure is written to disk.

Importing this module sets matplotlib's rcParams. DejaVu Sans is used because it ships with matplotlib, so
that the same tables give the same bytes on every machine.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure

from lib.files import atomic

MM = 1 / 25.4
ONE_COLUMN = 89 * MM  # inches; the widths of one and two journal columns
TWO_COLUMNS = 183 * MM

INK, MUTED, FAINT, ALERT = "#1b1f24", "#5d6670", "#d5dae0", "#b03a00"

# Okabe & Ito (2008), safe for the common colour deficiencies. The order of OVERLAY keeps neighbours apart in
# lightness too (L* 70, 54, 89, ...), so that contours on grey images survive printing in grey.
LINES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
OVERLAY = ["#56B4E9", "#D55E00", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2"]
DASHES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
SEQUENTIAL = LinearSegmentedColormap.from_list("segcross", ["#f3f6f9", "#b5cde0", "#5b94bd", "#1c5a8a"])

METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "NSD",
    "hd95": "HD95",
    "assd": "ASSD",
    "precision": "Precision",
    "recall": "Recall",
    "rvd": "Volume difference",
}
PRIMARY = "dice"
LOWER = ("hd95", "assd")  # metrics of which a lower value ranks higher

mpl.rcParams.update(
    {
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "font.family": "DejaVu Sans",
        "font.size": 7,
        "axes.titlesize": 7.5,
        "axes.labelsize": 7,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "legend.fontsize": 6.5,
        "figure.titlesize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.6,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "axes.grid": False,
        "grid.color": FAINT,
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.2,
        "legend.frameon": False,
        "hatch.linewidth": 0.5,
        "savefig.facecolor": "white",
        "figure.facecolor": "white",
    }
)


def figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches with constrained layout, free of pyplot's global state."""
    result = Figure(figsize=(width, height), layout="constrained")
    result.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03)
    return result


def notice(message: str) -> Figure:
    """The figure that says why there is nothing to draw."""
    result = figure(TWO_COLUMNS, 30 * MM)
    result.text(0.5, 0.5, textwrap.fill(message, 90), ha="center", va="center", color=MUTED, fontsize=8)
    return result


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV of the pipeline. Names stay text ("001"), and only an empty field is a missing value ("NA" is a name)."""
    text = dict.fromkeys(("patient", "case", "identity", "message", "log"), str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])


def save(drawn: Figure, stem: str | Path) -> None:
    """Write `stem`.pdf (vector, fonts embedded) and `stem`.png (200 dpi) without dates, so that bytes
    repeat.
    """
    stem = Path(stem)
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        with atomic(stem.with_name(stem.name + suffix)) as temporary:
            drawn.savefig(temporary, dpi=200, metadata=metadata)


def lines(names: list[str]) -> dict[str, dict]:
    """Colour, dash and marker of each name, by its position: 28 combinations before one repeats."""
    return {
        name: {
            "color": LINES[i % len(LINES)],
            "linestyle": DASHES[i // len(LINES) % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(names)
    }


def overlays(structures: list[str]) -> dict[str, str]:
    """Contour colour of each structure, by its position; made lighter each time the palette repeats."""
    colours = {}
    for i, structure in enumerate(structures):
        lighter = 0.45 * (i // len(OVERLAY))
        rgb = np.array(to_rgb(OVERLAY[i % len(OVERLAY)]))
        colours[structure] = to_hex(rgb + (1 - rgb) * min(lighter, 0.8))
    return colours


def on_white(colour: str) -> str:
    """The colour, darkened until it has a contrast of at least 4.5 with white (WCAG AA)."""
    rgb = np.array(to_rgb(colour))
    while 1.05 / (luminance(rgb) + 0.05) < 4.5:
        rgb = rgb * 0.95
    return to_hex(rgb)


def luminance(rgb: np.ndarray | tuple) -> float:
    """Relative luminance of an sRGB colour in 0..1 (WCAG 2.2)."""
    rgb = np.asarray(rgb[:3], float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def wrapped(name: str, width: int = 22) -> str:
    """A name broken into lines at its underscores, pluses, hyphens and spaces, at most `width` characters
    each.
    """
    if len(name) <= width:
        return name
    parts = textwrap.wrap(
        name.replace("_", "_\x00 ").replace("+", "\x00 +"),
        width + 2,
        break_on_hyphens=True,
        break_long_words=True,
    )
    return "\n".join(part.replace("\x00 ", "").replace("\x00", "").strip() for part in parts)


def situations(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(dataset, condition, protocol) in order of first appearance; each is compared on its own."""
    columns = table[["dataset", "condition", "protocol"]].drop_duplicates()
    return list(columns.itertuples(index=False, name=None))


def at(table: pd.DataFrame, situation: tuple[str, str, str]) -> pd.DataFrame:
    """The rows of one situation."""
    dataset, condition, protocol = situation
    return table[(table["dataset"] == dataset) & (table["condition"] == condition) & (table["protocol"] == protocol)]


def situation_title(situation: tuple[str, str, str]) -> str:
    """How a figure names a situation."""
    dataset, condition, protocol = situation
    return f"{dataset} · {condition} · {protocol} protocol"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, using a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")
