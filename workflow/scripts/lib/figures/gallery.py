"""The cases that deserve a look: the worst and the most disputed of each structure, every method in the same slice.

The slice is chosen from the reference alone, by the structure in question. The same pictures, as data, are what the
report shows of single cases.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from lib.data.cases import Case
from lib.figures import style
from lib.figures.montage import Structures, choose_cases, draw_blocks, read_planes

TITLE = "Worst and most disputed cases"
CAPTION = (
    "Per structure: the cases with the lowest mean Dice over all methods, and those on which methods, or trainings of "
    "one method, differ most. All panels of a case show the same slice and grey-value window; the slice is where the "
    "reference of that structure is largest. Methods without a panel say why."
)
WORST, BETWEEN_METHODS, BETWEEN_SEEDS = 3, 2, 1  # cases of each kind, per structure
CASES = 24  # of a dataset, at most, of which the report has a picture
SIDE = 384  # pixels of the longer side of such a picture, at most
MEAN = "mean"  # all structures together


def draw(
    scores: pd.DataFrame,
    cases: list[Case],
    predictions: Mapping[tuple[str, int, int], Path],
    structures: Structures,
    methods: list[str],
    palette: dict | None = None,
    colours: Mapping[str, str] | None = None,
    metric: str = style.PRIMARY,
) -> tuple[list[Figure], dict]:
    """One figure per structure, and the pictures of single cases as data (see `picture`).

    Arguments as of `lib.figures.montage.draw`. The pictures are {"structures", "values", "colours", "cases", "most",
    "pictures"}: structures as lists of positions in `values` (label values), their contour colours, how many cases
    were scored and of how many there are pictures at most, and the pictures.
    """
    known = {case.case: case for case in cases}
    wanted = choose(scores, structures, metric)
    values = [0, *sorted({int(v) for labels in structures.values() for v in np.atleast_1d(labels)})]
    colours = colours or style.overlays(list(structures))
    pictures, blocks = [], {name: [] for name in structures}
    for name in sorted({case for case, _ in wanted}):
        views = [structure for case, structure in wanted if case == name]
        shown = [structures if view == MEAN else {view: structures[view]} for view in views]
        read = read_planes(known[name], shown, scores, predictions, structures, methods, palette, metric)
        for view, block in zip(views, read, strict=True):
            roles = wanted[name, view]
            pictures.append({"case": name, "structure": view, "roles": roles} | picture(block, values))
            if view != MEAN:
                title = f"{view} · {', '.join(roles)}: {name}{block['where']}"
                blocks[view].append(block | {"title": title})
    figures = [
        draw_blocks(
            _in_order(shown, pictures, view), {view: structures[view]}, colours, methods, style.METRIC_NAMES[metric]
        )
        for view, shown in blocks.items()
        if shown
    ]
    return figures or [style.notice("Gallery: no case was scored.")], {
        "structures": {name: [values.index(int(v)) for v in np.atleast_1d(of)] for name, of in structures.items()},
        "values": values,
        "colours": {name: colours[name] for name in structures},
        "cases": scores["case"].nunique(),
        "most": CASES,
        "pictures": sorted(pictures, key=_order),
    }


def choose(scores: pd.DataFrame, structures: Structures, metric: str = style.PRIMARY) -> dict:
    """{(case, structure): roles} of the pictures to make; "mean" stands for all structures together.

    For each structure and for their mean: the cases with the lowest mean over methods, those with the largest standard
    deviation between methods (of their means over seeds), and between the seeds of a method (averaged over methods).
    A case that is in one of these lists, or is the best, median or worst, has a picture of all structures too, and so
    have the first other cases by name, until there are CASES. Ties go to the case whose name sorts first.
    """
    table = scores[(scores["metric"] == metric) & (scores["status"] != "failed")]
    wanted: dict[tuple[str, str], list[str]] = {}
    for structure in (*structures, MEAN):
        for case, role in _notable(table if structure == MEAN else table[table["structure"] == structure], metric):
            wanted.setdefault((case, structure), []).append(role)
    first = dict.fromkeys([case for _, case in choose_cases(scores, metric)] + [case for case, _ in wanted])
    for case in [*first, *sorted(set(scores["case"]) - set(first))][: max(CASES, len(first))]:
        wanted.setdefault((case, MEAN), [])
    return wanted


def picture(block: dict, values: list[int]) -> dict:
    """A block of `read_planes` as data: {"image", "labels", "size", "aspect", "where", "panels", "methods"}.

    image: the slice in its window as WebP, base64. labels: PNG, base64, of the positions in `values`, the reference on
    top and the methods that have labels below it, `panels` says which. size: pixels of one panel. aspect: height of a
    pixel by its width. methods: {name: {absent, fold, seed}}.
    """
    low, high = block["window"]
    pixels = np.clip((block["pixels"] - low) / max(high - low, 1e-12), 0, 1)
    step = -(-max(pixels.shape[:2]) // SIDE)

    def rows(plane: np.ndarray) -> np.ndarray:
        """(X, Y) with x to the right and y up, as rows from the top."""
        turned = np.flip(np.swapaxes(plane, 0, 1), 0)
        return np.flip(turned, 1) if block["flip"] else turned

    grey = (255 * rows(pixels)).round().astype(np.uint8)
    image = Image.fromarray(grey if grey.shape[2] == 3 else grey[..., 0])
    if step > 1:
        image = image.reduce(step)
    drawn = {m: found["labels"] for m, found in block["methods"].items() if found["labels"] is not None}
    stack = [rows(plane)[step // 2 :: step, step // 2 :: step] for plane in (block["reference"], *drawn.values())]
    stack = [plane[: image.height, : image.width] for plane in stack]
    indices = np.zeros((len(stack), image.height, image.width), np.uint8)
    for panel, plane in zip(indices, stack, strict=True):
        for position, value in enumerate(values):
            panel[: plane.shape[0], : plane.shape[1]][plane == value] = position
    return {
        "image": _encoded(image, "WEBP", quality=80, method=6),
        "labels": _encoded(Image.fromarray(indices.reshape(-1, image.width)), "PNG", optimize=True),
        "size": [image.width, image.height],
        "aspect": block["pixel"][1] / block["pixel"][0],
        "where": block["where"].removeprefix(" · "),
        "panels": list(drawn),
        "methods": {m: {k: found[k] for k in ("absent", "fold", "seed")} for m, found in block["methods"].items()},
    }


def _notable(table: pd.DataFrame, metric: str) -> Iterator[tuple[str, str]]:
    """(case, role) of the notable cases of one structure; see `choose`."""
    trainings = table.groupby(["case", "method", "fold", "seed"])["value"].mean()
    by_method = trainings.reset_index().pivot_table("value", "case", "method")
    if by_method.empty:
        return
    complete = by_method.dropna(axis=1)
    compared = complete if len(complete.columns) else by_method
    sign = -1 if metric in style.LOWER else 1
    worst = (sign * compared.mean(axis=1)).sort_values(kind="stable")
    methods_apart = compared.std(axis=1).sort_values(ascending=False, kind="stable")
    seeds_apart = trainings.groupby(["case", "method"]).std().groupby("case").mean()
    seeds_apart = seeds_apart.sort_values(ascending=False, kind="stable")
    yield from ((case, f"{_ordinal(i)} worst" if i else "worst") for i, case in enumerate(worst.index[:WORST]))
    for spread, most, what in ((methods_apart, BETWEEN_METHODS, "methods"), (seeds_apart, BETWEEN_SEEDS, "seeds")):
        for i, (case, value) in enumerate(spread.dropna()[:most].items()):
            if value > 0:
                yield case, f"{_ordinal(i)} most disputed between {what}" if i else f"most disputed between {what}"


def _ordinal(position: int) -> str:
    return ("first", "second", "third")[position]


def _order(shown: dict) -> tuple:
    """Pictures with a role first, the worst before the disputed ones."""
    roles = shown["roles"]
    rank = ["worst", "second worst", "third worst"]
    return shown["structure"], not roles, min((rank.index(r) for r in roles if r in rank), default=9), shown["case"]


def _in_order(blocks: list[dict], pictures: list[dict], view: str) -> list[dict]:
    """The blocks of one structure, in the order of `_order`."""
    of_view = [shown for shown in pictures if shown["structure"] == view]
    return [block for _, block in sorted(zip(map(_order, of_view), blocks, strict=True), key=lambda pair: pair[0])]


def _encoded(image: Image.Image, kind: str, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()
