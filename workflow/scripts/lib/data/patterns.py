"""File name patterns with named fields, and the listing of a folder in which they are looked for."""

from __future__ import annotations

import csv
import difflib
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib.errors import BadInput

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
EXTENSIONS = (
    *(".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".npz"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
)
FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
TOKEN = re.compile(r"\{([A-Za-z_]\w*)\}|(\*\*/)|(\*)")


@dataclass(frozen=True)
class Pattern:
    """A path relative to a folder with named fields, such as "{site}/{patient}_t1.nii.gz".

    A field stands for one or more characters other than "/", and for the same ones wherever it recurs. Outside fields,
    "*" is any characters of one name and "**/" any folders. A pattern that ends in "/" is a folder of files that
    together are one image. `key` names the pattern in messages.
    """

    key: str
    text: str
    tokens: tuple[tuple[str, str], ...]  # (kind, text) with kind one of text, field, folders, any
    folder: bool

    @classmethod
    def parse(cls, text: str, key: str) -> Pattern:
        """Raises BadInput on braces that are no field, on "**" that is no whole folder, and on paths that lead out."""
        if re.search(r"[{}]", FIELD.sub("", text)):
            raise BadInput(f"{key}: '{text}' has braces that are not a {{field}} of letters, digits and underscores")
        if re.search(r"(?<!^)(?<!/)\*\*|\*\*(?!/)", text):
            raise BadInput(f"{key}: in '{text}', write ** as a whole folder, as in **/{{patient}}.nii.gz")
        if text.startswith(("/", "~")) or ".." in text.split("/"):
            raise BadInput(f"{key}: '{text}' leads out of the dataset's folder; make source.path a folder above both")
        tokens, end = [], 0
        text = re.sub(r"(?<![^/])(\./)+", "", re.sub("/+", "/", text))
        for match in TOKEN.finditer(text):
            tokens.append(("text", text[end : match.start()]))
            field, folders, _ = match.groups()
            tokens.append(("field", field) if field else ("folders", "") if folders else ("any", ""))
            end = match.end()
        tokens.append(("text", text[end:].rstrip("/")))
        return cls(key, text, tuple(token for token in tokens if token != ("text", "")), text.endswith("/"))

    @property
    def fields(self) -> list[str]:
        """Names of the fields in order, each once."""
        return list(dict.fromkeys(text for kind, text in self.tokens if kind == "field"))

    def fill(self, values: dict[str, str]) -> Pattern:
        """The pattern with some of its fields replaced by values."""
        tokens = tuple(("text", values[t]) if kind == "field" and t in values else (kind, t) for kind, t in self.tokens)
        text = FIELD.sub(lambda match: values.get(match[1], match[0]), self.text)
        return Pattern(self.key, text, tokens, self.folder)

    def read(self, name: str, where: str | Path = "") -> dict[str, str] | None:
        """Values of the fields in a name; None if it does not match. Raises BadInput if it can be read in two ways."""
        if (match := self._regex(self.tokens, "").fullmatch(name)) is None:
            return None
        # The first reading gives the leftmost field most, the other gives it least: equal means there is no third.
        if (other := self._regex(self.tokens, "?").fullmatch(name).groupdict()) != match.groupdict():
            ways = " or ".join(" ".join(f"{k}={v}" for k, v in way.items()) for way in (match.groupdict(), other))
            raise BadInput(
                f"{self.key}: {Path(where) / name} matches '{self.text}' in two ways, {ways}; write what every name "
                "shares into the pattern, such as case_{patient}_{phase}, or use more fields"
            )
        return match.groupdict()

    def levels(self) -> list[tuple[tuple[str, str], ...] | None]:
        """The tokens of each folder on the way, then of the file; None where any number of folders may be."""
        levels, level = [], []
        for kind, text in self.tokens:
            if kind == "folders":
                levels += [tuple(level)] if level else []
                levels, level = [*levels, None], []
            elif kind == "text":
                first, *rest = text.split("/")
                level.append(("text", first))
                for part in rest:
                    levels, level = [*levels, tuple(level)], [("text", part)]
            else:
                level.append((kind, text))
        levels.append(tuple(level))
        return [level for level in levels if level is None or level != (("text", ""),)]

    @staticmethod
    def _regex(tokens: Iterable[tuple[str, str]], lazy: str, named: bool = True) -> re.Pattern:
        out, seen = "", set()
        for kind, text in tokens:
            if kind == "text":
                out += re.escape(text)
            elif kind == "any":
                out += f"[^/]*{lazy}"
            elif kind == "folders":
                out += f"(?:[^/]+/)*{lazy}"
            elif not named:
                out += "[^/]+"
            else:
                out += f"(?P={text})" if text in seen else f"(?P<{text}>[^/]+{lazy})"
                seen.add(text)
        return re.compile(out, re.DOTALL)


class Listing:
    """The names in a folder, each directory read once. Hidden names (".x") are left out, as leavings of systems.

    Names are relative to the folder, with "/"; those of directories end in "/".
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise BadInput(
                f"source.path: the folder {self.folder} does not exist (seen from {Path.cwd()}); correct the path"
            )
        self._read: dict[str, list[str]] = {}

    def names(self, directory: str = "") -> list[str]:
        """Sorted names in a directory ("" or ending in "/"); nothing where there is no such directory."""
        if directory not in self._read:
            try:
                with os.scandir(self.folder / directory) as entries:
                    found = [(e.name, e.is_dir()) for e in entries if not e.name.startswith(".") and _is_there(e)]
            except (FileNotFoundError, NotADirectoryError):
                found = []
            except PermissionError:
                raise BadInput(f"{self.folder / directory} may not be read; change its permissions") from None
            self._read[directory] = sorted(name + "/" * is_dir for name, is_dir in found)
        return self._read[directory]

    def holds(self, directory: str, name: str) -> bool:
        names = self.names(directory)
        at = bisect_left(names, name)
        return at < len(names) and names[at] == name

    def walk(self, directory: str = "") -> Iterator[str]:
        """All files under a directory; a directory that holds DICOM files is one of them, with "/" at the end."""
        for name in self.names(directory):
            path = directory + name
            if not name.endswith("/") or self.is_dicom(path):
                yield path
            elif not self._leads_back(path):
                yield from self.walk(path)

    def is_dicom(self, directory: str) -> bool:
        return any(name.lower().endswith(".dcm") for name in self.names(directory))

    def match(self, pattern: Pattern) -> list[str]:
        """Names of files that match, sorted; of directories where the pattern ends in "/" or they hold DICOM files."""
        *above, last = pattern.levels() or [()]
        directories = [""]
        for level in above:
            if level is None:
                directories = list(dict.fromkeys(inner for d in directories for inner in self._all_under(d)))
            else:
                directories = [d + n for d in directories for n in self._level(d, level, True) if n.endswith("/")]
        found = set()
        for directory in directories:
            for name in self._level(directory, last, pattern.folder):
                path = directory + name
                if not name.endswith("/") or (self.names(path) if pattern.folder else self.is_dicom(path)):
                    found.add(path)
        return sorted(name for name in found if name.endswith("/") or not pattern.folder)

    def _all_under(self, directory: str) -> Iterator[str]:
        yield directory
        for name in self.names(directory):
            if name.endswith("/") and not self._leads_back(directory + name):
                yield from self._all_under(directory + name)

    def _leads_back(self, directory: str) -> bool:
        """Whether a directory is a link to one that it lies in."""
        path = self.folder / directory
        return path.is_symlink() and path.resolve() in [(here := path.parent.resolve()), *here.parents]

    def _level(self, directory: str, tokens: tuple[tuple[str, str], ...], only_folders: bool) -> list[str]:
        """Names in one directory that match the tokens of one level."""
        if all(kind == "text" for kind, _ in tokens):
            name = "".join(text for _, text in tokens)
            return [n for n in ((name + "/",) if only_folders else (name, name + "/")) if self.holds(directory, n)]
        names, prefix = self.names(directory), ""
        for kind, text in tokens:
            if kind != "text":
                break
            prefix += text
        regex = Pattern._regex(tokens, "", named=False)
        start, found = bisect_left(names, prefix), []
        for name in names[start:]:
            if not name.startswith(prefix):
                break
            if regex.fullmatch(name.rstrip("/")):
                found.append(name)
        return found

    def find(self, pattern: Pattern) -> dict[str, dict[str, str]]:
        """Files that match, with the values of the fields."""
        readings = {name: pattern.read(name.rstrip("/"), self.folder) for name in self.match(pattern)}
        return {name: values for name, values in readings.items() if values is not None}

    def examples(self, directory: str = "") -> str:
        """What there is, for messages."""
        return some(list(self.walk(directory))) or "no files at all"

    def path(self, name: str) -> str:
        return str(self.folder / name)


def _is_there(entry: os.DirEntry) -> bool:
    return entry.is_dir() or entry.is_file()  # a link may lead nowhere


def some(items: list[str], count: int = 5) -> str:
    """The first items of a list, for messages."""
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")


def close_to(word: str, words: Iterable[str]) -> str:
    """The known words that resemble one, or some of them all, for messages."""
    words = list(words)
    return some(difflib.get_close_matches(word, words, n=3) or words) or "none"


def split_name(name: str) -> tuple[str, str]:
    """The last part of a path without its extension, and the extension in lower case: "a.b.nii.gz" -> "a.b", ".nii.gz".

    A directory has none.
    """
    base = PurePosixPath(name).name
    if name.endswith("/"):
        return base, ""
    extension = ".nii.gz" if base.lower().endswith(".nii.gz") else PurePosixPath(base).suffix.lower()
    return base[: len(base) - len(extension)], extension


def is_image(name: str) -> bool:
    """Whether a name of `Listing.walk` is a file that can be read as an image or a label map, or a DICOM folder."""
    return name.endswith("/") or split_name(name)[1] in EXTENSIONS


def read_table(path: Path, key: str) -> list[dict[str, str]]:
    """Rows of a CSV (commas, or semicolons as spreadsheets in many countries write) or, by suffix, TSV, all as text.

    Each row also has its line number under the key "". Raises BadInput, which names the line, on rows with too many
    or too few columns, unnamed or repeated columns, and text that is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            tabs, semicolons = path.suffix.lower() in (".tsv", ".tab"), ";" in first and "," not in first
            file.seek(0)
            reader = csv.reader(file, delimiter="\t" if tabs else ";" if semicolons else ",", strict=True)
            lines = [(reader.line_num, [v.strip() for v in row]) for row in reader if any(v.strip() for v in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{key}: {path} cannot be read as a table ({error}); save it as CSV in UTF-8") from None
    if len(lines) < 2:
        raise BadInput(f"{key}: {path} has no rows; it needs a line of column names, then one line per row")
    header = lines[0][1]
    if bad := [name for name in header if not name or header.count(name) > 1]:
        raise BadInput(f"{key}: {path}, line 1: the column name '{bad[0]}' is empty or there twice; rename it")
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise BadInput(
                f"{key}: {path}, line {line} has {len(row)} columns, the header {len(header)}; quote values that hold "
                "commas, or save a table with tabs as .tsv"
            )
    return [{**dict(zip(header, row, strict=True)), "": str(line)} for line, row in lines[1:]]
