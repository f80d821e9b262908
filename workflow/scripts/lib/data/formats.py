"""Images and label maps from files of any supported format, and label maps back, exactly on their image.

NIfTI; MHA, MHD, NRRD and DICOM folders through SimpleITK; PNG, JPEG, TIFF, BMP; NPZ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lib.data.patterns import PICTURES
from lib.errors import BadInput

ITK = (".mha", ".mhd", ".nrrd")
INTEGER_TOLERANCE = 1e-3  # a scaled integer label may come back as 2.9999


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie.

    shape: (X, Y, Z); of a picture (rows, columns, 1). affine: (4, 4) float64, from voxels to millimetres in RAS
    axes; of a picture or an array without spacing the identity, in pixels.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    unit: str  # "mm" or "px"

    @cached_property
    def spacing(self) -> np.ndarray:
        """Voxel sides (3,), in `unit`: the lengths of the affine's columns."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def apart(self, other: Geometry) -> float:
        """Largest distance between the places that the two affines give to a corner voxel."""
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], [1], indexing="ij")).reshape(4, -1)
        return float(np.linalg.norm(((self.affine - other.affine) @ corners)[:3], axis=0).max())


def read_image(path: str | Path) -> tuple[np.ndarray, Geometry]:
    """Return (image (C, X, Y, Z) float32, its geometry); a colour picture has C = 3, a 4-D NIfTI file its 4th axis.

    Raises BadInput that names the file when it is missing, of an unknown format, damaged, or holds no real numbers.
    """
    array, geometry = _read(path)
    _require_real(array, path)
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False), geometry


def read_label(path: str | Path, palette: dict[int, list[int]] | None = None) -> tuple[np.ndarray, Geometry]:
    """Return (labels (X, Y, Z) uint8 or int32, their geometry).

    `palette`: label value -> colour [r, g, b], for masks whose colours mean labels; black is 0 unless it is listed.
    Raises BadInput as `read_image` does, and for values that are not whole numbers, colours that are not listed, a
    colour mask without a palette, and a format that does not keep values (JPEG).
    """
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        raise BadInput(
            f"{path}: JPEG does not keep label values; use PNG, or, where each file is the mask of one structure, "
            "write files.label as a mapping {structure: pattern}, and it is cut at half of the range"
        )
    array, geometry = _read(path, indices=palette is None)
    if palette is not None:
        return _from_colours(array, palette, path), geometry
    if len(array) > 1:
        if (array == array[:1]).all():
            array = array[:1]  # grey, written as colour
        elif len(array) == 3 and geometry.unit == "px":
            colours = np.unique(array.reshape(3, -1).T, axis=0)
            listed = ", ".join(str(colour.tolist()) for colour in colours[:8])
            raise BadInput(
                f"{path}: a colour mask with {len(colours)} colours ({listed}); say what they mean with "
                "palette: {label value: [r, g, b], …}"
            )
        else:
            raise BadInput(f"{path}: has {len(array)} channels; a label map has one")
    return _whole(array[0], path), geometry


def read_mask(path: str | Path) -> tuple[np.ndarray, Geometry]:
    """Return (mask (X, Y, Z) bool, its geometry) of a file with two values; a JPEG is cut at half of its range.

    Raises BadInput as `read_image` does, and when a file that keeps values has more than two.
    """
    array, geometry = _read(path)
    _require_real(array, path)
    if len(array) > 1 and not (array[:3] == array[:1]).all():
        raise BadInput(f"{path}: is coloured; a binary mask is black and white")
    array = array[0]
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        return array > 127, geometry
    values = np.unique(array)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0) or not np.isfinite(values).all():
        listed = ", ".join(f"{value:g}" for value in values[:6])
        raise BadInput(f"{path}: a binary mask has 0 and one other value, but here are {listed}")
    return array != 0, geometry


def read_geometry(path: str | Path) -> Geometry:
    """The geometry of a file, of NIfTI and pictures from the header alone; raises BadInput as `read_image` does."""
    if not Path(path).exists() or not (_is_nifti(path) or Path(path).suffix.lower() in PICTURES):
        return _read(path)[1]
    if _is_nifti(path):
        from lib.data import nifti

        return Geometry(*nifti.read_grid(path), "mm")
    from lib.data import pictures

    return Geometry(pictures.grid(path), np.eye(4), "px")


def write_label(path: str | Path, array: np.ndarray, like: str | Path) -> None:
    """Write labels (X, Y, Z), whole numbers >= 0, in the geometry of the image file `like`.

    `path` ends as `label_suffix(like)` says. Raises ValueError when the shape differs or a value does not fit.
    """
    from lib.data import nifti

    if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"{path}: labels from {array.min()} to {array.max()} do not fit into 16 bits")
    array = array.astype(np.uint8 if array.max() <= 255 else np.uint16)
    if _is_nifti(like):
        return nifti.write(path, array, like)
    if Path(like).suffix.lower() in PICTURES:
        from lib.data import pictures

        return pictures.write(path, array, like)
    _, geometry = _read(like)
    if array.shape != geometry.shape:
        raise ValueError(f"{path}: labels of shape {array.shape} do not fit {like} of shape {geometry.shape}")
    return nifti.write_new(path, array, geometry.affine)


def label_suffix(like: str | Path) -> str:
    """How the label map of an image is named: `.png` for one picture, else `.nii.gz`."""
    if Path(like).suffix.lower() in PICTURES:
        from lib.data import pictures

        return ".png" if pictures.grid(like)[2] == 1 else ".nii.gz"
    return ".nii.gz"


def _read(path: str | Path, indices: bool = False) -> tuple[np.ndarray, Geometry]:
    """(C, X, Y, Z) in the file's own number type; `indices`: those of a palette picture instead of its colours."""
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: this file does not exist")
    suffix = path.suffix.lower()
    if _is_nifti(path):
        from lib.data import nifti

        array, affine = nifti.read(path)
        return array, Geometry(array.shape[1:], affine, "mm")
    if suffix in PICTURES:
        from lib.data import pictures

        array = pictures.read(path, indices)
        return array, Geometry(array.shape[1:], np.eye(4), "px")
    if suffix in ITK or path.is_dir():
        from lib.data import itk

        array, affine = itk.read_series(path) if path.is_dir() else itk.read(path)
        return array, Geometry(array.shape[1:], affine, "mm")
    if suffix == ".npz":
        return _read_npz(path)
    known = ", ".join((".nii", ".nii.gz", *ITK, *PICTURES, ".npz"))
    raise BadInput(f"{path}: unknown format; supported are {known} and folders of DICOM files")


def _require_real(array: np.ndarray, path: str | Path) -> None:
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating) or array.dtype == bool):
        raise BadInput(f"{path}: voxels of type {array.dtype} are not supported; one real number each is expected")


def _is_nifti(path: str | Path) -> bool:
    return str(path).lower().endswith((".nii", ".nii.gz"))


def _read_npz(path: Path) -> tuple[np.ndarray, Geometry]:
    """Arrays named image, label or mask, or the only array: (X, Y), (X, Y, Z) or (C, X, Y, Z); `spacing` in mm."""
    try:
        with np.load(path, allow_pickle=False) as file:
            named = [name for name in file.files if name != "spacing"]
            wanted = [name for name in named if name in ("image", "label", "mask")] or named
            if len(wanted) != 1:
                raise BadInput(f"{path}: holds the arrays {', '.join(file.files) or 'none'}; name one image or label")
            array = file[wanted[0]]
            spacing = file["spacing"].astype(float).ravel() if "spacing" in file.files else None
    except BadInput:
        raise
    except Exception as error:  # of any kind, when the file is damaged
        raise BadInput(f"{path}: not a readable NPZ file ({_first_line(error)})") from None
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise BadInput(f"{path}: an array of shape {array.shape}; (X, Y), (X, Y, Z) or (C, X, Y, Z) is expected")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3:
        array = array[None]
    if spacing is None:
        return array, Geometry(array.shape[1:], np.eye(4), "px")
    if len(spacing) not in (2, 3) or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise BadInput(f"{path}: spacing {spacing.tolist()}; 2 or 3 numbers above 0, in mm, are expected")
    return array, Geometry(array.shape[1:], np.diag([*spacing, *[1.0] * (4 - len(spacing))]), "mm")


def _from_colours(array: np.ndarray, palette: dict[int, list[int]], path: str | Path) -> np.ndarray:
    if len(array) not in (1, 3) or not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool):
        raise BadInput(
            f"{path}: has {len(array)} channels of {array.dtype}; `palette` is for masks with 1 or 3 of whole numbers"
        )
    array = np.broadcast_to(array, (3, *array.shape[1:]))
    code = (array[0].astype(np.int64) << 16) | (array[1].astype(np.int64) << 8) | array[2].astype(np.int64)
    label = np.zeros(code.shape, np.int32)
    known = np.zeros(code.shape, bool)
    for value, (red, green, blue) in ({0: (0, 0, 0)} | {int(v): tuple(c) for v, c in palette.items()}).items():
        here = code == (red << 16 | green << 8 | blue)
        label[here] = value
        known |= here
    if not known.all():
        strange, counts = np.unique(code[~known], return_counts=True)
        listed = ", ".join(
            f"{[int(c) >> 16, int(c) >> 8 & 255, int(c) & 255]} ({n} pixels)"
            for c, n in list(zip(strange, counts, strict=True))[:5]
        )
        raise BadInput(f"{path}: colours that `palette` does not list: {listed}")
    return _whole(label, path)


def _whole(array: np.ndarray, path: str | Path) -> np.ndarray:
    """Labels as uint8 or int32; raises BadInput when a value is not a whole number."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        if not np.issubdtype(array.dtype, np.floating):
            raise BadInput(f"{path}: values of type {array.dtype} are no labels; whole numbers are expected")
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
    return array.astype(np.uint8 if low >= 0 and high <= 255 else np.int32, copy=False)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
