"""The page about one dataset: what was found, what is wrong, how its cases look, what it will cost."""

from __future__ import annotations

import base64
import io
import math
import re
from collections import Counter

import numpy as np

from lib.data.cases import Case
from lib.data.split import PARTS, split_patients
from lib.errors import BadInput
from lib.figures import cases as case_figure
from lib.report.templates import environment, file_text

SHOWN = 8  # cases in the picture, spread over the list
PAIRS = 8  # of near duplicates in the picture


def build_check_page(
    check: dict, cases: list[Case], block: dict, seconds: float, colours: dict[str, str] | None = None
) -> str:
    """The page as self-contained HTML. check: contents of check.json; cases: of the index; block: the dataset's
    configuration; seconds: that the check took; colours: of the structures, where other figures fix them. The same
    inputs give the same page.
    """
    rows, by_name = check["cases"], {case.case: case for case in cases}
    structures = {name: v if isinstance(v, list) else [v] for name, v in block["structures"].items()}
    look = structures, block["palette"], block["preprocess"]["colour"], colours
    spread = [rows[at] for at in sorted({round(x) for x in np.linspace(0, len(rows) - 1, SHOWN)})] if rows else []
    pairs = check["near_duplicates"]["pairs"][:PAIRS]
    paired = [(name, f"{name} · {pair['similarity']:.3f}") for pair in pairs for name in pair["cases"]]
    return (
        environment()
        .get_template("check.html")
        .render(
            css=file_text("report.css"),
            check=check,
            block=block,
            found=len(cases),
            patients=len({case.patient for case in cases}),
            used_patients=len({row["patient"] for row in rows}),
            fields=_fields(cases),
            facts=_facts(rows),
            split=_split([by_name[row["case"]] for row in rows], block.get("splits", {}), check["groups"]),
            structures=[_structure(name, values, rows) for name, values in structures.items()],
            channels=_channels(rows),
            store_mb=sum(_stored_bytes(row, block["preprocess"]) for row in rows) / 1e6,
            seconds=seconds,
            picture=_png(
                case_figure.draw([by_name[row["case"]] for row in spread], [r["case"] for r in spread], *look)
            ),
            pairs=_png(case_figure.draw([by_name[name] for name, _ in paired], [title for _, title in paired], *look))
            if paired
            else None,
            rows=[_row(row, structures) for row in rows],
            units=sorted({row["unit"] for row in rows}),
        )
    )


def _fields(cases: list[Case]) -> dict[str, str]:
    """Values of each declared field, with their numbers of cases; of many values only how many there are."""
    result = {}
    for name in dict.fromkeys(name for case in cases for name in case.fields):
        counts = Counter(case.fields[name] or "(empty)" for case in cases)
        listed = ", ".join(f"{value} ({n})" for value, n in sorted(counts.items()))
        result[name] = listed if len(counts) <= 12 else f"{len(counts)} different values"
    return result


def _facts(rows: list[dict]) -> dict[str, str]:
    def listed(values: list[str]) -> str:
        counts = Counter(values)
        if len(counts) > 6:
            ends = [min(counts, key=_numbers), max(counts, key=_numbers)]  # as text, 10 comes before 9
            return f"{len(counts)} different, from {ends[0]} to {ends[1]}"
        return ", ".join(f"{value} ({n})" for value, n in counts.most_common())

    return {
        "Shape": listed([" × ".join(map(str, row["shape"])) for row in rows]),
        "Spacing": listed([" × ".join(f"{s:.4g}" for s in row["spacing"]) + f" {row['unit']}" for row in rows]),
        "Orientation of the file's axes": listed([row["orientation"] or "picture" for row in rows]),
        "Channels": listed([str(row["channels"]) for row in rows]),
    }


def _numbers(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"\d[\d.]*", text)]


def _split(cases: list[Case], settings: dict, groups: dict[str, str]) -> dict[str, str]:
    """How the settings of the splits divide the patients, were they dealt now, or why they cannot."""
    try:
        folds = split_patients(cases, settings, groups)["folds"]
    except BadInput as error:
        return {"fault": str(error), "folds": ""}
    sizes = [[len(fold[part]) for fold in folds] for part in PARTS]
    ranges = [f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}" for n in sizes]
    train, validation, test = ranges
    return {"fault": "", "folds": f"{len(folds)}; patients that train {train}, validate {validation}, test {test}"}


def _channels(rows: list[dict]) -> list[dict]:
    """Range of each channel over the cases."""
    result = []
    for number in range(max((row["channels"] for row in rows), default=0)):
        known = [row["intensity"][number] for row in rows if number < row["channels"] and row["intensity"][number]]
        if known:
            names = list(rows[0]["images"])
            name = names[number] if len(names) == max(row["channels"] for row in rows) else str(number)
            lows, highs, means = ([summary[key] for summary in known] for key in ("min", "max", "mean"))
            result.append({"name": name, "low": min(lows), "high": max(highs), "means": (min(means), max(means))})
    return result


def _structure(name: str, values: list[int], rows: list[dict]) -> dict:
    """Cases that have a structure, and its volume in ml, or area in pixels."""
    sizes = [size for row in rows if (size := _size(row, values))]
    return {
        "name": name,
        "values": ", ".join(map(str, values)),
        "cases": len(sizes),
        "median": float(np.median(sizes)) if sizes else None,
        "low": min(sizes, default=None),
        "high": max(sizes, default=None),
    }


def _size(row: dict, values: list[int]) -> float:
    voxels = sum(row["labels"].get(str(value), 0) for value in values)
    return voxels * (math.prod(row["spacing"]) / 1000 if row["unit"] == "mm" else 1)


def _row(row: dict, structures: dict[str, list[int]]) -> dict:
    known = [summary for summary in row["intensity"] if summary]
    return {
        "case": row["case"],
        "patient": row["patient"],
        "shape": " × ".join(map(str, row["shape"])),
        "spacing": " × ".join(f"{s:.4g}" for s in row["spacing"]),
        "low": min((summary["min"] for summary in known), default=None),
        "high": max((summary["max"] for summary in known), default=None),
        "sizes": [_size(row, values) for values in structures.values()],
        "image": next(iter(row["images"].values())),
    }


def _stored_bytes(row: dict, preprocess: dict) -> float:
    """Of the preprocessed case, before any crop; a median spacing counts as the case's own."""
    targets = preprocess["spacing"] if isinstance(preprocess["spacing"], list) else [None] * 3
    voxels = 1.0
    for n, side, target in zip(row["shape"], row["spacing"], targets, strict=True):
        voxels *= n * side / target if isinstance(target, int | float) else n
    return voxels * (4 * row["channels"] + 1)


def _png(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
