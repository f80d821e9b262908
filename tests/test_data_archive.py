from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import types
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import archive as archive_module
from lib.data.archive import is_archive, safe_path, unpack
from lib.errors import BadInput

FILES = {"imagesTr/a_0000.nii.gz": gzip.compress(b"image"), "labelsTr/a.nii.gz": b"label" * 1000, "dataset.json": b"{}"}


def content(folder: Path) -> dict[str, bytes]:
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def zipped(path: Path | io.BytesIO, files: dict[str, bytes]) -> Path | io.BytesIO:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def tarred(path: Path | io.BytesIO, members: list, mode: str = "w") -> Path | io.BytesIO:
    """`members` are (name, bytes), or (name, type, link target)."""
    where = {"name": path} if isinstance(path, Path) else {"fileobj": path}
    with tarfile.open(mode=mode, **where) as file:
        for name, *rest in members:
            info = tarfile.TarInfo(name)
            if isinstance(rest[0], tuple) or len(rest) == 2:
                info.type, info.linkname = rest
                file.addfile(info)
            else:
                info.size = len(rest[0])
                file.addfile(info, io.BytesIO(rest[0]))
    return path


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.xz", "x.tar.bz2"])
def test_every_kind_of_archive(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".zip"):
        zipped(path, FILES)
    else:
        kind = next((k for k in ("gz", "xz", "bz2") if name.endswith(k)), "")
        tarred(path, list(FILES.items()), f"w:{kind}")
    unpack(path, tmp_path / "out")
    assert content(tmp_path / "out") == FILES


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]
)
def test_a_single_compressed_file(tmp_path, suffix, compress):
    path = tmp_path / f"table.csv{suffix}"
    path.write_bytes(compress(b"a,b\n"))
    unpack(path, tmp_path / "out")
    assert content(tmp_path / "out") == {"table.csv": b"a,b\n"}


def test_what_is_an_archive():
    assert all(map(is_archive, ["A.ZIP", "a.tar", "a.tgz", "a.tar.bz2", "a.img.gz"]))
    assert not any(map(is_archive, ["a.nii.gz", "A.NII.GZ", "a.npz", "a.png", "zip", "a.rar"]))


def test_nested_archives_become_folders_of_their_name(tmp_path):
    inner = zipped(io.BytesIO(), {"t1.nii.gz": b"t1", "notes.txt.gz": gzip.compress(b"hello")}).getvalue()
    middle = tarred(io.BytesIO(), [("p1.zip", inner), ("p2.zip", inner)], "w:gz").getvalue()
    unpack(zipped(tmp_path / "outer.zip", {"data/all.tar.gz": middle, "readme": b"r"}), tmp_path / "out")
    patient = {"t1.nii.gz": b"t1", "notes.txt": b"hello"}
    expected = {f"data/all/{p}/{name}": data for p in ("p1", "p2") for name, data in patient.items()}
    assert content(tmp_path / "out") == expected | {"readme": b"r"}


def test_what_a_mac_leaves_behind_is_left_out(tmp_path):
    files = {"a.png": b"a", "__MACOSX/._a.png": b"x", "d/.DS_Store": b"x", "d/._a.png": b"x"}
    unpack(zipped(tmp_path / "x.zip", files), tmp_path / "zip")
    unpack(tarred(tmp_path / "x.tar", list(files.items())), tmp_path / "tar")
    assert content(tmp_path / "zip") == content(tmp_path / "tar") == {"a.png": b"a"}


def test_names_written_on_windows(tmp_path):
    unpack(zipped(tmp_path / "x.zip", {"images\\a.png": b"a"}), tmp_path / "out")
    assert content(tmp_path / "out") == {"images/a.png": b"a"}


def test_links_inside_become_files(tmp_path):
    members = [
        ("d/early.nii", tarfile.SYMTYPE, "later.nii"),
        ("twice.nii", tarfile.SYMTYPE, "d/early.nii"),
        ("d/later.nii", b"voxels"),
        ("hard.nii", tarfile.LNKTYPE, "d/later.nii"),
    ]
    unpack(tarred(tmp_path / "x.tar", members), tmp_path / "out")
    assert content(tmp_path / "out") == dict.fromkeys(
        ["d/early.nii", "d/later.nii", "hard.nii", "twice.nii"], b"voxels"
    )


SYMLINK, HARDLINK, FIFO, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../evil", b"x"), r"refused: its member '../evil' leads out of the folder \('..'\)"),
        (("a/../../evil", b"x"), r"its member 'a/../../evil' leads out of the folder"),
        (("..\\evil", b"x"), r"leads out of the folder"),
        (("/etc/evil", b"x"), r"its member '/etc/evil' is an absolute path"),
        (("C:\\evil", b"x"), r"is an absolute path"),
        (("link", SYMLINK, "/etc/passwd"), r"refused: 'link' is a link to an absolute path"),
        (("link", SYMLINK, "../../secret"), r"refused: 'link' would link to .*secret.*, which is outside"),
        (("link", HARDLINK, "../secret"), r"refused: 'link' would link to .*outside"),
        (("link", HARDLINK, "/etc/passwd"), r"refused: 'link' is a link to an absolute path"),
        (("link", SYMLINK, "nowhere"), r"its link 'link' points to nothing in it \('nowhere'\)"),
        (("link", SYMLINK, "."), r"its link 'link' points to a folder"),
        (("link", SYMLINK, "link"), r"its link 'link' points to nothing in it"),
        (("good.txt", SYMLINK, "other.txt"), r"its link 'good.txt' is there already with other content"),
        (("pipe", FIFO, ""), r"refused: 'pipe' is a special file"),
        (("disk", DEVICE, ""), r"refused: 'disk' is a special file"),
        (("good.txt", b"other"), r"its member 'good.txt' is there already with other content"),
        (("GOOD.txt", b"x"), r"its member 'GOOD.txt' differs from 'good.txt' only by case"),
        (("good.txt/below", b"x"), r"good.txt' is both a file and a folder"),
    ],
)
def test_a_dangerous_tar_is_refused_by_name(tmp_path, member, message):
    path = tarred(tmp_path / "x.tar", [("good.txt", b"good"), ("other.txt", b"o"), member])
    with pytest.raises(BadInput, match=message) as error:
        unpack(path, tmp_path / "deep" / "out")
    assert str(path) in str(error.value)
    assert "evil" not in " ".join(map(str, tmp_path.rglob("*")))


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_a_dangerous_zip_is_refused_by_name(tmp_path, name):
    path = zipped(tmp_path / "x.zip", {"good.txt": b"good", name: b"x"})
    with pytest.raises(BadInput, match=r"x.zip: refused: its member '.*evil' (leads out|is an absolute)"):
        unpack(path, tmp_path / "deep" / "out")
    assert "evil" not in " ".join(map(str, tmp_path.rglob("*")))


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        (stat.S_IFLNK, b"../../secret", r"its member 'd/link' leads out of the folder"),
        (stat.S_IFLNK, b"/etc/passwd", r"its member 'd/link' is an absolute path"),
        (stat.S_IFCHR, b"", r"its member 'd/link' is a device or pipe"),
        (stat.S_IFLNK, b"../good.txt", None),
    ],
)
def test_links_and_devices_in_a_zip(tmp_path, kind, target, message):
    path = zipped(tmp_path / "x.zip", {"good.txt": b"good"})
    with zipfile.ZipFile(path, "a") as file:
        info = zipfile.ZipInfo("d/link")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        file.writestr(info, target)
    if message:
        with pytest.raises(BadInput, match=message):
            unpack(path, tmp_path / "out")
    else:
        unpack(path, tmp_path / "out")
        assert content(tmp_path / "out") == {"good.txt": b"good", "d/link": b"good"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "flag",
            b"\x01\x00",
            r"x.zip: its member 'a.png' is encrypted. Unpack it by hand and give the folder as `source",
        ),
        ("method", b"\x09\x00", r"x.zip: its member 'a.png' cannot be read: .*compression.*Unpack it by hand"),
    ],
)
def test_a_zip_that_python_cannot_read(tmp_path, field, value, message):
    data = bytearray(zipped(io.BytesIO(), {"a.png": b"a"}).getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(signature) + offset + 2 * (field == "method")
        data[start : start + 2] = value
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(BadInput, match=message):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.txt.gz"])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archive_module, "GB", 1_000_000)
    zeros = bytes(20_000_000)
    path = tmp_path / name
    if name == "x.zip":
        zipped(path, {"zeros": zeros})
    elif name == "x.tar.gz":
        tarred(path, [("small", bytes(10)), ("zeros", zeros)], "w:gz")
    else:
        path.write_bytes(gzip.compress(zeros))
    monkeypatch.setattr(archive_module, "RATIO", 10)
    with pytest.raises(BadInput, match=rf"{name}: refused as a decompression bomb: it unpacks to at least .* GB, more"):
        unpack(path, tmp_path / "out")
    assert sum(map(len, content(tmp_path / "out").values())) <= 1_000_000
    monkeypatch.setattr(archive_module, "RATIO", 10_000)
    unpack(path, tmp_path / "out2")


def test_a_bomb_in_pieces_and_in_layers_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "GB", 1_000_000)
    monkeypatch.setattr(archive_module, "RATIO", 10)
    layer = zipped(io.BytesIO(), {"zeros": bytes(400_000)}).getvalue()
    path = zipped(tmp_path / "x.zip", {f"{i}.zip": layer for i in range(3)})
    with pytest.raises(BadInput, match=r"x.zip: refused as a decompression bomb"):
        unpack(path, tmp_path / "out")
    monkeypatch.setattr(archive_module, "MEMBERS", 2)
    with pytest.raises(BadInput, match=r"it holds more than 2 members"):
        unpack(path, tmp_path / "out2")


def test_a_zip_that_understates_its_size_cannot_write_more(tmp_path):
    data = zipped(io.BytesIO(), {"zeros": bytes(1_000_000)}).getvalue()
    lie = data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    (tmp_path / "x.zip").write_bytes(lie)
    with pytest.raises(BadInput, match=r"x.zip: corrupt or cut short: Bad CRC-32"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size <= 10


def test_too_many_layers_are_refused(tmp_path):
    data = b"core"
    for i in range(4):
        data = zipped(io.BytesIO(), {f"{i}.zip" if i else "core": data}).getvalue()
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(BadInput, match=r"x.zip: 3.zip: 2.zip: 1.zip: refused: archives are nested more than 3 deep"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_an_unknown_format_inside_is_said(tmp_path, capsys):
    unpack(zipped(tmp_path / "x.zip", {"more.rar": b"Rar!"}), tmp_path / "out")
    assert "x.zip: more.rar stays packed: this format is not known here" in capsys.readouterr().out


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=100))
    for path in (zipped(tmp_path / "x.zip", FILES), tarred(tmp_path / "x.tar", list(FILES.items()))):
        with pytest.raises(OSError, match=r"x.*: no room to unpack .* GB in .* GB free\)") as error:
            unpack(path, tmp_path / "out")
        assert error.value.errno == errno.ENOSPC
    assert "labelsTr/a.nii.gz" not in content(tmp_path / "out")


def test_a_disk_that_fills_up_is_named(tmp_path, monkeypatch):
    path = zipped(tmp_path / "x.zip", {"a.png": b"a"})
    (tmp_path / "out").mkdir()
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *args: real(Path("/dev/full"), "wb") if args == ("xb",) else real(self, *args)
    )
    with pytest.raises(OSError, match=r"x.zip: No space left on device while unpacking") as error:
        unpack(path, tmp_path / "out")
    assert error.value.errno == errno.ENOSPC


def test_a_web_page_called_zip_is_named(tmp_path):
    for name in ("x.zip", "x.tar.gz", "x.csv.gz"):
        (tmp_path / name).write_bytes(b"<!DOCTYPE html><html>Log in</html>")
        with pytest.raises(
            BadInput, match=rf"{name}: corrupt or cut short \(it is a web page\): .*begins with b'<!DOC"
        ):
            unpack(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2"])
def test_a_tar_that_was_cut_anywhere_is_never_taken_for_complete(tmp_path, kind):
    """Even between two members, where tarfile alone sees a complete archive."""
    whole = tarred(tmp_path / "whole.tar", [(f"{i}", bytes([i]) * 700) for i in range(4)], f"w:{kind}").read_bytes()
    needed = 4 * (512 + 1024) if not kind else len(whole)
    for size in sorted(
        {*range(0, needed, max(1, len(whole) // 40)), *range(512, needed, 512), needed - 1} - {len(whole)}
    ):
        (tmp_path / "x.tar").write_bytes(whole[:size])
        with pytest.raises(BadInput, match=r"x.tar: corrupt or cut short"):
            unpack(tmp_path / "x.tar", tmp_path / f"out{size}")


@pytest.mark.parametrize("name", ["x.zip", "x.csv.gz", "x.csv.bz2", "x.csv.xz"])
def test_other_archives_cut_short_are_named(tmp_path, name):
    data = bytes(range(256)) * 10
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(name.rpartition(".")[2])
    whole = packed(data) if packed else zipped(io.BytesIO(), {"a": data, "b": data}).getvalue()
    for size in range(1, len(whole), 7):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(BadInput, match=rf"{name}: corrupt or cut short"):
            unpack(tmp_path / name, tmp_path / f"out{size}")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data(), kind=st.sampled_from(["x.zip", "x.tar", "x.tar.gz", "x.csv.bz2"]))
def test_damaged_bytes_end_in_a_named_error_or_in_the_right_files(tmp_path_factory, data, kind):
    tmp_path = tmp_path_factory.mktemp("fuzz")
    if kind == "x.zip":
        whole = bytearray(zipped(io.BytesIO(), FILES).getvalue())
    elif kind == "x.csv.bz2":
        whole = bytearray(bz2.compress(b"abc" * 500))
    else:
        whole = bytearray(
            tarred(io.BytesIO(), list(FILES.items()), f"w:{'gz' if kind.endswith('gz') else ''}").getvalue()
        )
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / kind
    path.write_bytes(whole)
    try:
        unpack(path, tmp_path / "deep" / "out")
    except BadInput as error:
        assert str(path) in str(error)
    outside = [
        p for p in tmp_path.rglob("*") if p.is_file() and p != path and tmp_path / "deep" / "out" not in p.parents
    ]
    assert outside == []


@given(st.text(alphabet=["a", ".", "/", "\\", ":", "C", "\0", "é"], max_size=12))
@settings(deadline=None, derandomize=True)
def test_a_safe_path_stays_below_its_folder(name):
    try:
        safe = safe_path(name)
    except ValueError:
        return
    assert not Path(safe).is_absolute() and ".." not in Path(safe).parts and "\0" not in safe
    assert safe_path(safe) == safe


def test_archives_unpacked_into_one_folder_may_share_only_equal_files(tmp_path):
    first = zipped(tmp_path / "first.zip", {"LICENSE": b"free", "a.png": b"a"})
    second = zipped(tmp_path / "second.zip", {"LICENSE": b"free", "b.png": b"b"})
    third = zipped(tmp_path / "third.zip", {"a.png": b"mask"})
    unpack(first, tmp_path / "out")
    unpack(second, tmp_path / "out")
    assert content(tmp_path / "out") == {"LICENSE": b"free", "a.png": b"a", "b.png": b"b"}
    with pytest.raises(
        BadInput, match=r"third.zip: refused: its member 'a.png' is there already.*name: FOLDER/FILE.zip"
    ):
        unpack(third, tmp_path / "out")
