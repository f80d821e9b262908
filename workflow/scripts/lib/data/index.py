"""From a folder and two file name patterns to a table of cases."""

from __future__ import annotations

import glob
import re
from pathlib import Path

import pandas as pd

from lib.errors import BadInput

FIELD = re.compile(r"\{(\w+)\}")


def index_cases(source_folder: str | Path, files: dict[str, str]) -> pd.DataFrame:
    """Return the table case, patient, image, label (all str), one row per label map, sorted by case.
    `files` = {"image": pattern, "label": pattern}, such as "{patient}_{phase}.nii.gz" and
    "{patient}_{phase}_gt.nii.gz", relative to the folder; a field stands for one or more characters other
    than "/". Files are found by the label pattern; the image pattern filled with the same fields names the
    image. The case is the fields of the label pattern joined by "_". Images without a label are left out.
    Raises BadInput when a pattern has no {patient}, nothing matches, an image is missing, a file name can be
    read in two ways, or two label maps give one case.
    """
    folder = Path(source_folder).expanduser()
    if not folder.is_dir():
        raise BadInput(f"source.path: the folder {folder} does not exist")
    fields = _fields(files)
    found = _match(folder, files["label"])
    images = {label: folder / files["image"].format_map(values) for label, values in found.items()}
    # A loose label pattern, such as {patient}.nii.gz, also matches the images themselves.
    taken = {image for label, image in images.items() if image != label and image.is_file()}
    labels = [label for label in found if label not in taken]
    if not labels:
        raise BadInput(
            f"files.label: no file matches {files['label']} in {folder}; correct the pattern. "
            f"There are: {_examples(folder)}"
        )
    rows: dict[str, dict] = {}
    for label in labels:
        if images[label] == label:
            raise BadInput(f"files: {label} is both image and label; the two patterns must differ")
        if not images[label].is_file():
            raise BadInput(
                f"files.image: {images[label]} does not exist, but the label map {label} needs it; "
                "add the image, or correct files.image"
            )
        case = "_".join(found[label][field] for field in fields)
        if case in rows:
            raise BadInput(
                f"files.label: {rows[case]['label']} and {label} both give the case '{case}'; "
                "make the pattern's fields tell them apart"
            )
        rows[case] = {"patient": found[label]["patient"], "image": str(images[label]), "label": str(label)}
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=str).rename_axis("case").reset_index()
    return table.sort_values("case", ignore_index=True)


def read_index(path: str | Path) -> pd.DataFrame:
    """Read an index.csv as text throughout: patient "01" stays "01", and "NA" stays a name."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _fields(files: dict[str, str]) -> list[str]:
    """Fields of the label pattern in order, each once; raises BadInput on patterns that cannot work."""
    fields = list(dict.fromkeys(FIELD.findall(files["label"])))
    for kind in ("image", "label"):
        pattern = files[kind]
        if re.search(r"[{}]", FIELD.sub("", pattern)):
            raise BadInput(f"files.{kind}: '{pattern}' has braces that are not a {{field}}")
        if "patient" not in FIELD.findall(pattern):
            raise BadInput(f"files.{kind}: '{pattern}' has no {{patient}}; cases are split by patient")
    if extra := sorted(set(FIELD.findall(files["image"])) - set(fields)):
        raise BadInput(
            f"files.image: '{files['image']}' has {{{extra[0]}}}, which files.label '{files['label']}' "
            "lacks; an image is found with the fields of its label map"
        )
    return fields


def _match(folder: Path, pattern: str) -> dict[Path, dict[str, str]]:
    """Files of the folder that match, with the values of the fields."""
    literals, names = FIELD.split(pattern)[::2], FIELD.findall(pattern)
    greedy, lazy = (_regex(literals, names, some) for some in ("[^/]+", "[^/]+?"))
    found = {}
    for path in sorted(folder.glob("*".join(glob.escape(text) for text in literals))):
        name = path.relative_to(folder).as_posix()
        match = greedy.fullmatch(name)
        if match is None or not path.is_file() or any(part.startswith(".") for part in Path(name).parts):
            continue  # hidden files are leavings of other systems, such as ._name on macOS
        if (other := lazy.fullmatch(name).groupdict()) != match.groupdict():
            readings = f"{_fill(match.groupdict())} or {_fill(other)}"
            raise BadInput(
                f"files.label: {path} matches '{pattern}' in two ways, {readings}; write what every name shares "
                "into the pattern, such as case_{patient}_{phase}, or use more fields"
            )
        found[path] = match.groupdict()
    return found


def _regex(literals: list[str], names: list[str], some: str) -> re.Pattern:
    """Regular expression of a pattern; a field that occurs again must have the same value."""
    text, seen = re.escape(literals[0]), set()
    for name, literal in zip(names, literals[1:], strict=True):
        text += f"(?P={name})" if name in seen else f"(?P<{name}>{some})"
        text += re.escape(literal)
        seen.add(name)
    return re.compile(text)


def _fill(values: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def _examples(folder: Path, count: int = 5) -> str:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if not names:
        return "no files at all"
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
