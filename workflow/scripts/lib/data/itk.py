"""MHA, MHD, NRRD and DICOM series, read by SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lib.errors import BadInput

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes are LPS
UNEVEN = 0.02  # of the slice distance

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (array (C, X, Y, Z), affine (4, 4) to RAS mm) of a file; raises BadInput that names a damaged one."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise BadInput(f"{path}: cannot be read; it is damaged or of another format ({_reason(error)})") from None
    return _array(image, path)


def read_series(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (array (C, X, Y, Z), affine) of the one DICOM series in a folder, slices sorted by position.

    Raises BadInput for no series or several, a slice that cannot be read, and slices at one place or uneven distances.
    """
    try:
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    except RuntimeError as error:
        raise BadInput(f"{folder}: a damaged DICOM file stops its reading ({_reason(error)})") from None
    if len(series) != 1:
        found = f"{len(series)} DICOM series ({', '.join(series[:3])})" if series else "no DICOM series"
        raise BadInput(f"{folder}: holds {found}; give each series a folder of its own")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    if skipped := sorted(set(map(str, filter(_is_dicom, Path(folder).iterdir()))) - set(map(str, map(Path, names)))):
        raise BadInput(
            f"{skipped[0]}: is no slice of the DICOM series in its folder; it is damaged, or move it elsewhere"
        )
    _check_distances(names, folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise BadInput(f"{folder}: the DICOM series cannot be read ({_reason(error)})") from None
    return _array(image, folder)


def _check_distances(names: tuple[str, ...], folder: str | Path) -> None:
    reader, places = sitk.ImageFileReader(), []
    for name in names:
        reader.SetFileName(name)
        try:
            reader.ReadImageInformation()
            normal = np.cross(*np.reshape([float(x) for x in reader.GetMetaData("0020|0037").split("\\")], (2, 3)))
            places.append(np.dot([float(x) for x in reader.GetMetaData("0020|0032").split("\\")], normal))
        except (RuntimeError, ValueError) as error:
            raise BadInput(f"{name}: its DICOM position cannot be read ({_reason(error)})") from None
    gaps = np.abs(np.diff(places))
    if len(gaps) and gaps.max() == 0:
        raise BadInput(f"{folder}: all its slices lie at one place; a film or repeated slice is no volume")
    if len(gaps) and np.ptp(gaps) > UNEVEN * np.median(gaps):
        raise BadInput(
            f"{folder}: slices lie {gaps.min():.3g} to {gaps.max():.3g} mm apart; slices are missing or of two series"
        )


def _is_dicom(file: Path) -> bool:
    if not file.is_file() or file.name == "DICOMDIR":
        return False
    with file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"


def _array(image: sitk.Image, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    dims = image.GetDimension()
    if dims not in (2, 3):
        raise BadInput(f"{path}: has {dims} dimensions; 2 or 3 are expected")
    if 0 in image.GetSize():
        raise BadInput(f"{path}: is empty; its size is {' × '.join(map(str, image.GetSize()))}")
    if "complex" in image.GetPixelIDTypeAsString():
        raise BadInput(f"{path}: holds complex numbers; one real number each is expected")
    array = sitk.GetArrayFromImage(image)  # (Z), Y, X, (C)
    array = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    array = np.transpose(array, (0, *range(dims, 0, -1)))
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (dims, dims))
    affine[:dims, :dims] = direction * np.array(image.GetSpacing())
    affine[:dims, 3] = image.GetOrigin()
    return array.reshape(*array.shape, *[1] * (3 - dims)), TO_RAS @ affine


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
