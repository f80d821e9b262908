"""Label maps written in the geometry of their image, and files that cannot be read."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from lib.data.formats import read_image, read_label, write_label
from lib.errors import BadInput

OBLIQUE = nib.affines.from_matvec(np.array([[0.0, -1.2, 0.1], [0.9, 0.05, 0.2], [0.1, 0.02, 2.5]]), [-20.0, 33.0, 4.5])


def load_image(path):
    image, geometry = read_image(path)
    return image[0], geometry.spacing, geometry.affine


def load_label(path):
    labels, geometry = read_label(path)
    return labels, geometry.spacing, geometry.affine


def save(path, array, affine=OBLIQUE, kind=nib.Nifti1Image):
    nib.save(kind(array, affine), path)
    return path


@pytest.fixture
def volume():
    return np.random.default_rng(0).normal(100, 20, (7, 6, 5)).astype(np.float32)


def test_spacing_is_the_length_of_the_affines_columns(tmp_path, volume):
    image, spacing, affine = load_image(save(tmp_path / "a.nii.gz", volume))
    assert image.dtype == np.float32
    assert np.array_equal(image, volume)
    assert np.allclose(spacing, np.linalg.norm(OBLIQUE[:3, :3], axis=0))
    assert np.allclose(affine, OBLIQUE)


def test_scaled_integers_and_trailing_axes_are_read(tmp_path):
    stored = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), np.eye(4))
    stored.header.set_slope_inter(0.5, -1)
    nib.save(stored, tmp_path / "a.nii")
    image, _, _ = load_image(tmp_path / "a.nii")
    assert image.shape == (2, 3, 4)
    assert np.allclose(image.ravel(), np.arange(24) * 0.5 - 1)


@pytest.mark.parametrize(("high", "dtype"), [(3, np.uint8), (255, np.uint8), (300, np.uint16)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_written_labels_keep_the_geometry_of_the_image(tmp_path, volume, high, dtype, kind):
    like = kind(volume[..., None], None)
    like.header.set_qform(OBLIQUE, code=1)
    like.header.set_sform(OBLIQUE, code=3)
    like.header.set_xyzt_units("mm", "sec")
    like.header["cal_max"] = 55
    nib.save(like, tmp_path / "image.nii.gz")
    labels = np.zeros(volume.shape, np.int64)
    labels[2:5, 1:4, 2:] = high
    write_label(tmp_path / "new" / "case.nii.gz", labels, tmp_path / "image.nii.gz")

    written, image = nib.load(tmp_path / "new" / "case.nii.gz"), nib.load(tmp_path / "image.nii.gz")
    assert type(written) is type(image)
    assert written.shape == image.shape == (7, 6, 5, 1)
    assert written.get_data_dtype() == dtype
    assert np.array_equal(written.affine, image.affine)
    for key in ("qform_code", "sform_code", "pixdim", "xyzt_units"):
        assert np.array_equal(written.header[key], image.header[key]), key
    assert written.header["cal_max"] == 0
    again, spacing, affine = load_label(tmp_path / "new" / "case.nii.gz")
    assert np.array_equal(again, labels)
    assert np.array_equal(affine, image.affine)
    assert np.allclose(spacing, nib.affines.voxel_sizes(image.affine))


def test_label_types(tmp_path, volume):
    whole = np.zeros((3, 3, 3), np.float64)
    whole[0] = 2.0
    labels, _, _ = load_label(save(tmp_path / "float.nii.gz", whole))
    assert labels.dtype == np.uint8
    assert labels[0].min() == labels.max() == 2
    labels, _, _ = load_label(save(tmp_path / "negative.nii.gz", np.array([[[-1, 0, 7000]]], np.int16)))
    assert labels.dtype == np.int32
    assert labels.ravel().tolist() == [-1, 0, 7000]


def test_labels_that_do_not_fit(tmp_path, volume):
    like = save(tmp_path / "image.nii.gz", volume)
    with pytest.raises(ValueError, match=r"labels of shape \(5, 6, 7\) do not fit .*image.nii.gz of shape \(7, 6, 5\)"):
        write_label(tmp_path / "x.nii.gz", np.zeros((5, 6, 7), int), like)
    with pytest.raises(ValueError, match="labels from -1 to 0 do not fit"):
        write_label(tmp_path / "x.nii.gz", np.full((7, 6, 5), -1) + np.eye(6, 5, dtype=int), like)
    assert not (tmp_path / "x.nii.gz").exists()


def reason(path, load=load_image) -> str:
    with pytest.raises(BadInput) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_file(tmp_path):
    assert "does not exist" in reason(tmp_path / "gone.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_files_that_are_not_nifti(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no image at all " * 40)
    assert "not a readable NIfTI file" in reason(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    assert "not a readable NIfTI file" in reason(tmp_path / name)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.997])
def test_truncated_files(tmp_path, volume, share):
    for name in ("a.nii", "a.nii.gz"):
        data = save(tmp_path / name, volume).read_bytes()
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        assert "it is truncated or" in reason(tmp_path / name)
    # a header promises more voxels than there are, inside a sound gzip stream
    with gzip.open(tmp_path / "b.nii.gz", "wb") as file:
        file.write((save(tmp_path / "b.nii", volume)).read_bytes()[:500])
    assert "cannot be read to the end; it is truncated" in reason(tmp_path / "b.nii.gz")


def test_corrupted_stream(tmp_path):
    noise = np.random.default_rng(0).integers(0, 30000, (30, 30, 30)).astype(np.int16)
    data = bytearray(save(tmp_path / "a.nii.gz", noise).read_bytes())
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(data)
    assert "cannot be read to the end" in reason(tmp_path / "a.nii.gz")
    data = bytearray(save(tmp_path / "a.nii.gz", noise).read_bytes())
    data[-6] ^= 1  # of the checksum at the end
    for name in ("a.nii.gz", "A.NII.GZ"):
        (tmp_path / name).write_bytes(data)
        assert "CRC check failed" in reason(tmp_path / name)


def test_unsupported_voxels_and_dimensions(tmp_path):
    rgb = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "one real number each is expected" in reason(save(tmp_path / "rgb.nii", rgb))
    assert "one real number each is expected" in reason(save(tmp_path / "c.nii", np.zeros((3, 3, 3), np.complex64)))
    five = np.zeros((3, 4, 5, 2, 2), np.uint8)
    assert "has shape (3, 4, 5, 2, 2); one volume per file" in reason(save(tmp_path / "five.nii", five))


def test_flat_and_multi_channel_files(tmp_path):
    flat, geometry = read_image(save(tmp_path / "flat.nii", np.arange(12, dtype=np.uint8).reshape(3, 4)))
    assert flat.shape == (1, 3, 4, 1)
    assert geometry.shape == (3, 4, 1)
    stack = np.random.default_rng(0).integers(0, 99, (3, 4, 5, 2)).astype(np.uint8)
    image, geometry = read_image(save(tmp_path / "four.nii.gz", stack))
    assert np.array_equal(image, np.moveaxis(stack, -1, 0))
    assert geometry.shape == (3, 4, 5)
    write_label(tmp_path / "label.nii.gz", stack[..., 0], tmp_path / "four.nii.gz")
    labels, written = read_label(tmp_path / "label.nii.gz")
    assert np.array_equal(labels, stack[..., 0])
    assert np.array_equal(written.affine, geometry.affine)
    assert "has 2 channels; a label map has one" in reason(tmp_path / "four.nii.gz", load_label)


@pytest.mark.parametrize("size", [0.0, -1.5, np.nan])
def test_bad_voxel_size(tmp_path, volume, size):
    path = save(tmp_path / "a.nii", volume)
    data = bytearray(path.read_bytes())
    data[76 + 4 * 2 : 76 + 4 * 3] = np.float32(size).tobytes()  # pixdim[2]
    path.write_bytes(data)
    assert "must be above 0" in (text := reason(path))
    assert f"{size:.4g}" in text


def test_degenerate_affine(tmp_path, volume):
    for name, matrix in (("flat", np.diag([1.0, 0, 1])), ("parallel", np.array([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]]))):
        image = nib.Nifti1Image(volume, np.eye(4))
        image.header.set_sform(nib.affines.from_matvec(matrix, [0, 0, 0]), code=1)
        image.header["pixdim"][1:4] = 1
        with open(tmp_path / f"{name}.nii", "wb") as file:
            image.header["vox_offset"] = 352
            file.write(image.header.binaryblock + bytes(4) + volume.tobytes(order="F"))
    assert "must be above 0" in reason(tmp_path / "flat.nii")
    assert "two axes of its affine are parallel" in reason(tmp_path / "parallel.nii")


def test_labels_that_are_not_whole_numbers(tmp_path):
    labels = np.zeros((4, 4, 4), np.float32)
    labels[0, 0, :2] = 0.5
    text = reason(save(tmp_path / "a.nii.gz", labels), load_label)
    assert "2 voxels of this label map are not whole numbers (for example 0.5)" in text
    labels[0, 0, :3] = [np.nan, np.inf, 1]
    assert "2 voxels of this label map are NaN or infinite" in reason(save(tmp_path / "b.nii.gz", labels), load_label)
    labels[0, 0, :3] = [1e12, 0, 0]
    assert "do not fit into 32 bits" in reason(save(tmp_path / "c.nii.gz", labels), load_label)
