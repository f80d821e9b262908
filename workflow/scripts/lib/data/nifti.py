"""NIfTI files as arrays, and label maps that lie exactly on their image."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from lib.errors import BadInput
from lib.files import atomic

UNREADABLE = (OSError, EOFError, ValueError, TypeError, zlib.error, nib.spatialimages.HeaderDataError)


def read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (array (C, X, Y, Z) in the file's number type, affine (4, 4) to mm) of a NIfTI file.

    A fourth axis holds channels. Raises BadInput that names the file when it is missing, not NIfTI, truncated, not a
    volume, or has a voxel size that is zero or negative.
    """
    image = _open(path)
    try:
        if isinstance(image, nib.Nifti1Image) and str(path).lower().endswith(".gz"):
            # nibabel stops before the end of the stream and would miss its checksum
            image = type(image).from_bytes(gzip.decompress(Path(path).read_bytes()))
        array = np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read to the end; it is truncated or corrupt ({_reason(error)})") from None
    array = array.reshape(*_volume(image.shape), -1)
    return np.moveaxis(array, -1, 0), image.affine


def read_grid(path: str | Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return (shape (X, Y, Z), affine (4, 4) to mm) from the header alone; raises BadInput as `read` does."""
    image = _open(path)
    return _volume(image.shape), image.affine


def write(path: str | Path, labels: np.ndarray, like: str | Path) -> None:
    """Write labels (X, Y, Z) uint8 or uint16 with the shape, affine, orientation codes and units of the file `like`.

    Raises ValueError when the shape differs.
    """
    image = _open(like)
    if labels.shape != _volume(image.shape):
        raise ValueError(f"{path}: labels of shape {labels.shape} do not fit {like} of shape {image.shape[:3]}")
    header = image.header.copy()
    header.set_data_dtype(labels.dtype)
    header["cal_min"] = header["cal_max"] = 0  # a display window of the image would hide the labels
    shape = [*image.shape[:3], *(n for n in image.shape[3:] if n == 1)]
    with atomic(path) as temporary:
        nib.save(type(image)(labels.reshape(shape), image.affine, header), temporary)


def write_new(path: str | Path, labels: np.ndarray, affine: np.ndarray) -> None:
    """Write labels (X, Y, Z) uint8 or uint16 for an image of another format, with its affine (4, 4) to mm."""
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    with atomic(path) as temporary:
        nib.save(image, temporary)


def _volume(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (*shape[:3], *[1] * (3 - len(shape)))


def _open(path: str | Path) -> nib.Nifti1Image:
    """Open a NIfTI file without its voxels, after checks of type, dimensions and voxel size."""
    try:
        image = nib.load(path, mmap=False)
    except FileNotFoundError:
        raise BadInput(f"{path}: this file does not exist") from None
    except (nib.filebasedimages.ImageFileError, *UNREADABLE) as error:
        raise BadInput(
            f"{path}: not a readable NIfTI file; it is truncated or of another format ({_reason(error)})"
        ) from None
    if not isinstance(image, nib.Nifti1Pair):
        raise BadInput(f"{path}: this is {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    shape = image.shape
    if len(shape) < 2 or sum(n != 1 for n in shape[3:]) > 1 or 0 in shape:
        raise BadInput(f"{path}: has shape {shape}; one volume per file is expected, with channels on the fourth axis")
    # nibabel silently repairs a bad voxel size when it opens a file, so the bytes themselves are read again.
    with nib.openers.ImageOpener(image.file_map.get("header", image.file_map["image"]).filename) as file:
        sizes = type(image.header).from_fileobj(file, check=False)["pixdim"][1:4]
    spacing = nib.affines.voxel_sizes(image.affine)
    if not (np.isfinite(image.affine).all() and (sizes > 0).all() and (spacing > 0).all()):
        raise BadInput(
            f"{path}: voxel size {_numbers(sizes)} mm in the header, {_numbers(spacing)} mm by the affine; "
            "each must be above 0"
        )
    if np.linalg.matrix_rank(image.affine[:3, :3] / spacing) < 3:
        raise BadInput(f"{path}: two axes of its affine are parallel, so the orientation is undefined")
    return image


def _numbers(values: np.ndarray) -> str:
    return " × ".join(f"{value:.4g}" for value in values)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
