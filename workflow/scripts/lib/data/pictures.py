"""Pictures (PNG, JPEG, TIFF, BMP) as arrays, and label maps as PNG."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from lib.errors import BadInput
from lib.files import atomic

STACKED = "TIFF"  # the one format whose pages are slices


def read(path: str | Path, indices: bool = False) -> np.ndarray:
    """Pixels (C, rows, columns, pages) of a picture: 1 channel, or 3 for colours; transparency is dropped.

    A picture with a palette gives its colours, or with `indices` its palette indices. The pixels are as stored: an
    EXIF rotation is not applied, because masks carry none. Raises BadInput that names a damaged file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                pages = [_pixels(page, indices) for page in _pages(picture)]
    except Exception as error:  # of any kind, when the file is damaged
        raise _unreadable(path, error) from None
    if any(page.shape != pages[0].shape for page in pages):
        raise BadInput(f"{path}: its pages differ in size; one image per file is expected")
    return np.stack(pages, axis=-1)


def grid(path: str | Path) -> tuple[int, int, int]:
    """Rows, columns and pages from the header alone; pages are above 1 only for TIFF stacks."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width, picture.n_frames if picture.format == STACKED else 1
    except Exception as error:  # of any kind, when the file is damaged
        raise _unreadable(path, error) from None


def write(path: str | Path, labels: np.ndarray, like: str | Path) -> None:
    """Write labels (rows, columns, pages) uint8 or uint16 for the picture `like`: one page as PNG, a stack as NIfTI."""
    shape = grid(like)
    if labels.shape != shape:
        raise ValueError(f"{path}: labels of shape {labels.shape} do not fit {like} of shape {shape}")
    if shape[2] > 1:
        from lib.data import nifti

        return nifti.write_new(path, labels, np.eye(4))
    with atomic(path) as temporary:
        Image.fromarray(labels[..., 0]).save(temporary, format="PNG")
    return None


def _unreadable(path: str | Path, error: Exception) -> BadInput:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BadInput(f"{path}: cannot be read as a picture; it is damaged or of another format ({reason})")


def _pages(picture: Image.Image) -> Iterable[Image.Image]:
    """All pages of a TIFF stack; else the picture, without the previews that cameras append and without animation."""
    return ImageSequence.Iterator(picture) if picture.format == STACKED else [picture]


def _pixels(page: Image.Image, indices: bool) -> np.ndarray:
    if page.mode == "P" and not indices:
        page = page.convert("RGB")
    elif page.mode == "1":
        page = page.convert("L")
    elif page.mode in ("RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "PA"):
        page = page.convert("RGB")
    elif page.mode in ("LA", "La"):
        page = page.convert("L")
    array = np.asarray(page)
    return np.moveaxis(array, -1, 0).copy() if array.ndim == 3 else array[None].copy()
