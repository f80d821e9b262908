"""The templates of this folder, filled so that a name that is missing is an error and text cannot become markup."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """The settings that all pages share; a page adds its filters."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def file_text(name: str) -> Markup:
    """A style sheet or script of this folder, to stand in a page as it is."""
    return Markup((HERE / name).read_text())
