"""Archives to files, safely: what an archive says about itself is not believed, and no link is ever created.

A member that would land outside the folder, a device, an encrypted file and a decompression bomb are refused by
name. Links inside the folder become the file that they point to, so nothing on disk can lead a later member
astray. Archives inside archives are unpacked where they lie, each into a folder of its own name.
"""

from __future__ import annotations

import bz2
import errno
import filecmp
import gzip
import lzma
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lib.errors import BadInput

GB = 1_000_000_000
LIMIT = 200 * GB  # bytes unpacked from one download
RATIO = 1000  # unpacked to packed, counted beyond the first GB; label maps of zeros reach hundreds
MEMBERS = 5_000_000
DEPTH = 3  # an archive in an archive in an archive
CHUNK = 1 << 20
REPORT_SECONDS = 5

TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz")
SINGLE = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
UNSUPPORTED = (".rar", ".7z", ".zst", ".z01", ".001")
# What the readers raise on damaged bytes, found by damaging them; bz2 raises an OSError without a number.
CORRUPT = (
    *(EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile),
    *(UnicodeDecodeError, NotImplementedError, struct.error),
)
CORRUPT_NUMBERS = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ)
BY_HAND = "Unpack it by hand and give the folder as `source: {path: FOLDER}`"


def is_archive(name: str | Path) -> bool:
    """Whether a file of this name is unpacked; .nii.gz is an image and stays as it is."""
    name = str(name).lower()
    return name.endswith((".zip", *TARS, *SINGLE)) and not name.endswith(".nii.gz")


def is_unsupported(name: str | Path) -> bool:
    """Whether the name is that of an archive that cannot be unpacked here."""
    return str(name).lower().endswith(UNSUPPORTED)


def safe_path(name: str) -> str:
    """A member's name as a path below the folder; raises ValueError that says why it cannot be one."""
    posix = name.replace("\\", "/")  # archives made on Windows
    if posix.startswith("/") or re.match(r"[A-Za-z]:", posix):
        raise ValueError("is an absolute path")
    if "\0" in posix:
        raise ValueError("holds a zero byte")
    parts = [part for part in posix.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("leads out of the folder ('..')")
    return "/".join(parts)


@dataclass
class Budget:
    """How much one download may still become; shared by an archive and those inside it."""

    source: str
    allowed: int
    written: int = 0
    members: int = 0
    reported: float = field(default_factory=time.monotonic)

    def check(self, declared: int) -> None:
        """Raise BadInput where `declared` further bytes exceed the limit."""
        if self.written + declared > self.allowed:
            raise BadInput(
                f"{self.source}: refused as a decompression bomb: it unpacks to at least "
                f"{(self.written + declared) / GB:.1f} GB, more than the {self.allowed / GB:.1f} GB allowed "
                f"({LIMIT // GB} GB, or {RATIO} times its own size). {BY_HAND} if it is meant to be this large."
            )

    def member(self) -> None:
        self.members += 1
        if self.members > MEMBERS:
            raise BadInput(f"{self.source}: refused as a decompression bomb: it holds more than {MEMBERS} members.")

    def spend(self, size: int) -> None:
        """Count bytes as they are written, whatever was declared."""
        self.check(size)
        self.written += size
        if time.monotonic() - self.reported >= REPORT_SECONDS:
            self.reported = time.monotonic()
            print(
                f"unpack {Path(self.source).name}: {self.members} members, {self.written / 1e6:.0f} MB written",
                flush=True,
            )


@dataclass
class Member:
    """One file or link of an archive, its name not yet trusted."""

    name: str
    size: int
    content: BinaryIO | None = None  # of a file
    target: str | None = None  # of a link: a path from the archive's root, not yet trusted


def unpack(archive: str | Path, folder: str | Path) -> None:
    """Unpack zip, tar (.gz/.xz/.bz2) or a single .gz/.xz/.bz2 file into `folder`, which may hold files already.

    Archives inside are unpacked too and removed. A file that is there already must be the same, to the byte.
    `__MACOSX`, `.DS_Store` and `._*` are left out; modes, owners and times are not kept. Raises BadInput for what
    is corrupt or refused, OSError for accidents such as a full disk; `folder` is then incomplete: the caller's
    `lib.files.atomic` removes it.
    """
    archive, folder = Path(archive), Path(folder)
    allowed = min(LIMIT, max(GB, RATIO * archive.stat().st_size))
    _unpack(archive, folder, str(archive), Budget(str(archive), allowed), depth=1)


def _unpack(archive: Path, folder: Path, label: str, budget: Budget, depth: int) -> None:
    """`label` names the archive in messages, with the archives around it."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    links: dict[str, str] = {}
    spelling: dict[str, str] = {}
    try:
        for member in _members(archive, folder, label, budget):
            try:
                name = safe_path(member.name)
                other = spelling.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
                if other != name:
                    raise ValueError(f"differs from {other!r} only by case, and many disks cannot hold both")
                if member.target is not None:
                    links[name] = safe_path(posixpath.normpath(member.target))
                    continue
            except ValueError as error:
                raise BadInput(f"{label}: refused: its member {member.name!r} {error}. {BY_HAND}.") from None
            if (folder / name).exists() or not name:
                _require_same(member, folder / name, label)
            else:
                _write(member, folder / name, label, budget)
                written.append(folder / name)
        written += _place_links(links, folder, label)
    except CORRUPT as error:
        raise BadInput(_corrupt(label, archive, error)) from error
    except OSError as error:
        if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
            raise BadInput(f"{label}: refused: '{error.filename}' is both a file and a folder. {BY_HAND}.") from error
        if error.errno in CORRUPT_NUMBERS:
            raise BadInput(_corrupt(label, archive, error)) from error
        raise _named(error, label, budget) from error
    for path in written:
        inner = f"{label}: {path.relative_to(folder)}"
        if is_unsupported(path):
            print(f"{inner} stays packed: this format is not known here", flush=True)
        if is_archive(path):
            container = path.name.lower().endswith((".zip", *TARS))  # a single compressed file holds no folder
            if container and depth == DEPTH:
                raise BadInput(f"{inner}: refused: archives are nested more than {DEPTH} deep. {BY_HAND}.")
            _unpack(path, _nested_folder(path), inner, budget, depth + container)
            path.unlink()


def _members(archive: Path, folder: Path, label: str, budget: Budget) -> Iterator[Member]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        members = _zip_members(archive, folder, label, budget)
    elif name.endswith(TARS):
        members = _tar_members(archive, folder, label, budget)
    else:
        with SINGLE[archive.suffix.lower()](archive) as file:
            budget.member()
            yield Member(archive.stem, -1, file)
        return
    yield from members


def _zip_members(archive: Path, folder: Path, label: str, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        infos = [info for info in file.infolist() if not info.is_dir() and not _is_litter(info.filename)]
        declared = sum(info.file_size for info in infos)
        budget.check(declared)
        _check_space(folder, declared, label)
        for info in infos:
            budget.member()
            if info.flag_bits & 0x1:
                raise BadInput(f"{label}: its member {info.filename!r} is encrypted. {BY_HAND}.")
            try:
                content = file.open(info)
            except NotImplementedError as error:
                raise BadInput(f"{label}: its member {info.filename!r} cannot be read: {error}. {BY_HAND}.") from None
            with content:
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on Windows
                if kind == stat.S_IFLNK:
                    target = content.read(4096).decode("utf-8", "replace")
                    yield Member(info.filename, 0, target=_from_root(info.filename, target))
                elif kind in (0, stat.S_IFREG):
                    yield Member(info.filename, info.file_size, content)
                else:
                    raise BadInput(f"{label}: refused: its member {info.filename!r} is a device or pipe. {BY_HAND}.")


def _tar_members(archive: Path, folder: Path, label: str, budget: Budget) -> Iterator[Member]:
    with tarfile.open(archive, "r:*", tarinfo=StrictTarInfo) as file:
        for info in file:
            budget.member()
            if info.isdir() or _is_litter(info.name):
                continue
            try:
                safe_path(info.name)  # before the filter, which strips leading slashes
                tarfile.data_filter(info, str(folder))
            except (ValueError, tarfile.FilterError) as error:
                reason = str(error) if isinstance(error, tarfile.FilterError) else f"its member {info.name!r} {error}"
                raise BadInput(f"{label}: refused: {reason}. {BY_HAND}.") from None
            if info.issym():
                yield Member(info.name, 0, target=_from_root(info.name, info.linkname))
            elif info.islnk():
                yield Member(info.name, 0, target=info.linkname)
            else:
                budget.check(info.size)
                _check_space(folder, info.size, label)
                yield Member(info.name, info.size, file.extractfile(info))
        file.fileobj.read(CHUNK)  # past the padding stands the compression's own checksum


class StrictTarInfo(tarfile.TarInfo):
    """A header that is damaged or missing ends the archive with an error; tarfile takes it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        if buf and not buf.strip(b"\0"):  # the end-of-archive mark
            return super().frombuf(buf, encoding, errors)
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            what = error if buf else "the end-of-archive mark is missing"
            raise tarfile.ReadError(f"bad tar header: {what}") from error
        if header.type in b"xgXLKN" and header.size > CHUNK:  # held in memory by tarfile
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _from_root(name: str, target: str) -> str:
    """A symbolic link's target, seen from the archive's root."""
    return target if target.startswith("/") else posixpath.join(posixpath.dirname(name.rstrip("/")), target)


def _is_litter(name: str) -> bool:
    parts = name.replace("\\", "/").rstrip("/").split("/")
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or (parts[-1].startswith("._") and parts[-1] != "._")


def _write(member: Member, path: Path, label: str, budget: Budget) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with path.open("xb") as file:
        while chunk := member.content.read(CHUNK):
            budget.spend(len(chunk))
            file.write(chunk)
            size += len(chunk)
    if member.size not in (-1, size):
        raise EOFError(f"{member.name!r} ends after {size} of {member.size} bytes")


def _require_same(member: Member, path: Path, label: str) -> None:
    """Raise BadInput unless the file that is there already has the member's content."""
    same = path.is_file()
    if same:
        with path.open("rb") as file:
            while same and (chunk := member.content.read(CHUNK)):
                same = file.read(len(chunk)) == chunk
            same = same and not file.read(1)
    if not same:
        raise BadInput(
            f"{label}: refused: its member {member.name!r} is there already with other content. If another of the "
            "source's archives wrote it, give each a folder of its own in the config: `name: FOLDER/FILE.zip`."
        )


def _place_links(links: dict[str, str], folder: Path, label: str) -> list[Path]:
    """Give each link the file that it points to, under a second name."""
    placed = []
    while links:
        ready = [name for name, target in links.items() if (folder / target).is_file()]
        if not ready:
            name, target = next(iter(links.items()))
            what = "a folder" if (folder / target).is_dir() else "nothing in it"
            raise BadInput(f"{label}: refused: its link {name!r} points to {what} ({target!r}). {BY_HAND}.")
        for name in ready:
            path, target = folder / name, folder / links.pop(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                os.link(target, path)
                placed.append(path)
            elif not filecmp.cmp(target, path, shallow=False):
                raise BadInput(f"{label}: refused: its link {name!r} is there already with other content. {BY_HAND}.")
    return placed


def _nested_folder(path: Path) -> Path:
    """Where an archive inside an archive goes: a folder of its name; a single compressed file stays in its folder."""
    name = path.name.lower()
    suffix = max((s for s in (".zip", *TARS) if name.endswith(s)), key=len, default="")
    return path.with_name(path.name[: -len(suffix)]) if suffix else path.parent


def _check_space(folder: Path, size: int, label: str) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            errno.ENOSPC, f"{label}: no room to unpack {size / GB:.1f} GB in {folder} ({free / GB:.1f} GB free)"
        )


def _corrupt(label: str, archive: Path, error: Exception) -> str:
    with archive.open("rb") as file:
        start = file.read(16)
    kind = " (it is a web page)" if start.lstrip().lower().startswith((b"<!doc", b"<html")) else ""
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{label}: corrupt or cut short{kind}: {reason}. It has {archive.stat().st_size} bytes and begins with "
        f"{start!r}. Delete it, download it again, and if it stays so tell its publisher."
    )


def _named(error: OSError, label: str, budget: Budget) -> OSError:
    """The same accident, saying which archive and how far it got."""
    if error.errno == errno.ENOSPC and str(label) in str(error):
        return error
    return OSError(
        error.errno, f"{label}: {os.strerror(error.errno)} while unpacking, after {budget.written / GB:.2f} GB"
    )
