"""Figures as a page shows them: inside it, with title, caption and a link to the PDF."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

from lib.figures.captions import caption_of

COLOURS = 128


def figures_of(paths: list[Path], folder: Path, room: int) -> tuple[list[dict], int]:
    """The figures with title and caption, in the page as long as `room`, in bytes, lasts; how many are linked instead.

    folder: where the page will lie.
    """
    drawn, beside = [], 0
    for path in map(Path, paths):
        data = base64.b64encode(_shrunk(path)).decode()
        room -= len(data)
        beside += room < 0
        pdf = path.with_suffix(".pdf")
        title, caption = caption_of(path.stem)
        drawn.append(
            {
                "id": path.stem,
                "title": title,
                "caption": caption,
                "source": f"data:image/png;base64,{data}" if room >= 0 else relative(path, folder),
                "pdf": relative(pdf, folder) if pdf.exists() else None,
            }
        )
    return drawn, beside


def _shrunk(path: Path) -> bytes:
    """A PNG with fewer colours, a third of the size; the PDF has them all."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
