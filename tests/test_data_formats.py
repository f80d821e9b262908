"""Files of every format: exact values, the geometry by an independent road, and what is wrong with a bad one."""

from __future__ import annotations

import locale
import random
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from lib.data.formats import label_suffix, read_image, read_label, read_mask, write_label
from lib.errors import BadInput

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 10), np.uint8)
COLOUR = RNG.integers(0, 256, (12, 10, 3), np.uint8)
VOLUME = RNG.integers(-500, 500, (7, 6, 5)).astype(np.int16)
LABELS = RNG.integers(0, 3, (4, 5), np.uint8)


def picture(path: Path, array: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def indexed(path: Path, indices: np.ndarray, colours: list[list[int]]) -> Path:
    image = Image.new("P", indices.shape[::-1])
    image.putdata(indices.ravel().tolist())
    image.putpalette([part for colour in colours for part in colour])
    image.save(path)
    return path


def arrays(path: Path, **named) -> Path:
    np.savez_compressed(path, **named)
    return path


def itk_volume(array: np.ndarray = VOLUME) -> sitk.Image:
    """An array (X, Y, Z) turned about two axes, with spacing and origin."""
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10.0, -20.0, 30.0))
    a, b = 0.3, -0.5
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    image.SetDirection((about_y @ about_z).ravel().tolist())
    return image


def fault(path: Path, read=read_image, *arguments) -> str:
    with pytest.raises(BadInput) as caught:
        read(path, *arguments)
    assert str(path) in str(caught.value)
    return str(caught.value)


# Pictures


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_pictures_are_rows_and_columns(tmp_path, suffix):
    path = picture(tmp_path / f"a.{suffix}", GREY)
    image, geometry = read_image(path)
    assert image.shape == (1, 12, 10, 1)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0, :, :, 0], GREY)
    assert (geometry.unit, geometry.shape, geometry.spacing.tolist()) == ("px", (12, 10, 1), [1, 1, 1])
    labels, _ = read_label(path)
    np.testing.assert_array_equal(labels[..., 0], GREY)


@pytest.mark.parametrize(
    ("suffix", "options"), [("png", {}), ("bmp", {}), ("tif", {"compression": "tiff_lzw"}), ("tiff", {})]
)
def test_colours_are_channels(tmp_path, suffix, options):
    image, _ = read_image(picture(tmp_path / f"a.{suffix}", COLOUR, **options))
    np.testing.assert_array_equal(image[..., 0], np.moveaxis(COLOUR, -1, 0))


def test_transparency_is_dropped_and_grey_stays_one_channel(tmp_path):
    transparent = np.concatenate([COLOUR, GREY[..., None]], axis=-1)
    image, _ = read_image(picture(tmp_path / "rgba.png", transparent))
    np.testing.assert_array_equal(image[..., 0], np.moveaxis(COLOUR, -1, 0))
    image, _ = read_image(picture(tmp_path / "la.png", np.stack([GREY, GREY[::-1]], axis=-1)))
    np.testing.assert_array_equal(image[..., 0], GREY[None])


def test_a_palette_gives_colours_to_images_and_indices_to_labels(tmp_path):
    colours = [[0, 0, 0], [128, 0, 0], [0, 128, 5]]
    path = indexed(tmp_path / "a.png", LABELS, colours)
    np.testing.assert_array_equal(np.moveaxis(read_image(path)[0][..., 0], 0, -1), np.array(colours)[LABELS])
    np.testing.assert_array_equal(read_label(path)[0][..., 0], LABELS)
    # the colours mean the labels where the dataset says so, whatever their indices
    swapped, _ = read_label(path, {7: [0, 128, 5], 3: [128, 0, 0]})
    np.testing.assert_array_equal(swapped[..., 0], np.array([0, 3, 7])[LABELS])


def test_black_and_white_pictures(tmp_path):
    inside = LABELS > 0
    for suffix in ("png", "bmp", "tif"):
        path = picture(tmp_path / f"a.{suffix}", inside)
        assert Image.open(path).mode == "1"
        np.testing.assert_array_equal(read_image(path)[0][0, :, :, 0], inside * 255)
        mask, _ = read_mask(path)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask[..., 0], inside)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    deep = (np.arange(20).reshape(4, 5) * 3000 + 7).astype(np.uint16)
    path = picture(tmp_path / f"a.{suffix}", deep)
    np.testing.assert_array_equal(read_image(path)[0][0, :, :, 0], deep)
    np.testing.assert_array_equal(read_label(path)[0][..., 0], deep)


def test_floats_and_pages_of_tiff(tmp_path):
    values = RNG.normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(read_image(picture(tmp_path / "f.tif", values))[0][0, :, :, 0], values)
    pages = [GREY, GREY[::-1].copy(), GREY // 2]
    path = tmp_path / "stack.tif"
    Image.fromarray(pages[0]).save(path, save_all=True, append_images=[Image.fromarray(page) for page in pages[1:]])
    image, geometry = read_image(path)
    assert geometry.shape == (12, 10, 3)
    np.testing.assert_array_equal(image[0], np.stack(pages, axis=-1))
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY[:5])])
    assert "its pages differ in size" in fault(path)


def test_previews_and_animation_are_no_pages(tmp_path):
    first, second = Image.fromarray(COLOUR), Image.fromarray(COLOUR[:6, :5])
    first.save(tmp_path / "camera.jpg", format="MPO", save_all=True, append_images=[second])  # as phones write
    first.save(tmp_path / "moving.png", save_all=True, append_images=[Image.fromarray(COLOUR[::-1].copy())])
    for name in ("camera.jpg", "moving.png"):
        assert Image.open(tmp_path / name).n_frames == 2
        assert read_image(tmp_path / name)[0].shape == (3, 12, 10, 1)
        assert label_suffix(tmp_path / name) == ".png"
    np.testing.assert_array_equal(read_image(tmp_path / "moving.png")[0][..., 0], np.moveaxis(COLOUR, -1, 0))


def test_a_photograph_is_nearly_what_was_saved(tmp_path):
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8) * 3
    image, _ = read_image(picture(tmp_path / "a.jpeg", smooth, quality=95))
    assert np.abs(image[0, :, :, 0] - smooth).max() <= 4


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, side):
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))
    for read in (read_image, read_mask):
        assert f"({side**2} pixels) exceeds limit" in fault(path, read)


# Colour masks


def test_colours_become_label_values(tmp_path):
    palette = {1: [128, 0, 0], 5: [0, 0, 200], 300: [1, 2, 3]}
    values = np.array([[0, 1, 5], [300, 1, 0]])
    colours = np.zeros((2, 3, 3), np.uint8)
    for value, colour in palette.items():
        colours[values == value] = colour
    labels, _ = read_label(picture(tmp_path / "a.png", colours), palette)
    np.testing.assert_array_equal(labels[..., 0], values)
    grey = picture(tmp_path / "grey.png", np.array([[0, 80, 160]], np.uint8))
    np.testing.assert_array_equal(read_label(grey, {1: [80] * 3, 2: [160] * 3})[0].ravel(), [0, 1, 2])
    # black may mean something
    np.testing.assert_array_equal(read_label(grey, {0: [160] * 3, 1: [80] * 3, 9: [0] * 3})[0].ravel(), [9, 1, 0])


def test_colours_that_nobody_declared(tmp_path):
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[0, 0], colours[1, :3] = (128, 0, 0), (5, 250, 7)
    path = picture(tmp_path / "a.png", colours)
    assert fault(path, read_label, {1: [128, 0, 0]}).endswith(
        "colours that `palette` does not list: [5, 250, 7] (3 pixels)"
    )
    assert (
        "a colour mask with 3 colours ([0, 0, 0], [5, 250, 7], [128, 0, 0]); say what they mean with palette:"
        in fault(path, read_label)
    )
    two = arrays(tmp_path / "two.npz", label=np.zeros((2, 3, 4, 5), np.uint8))
    assert "has 2 channels of uint8; `palette` is for masks with 1 or 3" in fault(two, read_label, {1: [1, 1, 1]})
    half = arrays(tmp_path / "half.npz", label=np.array([[np.nan, 0.5]]))
    assert "1 channels of float64; `palette` is for masks" in fault(half, read_label, {1: [1, 1, 1]})


def test_grey_written_as_colour_needs_no_palette(tmp_path):
    path = picture(tmp_path / "a.png", np.repeat(LABELS[..., None], 3, axis=-1))
    np.testing.assert_array_equal(read_label(path)[0][..., 0], LABELS)


# Binary masks


def test_jpeg_is_refused_for_labels_and_cut_for_masks(tmp_path):
    inside = np.zeros((32, 32), bool)
    inside[5:22, 9:19] = True
    path = picture(tmp_path / "a.jpg", inside.astype(np.uint8) * 255, quality=60)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2  # it did smear
    assert "JPEG does not keep label values; use PNG, or" in fault(path, read_label)
    np.testing.assert_array_equal(read_mask(path)[0][..., 0], inside)


def test_what_is_a_binary_mask(tmp_path):
    for number, high in enumerate((1, 7, 255)):
        path = picture(tmp_path / f"{number}.png", (LABELS > 1).astype(np.uint8) * high)
        np.testing.assert_array_equal(read_mask(path)[0][..., 0], LABELS > 1)
    assert read_mask(arrays(tmp_path / "full.npz", mask=np.ones((3, 3))))[0].all()
    assert not read_mask(arrays(tmp_path / "none.npz", mask=np.zeros((3, 3))))[0].any()
    three = picture(tmp_path / "three.png", LABELS)
    assert fault(three, read_mask).endswith("a binary mask has 0 and one other value, but here are 0, 1, 2")
    high = picture(tmp_path / "high.png", LABELS // 2 + 1)
    assert fault(high, read_mask).endswith("but here are 1, 2")
    assert "is coloured; a binary mask is black and white" in fault(picture(tmp_path / "c.png", COLOUR), read_mask)
    assert fault(arrays(tmp_path / "nan.npz", mask=np.array([[0, np.nan]])), read_mask).endswith("but here are 0, nan")
    assert fault(arrays(tmp_path / "minus.npz", mask=np.array([[0, -1]])), read_mask).endswith("but here are -1, 0")


@pytest.mark.parametrize("array", [np.array([["a", "b"]]), np.array([[1j, 0]]), np.zeros((2, 2), "datetime64[s]")])
def test_voxels_that_are_no_numbers(tmp_path, array):
    path = arrays(tmp_path / "a.npz", label=array)
    assert "one real number each is expected" in fault(path)
    assert "one real number each is expected" in fault(path, read_mask)
    assert "are no labels; whole numbers are expected" in fault(path, read_label)


# NPZ


def test_arrays_of_two_to_four_axes(tmp_path):
    flat, geometry = read_image(arrays(tmp_path / "2.npz", image=GREY))
    np.testing.assert_array_equal(flat, GREY[None, :, :, None])
    assert geometry.unit == "px"
    volume, geometry = read_image(arrays(tmp_path / "3.npz", image=VOLUME, spacing=[1.0, 2.0, 3.5]))
    np.testing.assert_array_equal(volume, VOLUME[None])
    assert (geometry.unit, geometry.spacing.tolist()) == ("mm", [1, 2, 3.5])
    np.testing.assert_array_equal(geometry.affine, np.diag([1, 2, 3.5, 1]))
    channels, geometry = read_image(arrays(tmp_path / "4.npz", stack=np.stack([VOLUME, VOLUME + 1])))  # the only array
    np.testing.assert_array_equal(channels, np.stack([VOLUME, VOLUME + 1]))
    assert geometry.shape == (7, 6, 5)
    flat, geometry = read_image(arrays(tmp_path / "px.npz", image=GREY, other=VOLUME, spacing=[0.5, 0.25]))
    assert (geometry.unit, geometry.spacing.tolist(), flat.shape) == ("mm", [0.5, 0.25, 1], (1, 12, 10, 1))


def test_arrays_that_say_too_little(tmp_path):
    assert "holds the arrays image, label; name one" in fault(arrays(tmp_path / "a.npz", image=GREY, label=GREY))
    assert "holds the arrays a, b; name one" in fault(arrays(tmp_path / "b.npz", a=GREY, b=GREY))
    assert "holds the arrays spacing; name one" in fault(arrays(tmp_path / "c.npz", spacing=[1, 1]))
    assert "an array of shape (12,)" in fault(arrays(tmp_path / "d.npz", image=GREY[:, 0]))
    assert "an array of shape (0, 3)" in fault(arrays(tmp_path / "e.npz", image=np.zeros((0, 3))))
    assert "spacing [1.0, 0.0]" in fault(arrays(tmp_path / "f.npz", image=GREY, spacing=[1, 0]))
    assert "spacing [1.0]" in fault(arrays(tmp_path / "g.npz", image=GREY, spacing=1.0))
    assert "not a readable NPZ file" in fault(arrays(tmp_path / "h.npz", image=np.array([[None]])))
    with open(tmp_path / "npy.npz", "wb") as file:
        np.save(file, GREY)
    assert "not a readable NPZ file" in fault(tmp_path / "npy.npz")


# MHA, MHD, NRRD: the same image written as NIfTI by SimpleITK and read by nibabel is the independent road


@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_directions_agree_with_nifti(tmp_path, suffix, compressed):
    image = itk_volume()
    sitk.WriteImage(image, str(tmp_path / f"a.{suffix}"), compressed)
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    reference = nib.load(tmp_path / "a.nii")
    array, geometry = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(array[0], VOLUME)
    np.testing.assert_allclose(geometry.affine, reference.affine, atol=1e-5)
    np.testing.assert_allclose(geometry.spacing, [0.7, 0.8, 2.5])
    assert geometry.unit == "mm"


def test_a_header_in_ras_axes(tmp_path):
    """Written by hand, so that not ITK alone says what the axes mean."""
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\nencoding: raw\n"
    header += b"space directions: (2,0,0) (0,0,3) (0,4,0)\nspace origin: (1,2,3)\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + bytes(range(24)))
    array, geometry = read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(array[0], np.arange(24).reshape(2, 3, 4, order="F"))
    np.testing.assert_allclose(geometry.affine, [[2, 0, 0, 1], [0, 0, 4, 2], [0, 3, 0, 3], [0, 0, 0, 1]], atol=1e-12)


def test_flat_and_multi_channel_itk_files(tmp_path):
    flat = sitk.GetImageFromArray(GREY.T)
    flat.SetSpacing((0.5, 0.25))
    flat.SetOrigin((3, 4))
    sitk.WriteImage(flat, str(tmp_path / "flat.mha"))
    array, geometry = read_image(tmp_path / "flat.mha")
    np.testing.assert_array_equal(array, GREY[None, :, :, None])
    assert (geometry.unit, geometry.spacing.tolist()) == ("mm", [0.5, 0.25, 1])
    np.testing.assert_allclose(geometry.affine[:, 3], [-3, -4, 0, 1])
    for suffix in ("mha", "nrrd"):
        vectors = np.stack([VOLUME, VOLUME + 1]).T
        sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), str(tmp_path / f"v.{suffix}"))
        np.testing.assert_array_equal(read_image(tmp_path / f"v.{suffix}")[0], np.stack([VOLUME, VOLUME + 1]))
        assert "has 2 channels; a label map has one" in fault(tmp_path / f"v.{suffix}", read_label)


def meta_image(path: Path, **fields) -> Path:
    header = {"NDims": 3, "ElementSpacing": "1 1 1", "DimSize": "2 2 2", "ElementType": "MET_UCHAR", **fields}
    lines = [f"{key} = {value}" for key, value in header.items()]
    path.write_bytes("\n".join([*lines, "ElementDataFile = LOCAL", ""]).encode() + bytes(range(8)))
    return path


def test_headers_that_make_no_sense(tmp_path):
    assert read_image(meta_image(tmp_path / "a.mha"))[0].shape == (1, 2, 2, 2)
    assert "is empty; its size is 0 × 2 × 2" in fault(meta_image(tmp_path / "b.mha", DimSize="0 2 2"))
    assert "cannot be read" in fault(meta_image(tmp_path / "c.mha", ElementSpacing="0 1 1"))
    assert "cannot be read" in fault(meta_image(tmp_path / "d.mha", TransformMatrix="1 0 0 1 0 0 0 0 1"))
    assert "cannot be read" in fault(meta_image(tmp_path / "e.mha", DimSize="90000 90000 900"))
    four = sitk.Image([2, 2, 2, 2], sitk.sitkUInt8)
    sitk.WriteImage(four, str(tmp_path / "four.mha"))
    assert "has 4 dimensions; 2 or 3 are expected" in fault(tmp_path / "four.mha")
    sitk.WriteImage(sitk.Image([2, 2, 2], sitk.sitkComplexFloat32), str(tmp_path / "c.nrrd"))
    assert "holds complex numbers" in fault(tmp_path / "c.nrrd")
    sitk.WriteImage(itk_volume(), str(tmp_path / "gone.mhd"))
    (tmp_path / "gone.raw").unlink()
    assert "cannot be read" in fault(tmp_path / "gone.mhd")


# DICOM series, written by GDCM


def series(folder: Path, names: str = "abcde", uid: str = "1.2.826.0.1.3680043.2.1125.1", skip=(), place=None) -> Path:
    """The five slices of `itk_volume` as files `names`; `place`: position of slice z instead of its own."""
    image, m = itk_volume(), itk_volume().GetDirection()
    folder.mkdir(exist_ok=True)
    writer, before = sitk.ImageFileWriter(), locale.setlocale(locale.LC_ALL)
    writer.KeepOriginalImageUIDOn()
    for z in set(range(5)) - set(skip):
        plane = image[:, :, z]
        position = place(z) if place else image.TransformIndexToPhysicalPoint((0, 0, z))
        tags = {
            "0008|0060": "MR", "0008|0016": "1.2.840.10008.5.1.4.1.1.4", "0008|0018": f"{uid}.{z + 5}",
            "0020|000d": f"{uid}.1", "0020|000e": uid, "0020|0013": str(z),
            "0020|0032": "\\".join(map(str, position)),
            "0020|0037": "\\".join(map(str, (m[0], m[3], m[6], m[1], m[4], m[7]))),
        }  # fmt: skip
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{names[z]}.dcm"))
        writer.Execute(plane)
    locale.setlocale(locale.LC_ALL, before)  # which GDCM sets to C when it writes, for all tests to come
    return folder


def test_slices_are_sorted_by_position(tmp_path):
    folder = series(tmp_path / "mr.1", "cadbe")
    (folder / "readme.txt").write_text("no slice")
    array, geometry = read_image(folder)
    np.testing.assert_array_equal(array[0], VOLUME)
    sitk.WriteImage(itk_volume(), str(tmp_path / "a.nii"))
    np.testing.assert_allclose(geometry.affine, nib.load(tmp_path / "a.nii").affine, atol=1e-5)
    one, geometry = read_image(series(tmp_path / "one", skip=(0, 1, 2, 4)))
    np.testing.assert_array_equal(one[0], VOLUME[:, :, 3:4])


def test_folders_that_are_not_one_whole_series(tmp_path):
    (tmp_path / "none").mkdir()
    assert "holds no DICOM series" in fault(tmp_path / "none")
    assert "slices lie 2.5 to 5 mm apart; slices are missing" in fault(series(tmp_path / "gap", skip=(2,)))
    origin, step = np.array([10.0, -20, 30]), np.array(itk_volume().GetDirection()).reshape(3, 3)[:, 2]
    uneven = series(tmp_path / "uneven", place=lambda z: tuple(origin + step * (2.5 * z + (0.2 if z == 3 else 0))))
    assert "slices lie 2.3 to 2.7 mm apart" in fault(uneven)
    assert "all its slices lie at one place" in fault(series(tmp_path / "film", place=lambda z: (0, 0, 0)))
    two = series(series(tmp_path / "two"), "vwxyz", uid="1.2.3.4")
    assert "holds 2 DICOM series (1.2.3.4, 1.2.826" in fault(two)
    twice = series(series(tmp_path / "twice"), "vwxyz")
    assert "slices are missing or of two series" in fault(twice)


def test_a_damaged_slice_is_never_left_out(tmp_path):
    """GDCM itself passes over what it cannot read: without a check the volume would only be shorter."""
    for name in "ace":  # first, inner and last
        folder = series(tmp_path / name)
        file = folder / f"{name}.dcm"
        file.write_bytes(file.read_bytes()[:-20])
        assert f"{file}: is no slice of the DICOM series" in fault(folder)


# Missing, unknown and damaged files


def test_unknown_and_missing_files(tmp_path):
    (tmp_path / "a.xyz").write_text("?")
    assert "unknown format; supported are .nii, .nii.gz, .mha" in fault(tmp_path / "a.xyz")
    for name in ("a.png", "a.npz", "a.mha", "a.tif"):
        assert "this file does not exist" in fault(tmp_path / name)
        (tmp_path / name).mkdir()  # a folder by the name of a file
        assert len(fault(tmp_path / name)) > len(str(tmp_path / name))


def samples(folder: Path) -> list[Path]:
    picture(folder / "grey.png", GREY)
    picture(folder / "colour.png", COLOUR)
    picture(folder / "colour.jpg", COLOUR)
    picture(folder / "grey.bmp", GREY)
    picture(folder / "lzw.tif", COLOUR, compression="tiff_lzw")
    picture(folder / "deflate.tif", COLOUR, compression="tiff_deflate")
    picture(folder / "float.tif", GREY.astype(np.float32))
    Image.fromarray(GREY).save(folder / "stack.tif", save_all=True, append_images=[Image.fromarray(GREY[::-1].copy())])
    indexed(folder / "palette.png", LABELS, [[0, 0, 0], [128, 0, 0], [0, 128, 0]])
    np.savez(folder / "plain.npz", image=VOLUME, spacing=[1, 2, 3.0])
    np.savez_compressed(folder / "packed.npz", image=VOLUME)
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), folder / "plain.nii")
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), folder / "packed.nii.gz")
    for name, compressed in (("plain.mha", False), ("packed.mha", True), ("plain.nrrd", False), ("packed.nrrd", True)):
        sitk.WriteImage(itk_volume(), str(folder / name), compressed)
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_are_named_and_nothing_else_is_raised(tmp_path):
    """A cut file is refused or was whole but for its tail; one with flipped bits is read or refused."""
    generator = random.Random(0)
    refused = {}
    for path in samples(tmp_path):
        data, whole = path.read_bytes(), read_image(path)[0]
        cuts = [data[:n] for n in range(0, len(data), max(1, len(data) // 12))]
        flips = []
        for number in range(24):
            flipped = bytearray(data)
            for _ in range(1 + number % 2):
                flipped[generator.randrange(min(len(data), 96 if number % 4 else len(data)))] ^= generator.randrange(
                    1, 256
                )
            flips.append(bytes(flipped))
        count = 0
        for number, damaged in enumerate([*cuts, *flips, b"this is no image " * 40]):
            path.write_bytes(damaged)
            try:
                array, _ = (read_image, read_label, read_mask)[number % 3 if number >= len(cuts) else 0](path)
            except BadInput as error:
                assert str(path) in str(error)
                count += number < len(cuts)
            else:
                assert number < len(cuts) + len(flips)
                if number < len(cuts):
                    np.testing.assert_array_equal(array, whole, err_msg=f"{path.name} cut to {len(damaged)} bytes")
        refused[path.name] = count / len(cuts)
    assert min(refused.values()) > 0.7, refused


# Writing label maps


def likes(folder: Path) -> dict[str, tuple[Path, tuple[int, int, int]]]:
    """An image of each kind with its shape."""
    sitk.WriteImage(itk_volume(), str(folder / "a.mha"))
    Image.fromarray(GREY).save(folder / "s.tif", save_all=True, append_images=[Image.fromarray(GREY)] * 2)
    return {
        "picture": (picture(folder / "a.png", COLOUR), (12, 10, 1)),
        "photograph": (picture(folder / "a.jpg", COLOUR), (12, 10, 1)),
        "stack": (folder / "s.tif", (12, 10, 3)),
        "array": (arrays(folder / "a.npz", image=VOLUME, spacing=[1, 2, 3.0]), (7, 6, 5)),
        "flat array": (arrays(folder / "b.npz", image=GREY), (12, 10, 1)),
        "mha": (folder / "a.mha", (7, 6, 5)),
        "dicom": (series(folder / "dicom"), (7, 6, 5)),
    }


@pytest.mark.parametrize("high", [3, 255, 300])
def test_labels_lie_on_their_image_in_every_format(tmp_path, high):
    for kind, (like, shape) in likes(tmp_path).items():
        suffix = label_suffix(like)
        assert suffix == (".png" if kind in ("picture", "photograph") else ".nii.gz"), kind
        path = tmp_path / "out" / f"{kind}{suffix}"
        labels = np.random.default_rng(1).choice([0, 1, high], shape)
        labels[0, 0, 0] = high
        write_label(path, labels, like)
        again, geometry = read_label(path)
        np.testing.assert_array_equal(again, labels, err_msg=kind)
        assert again.dtype == (np.uint8 if high < 256 else np.int32)
        own = read_image(like)[1]
        assert geometry.shape == own.shape
        np.testing.assert_allclose(geometry.affine, own.affine, atol=1e-5, err_msg=kind)
        with pytest.raises(ValueError, match=r"labels of shape \(2, 2, 2\) do not fit"):
            write_label(path, np.zeros((2, 2, 2), int), like)
        np.testing.assert_array_equal(read_label(path)[0], labels)  # a refusal leaves the old file
    for wrong in (-1, 70_000):
        with pytest.raises(ValueError, match="do not fit into 16 bits"):
            write_label(tmp_path / "x.png", np.full((12, 10, 1), wrong), tmp_path / "a.png")
