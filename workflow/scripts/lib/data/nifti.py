"""Reading images and label maps from NIfTI files, and writing label maps that lie exactly on their image."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from lib.errors import BadInput
from lib.files import atomic

UNREADABLE = (OSError, EOFError, ValueError, TypeError, zlib.error, nib.spatialimages.HeaderDataError)
INTEGER_TOLERANCE = 1e-3  # a scaled integer label may come back as 2.9999


def load_image(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (image (X, Y, Z) float32, spacing (3,) in mm, affine (4, 4)) of a NIfTI file.
    The spacing is the length of the affine's columns. Raises BadInput that names the file when it is missing,
    not NIfTI, truncated, not one 3-D volume of real numbers, or has a voxel size that is zero or negative.
    """
    array, spacing, affine = _load(path)
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False), spacing, affine


def load_label(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (labels (X, Y, Z) uint8 or int32, spacing (3,) in mm, affine (4, 4)) of a NIfTI file.

    Raises BadInput as `load_image` does, and when a value is not a whole number.
    """
    array, spacing, affine = _load(path)
    if not np.issubdtype(array.dtype, np.integer):
        finite = np.isfinite(array)
        if not finite.all():
            raise BadInput(
                f"{path}: {np.count_nonzero(~finite)} voxels of this label map are NaN or infinite; "
                "labels must be whole numbers"
            )
        whole = np.rint(array)
        wrong = np.abs(array - whole) > INTEGER_TOLERANCE
        if wrong.any():
            raise BadInput(
                f"{path}: {np.count_nonzero(wrong)} voxels of this label map are not whole numbers "
                f"(for example {array[wrong][0]:.6g}); was it resampled with interpolation?"
            )
        array = whole
    low, high = int(array.min()), int(array.max())
    limit = np.iinfo(np.int32)
    if low < limit.min or high > limit.max:
        raise BadInput(f"{path}: label values from {low} to {high} do not fit into 32 bits")
    return array.astype(np.uint8 if low >= 0 and high <= 255 else np.int32, copy=False), spacing, affine


def write_label(path: str | Path, array: np.ndarray, like: str | Path) -> None:
    """Write labels (X, Y, Z), whole numbers >= 0, as uint8 or uint16 in the geometry of the file `like`.

    Shape, affine, orientation codes and units are those of `like`. Raises ValueError when the shape differs.
    """
    image = _open(like)
    if array.shape != image.shape[:3]:
        raise ValueError(f"{path}: labels of shape {array.shape} do not fit {like} of shape {image.shape[:3]}")
    if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"{path}: labels from {array.min()} to {array.max()} do not fit into 16 bits")
    labels = array.reshape(image.shape).astype(np.uint8 if array.max() <= 255 else np.uint16)
    header = image.header.copy()
    header.set_data_dtype(labels.dtype)
    header["cal_min"] = header["cal_max"] = 0  # a display window of the image would hide the labels
    with atomic(path) as temporary:
        nib.save(type(image)(labels, image.affine, header), temporary)


def _load(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = _open(path)
    try:
        if isinstance(image, nib.Nifti1Image) and str(path).endswith(".gz"):
            # nibabel stops before the end of the stream and would miss its checksum
            image = type(image).from_bytes(gzip.decompress(Path(path).read_bytes()))
        array = np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read to the end; it is truncated or corrupt ({_reason(error)})") from None
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise BadInput(f"{path}: voxels of type {array.dtype} are not supported; one real number each is expected")
    return array.reshape(image.shape[:3]), nib.affines.voxel_sizes(image.affine), image.affine


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
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise BadInput(f"{path}: has shape {shape}; one 3-D volume per file is expected")
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
