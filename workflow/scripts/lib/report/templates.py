"""The templates of this folder, filled so that a name that is missing is an error and text cannot become markup.

Also how numbers are written: every page writes them alike.
"""

from __future__ import annotations

from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from lib.figures import style

HERE = Path(__file__).parent
NOTHING = "–"


def environment() -> jinja2.Environment:
    """The settings and filters that all pages share."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "number": number,
        "general": general,
        "signed": signed,
        "p": p_value,
        "count": count,
        "seconds": seconds,
        "sortable": sortable,
        "breakable": breakable,
    }
    return pages


def file_text(name: str) -> Markup:
    """A style sheet or script of this folder, to stand in a page as it is."""
    return Markup((HERE / name).read_text())


def missing(value: object) -> bool:
    return value is None or bool(pd.isna(value))


def number(value: float | None, digits: int = 3) -> str:
    return NOTHING if missing(value) else "∞" if value == float("inf") else f"{value:.{digits}f}".replace("-", "−")


def general(value: float | None) -> str:
    """Four significant digits."""
    return NOTHING if missing(value) else f"{value:.4g}"


def signed(value: float | None, digits: int = 3) -> str:
    return NOTHING if missing(value) else style.signed(value, digits)


def p_value(value: float | None) -> str:
    return NOTHING if missing(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float | None) -> str:
    """A whole number with thin spaces, or with M, G, T from a million on."""
    if missing(value):
        return NOTHING
    if value == float("inf"):
        return "∞"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{int(value):,}".replace(",", "\u2009")


def seconds(value: float | None) -> str:
    if missing(value):
        return NOTHING
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def sortable(value: object) -> str:
    """What a table sorts by; nothing for a missing value, which stays at the end."""
    return "" if missing(value) else "Infinity" if value == float("inf") else str(value)


def breakable(name: str) -> Markup:
    """A name that may break after its underscores and before its plus."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("+", "<wbr>+"))
