"""Draw the best, median and worst case of one dataset with every method's contours."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.figures import montage, style
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    scores: str,
    index: str,
    predictions: list[str],
    situation: tuple,
    structures: dict,
    palette: dict | None,
    methods: list[str],
    pdf: str,
) -> None:
    """situation: (dataset, condition, protocol); predictions: …/ARCHITECTURE/LOSS/foldF/seedS/predictions."""
    folders = {}
    for folder in map(Path, predictions):
        architecture, loss, fold, seed, _ = folder.parts[-5:]
        folders[f"{architecture}+{loss}", int(fold.removeprefix("fold")), int(seed.removeprefix("seed"))] = folder
    table = style.at(style.read_table(scores), situation)
    figure = montage.draw(table, read_index(index), folders, structures, methods, palette)
    style.save(figure, Path(pdf).with_suffix(""))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        given = snakemake.params
        main(
            snakemake.input.scores,
            snakemake.input.index,
            list(snakemake.input.get("predictions", [])),
            (given.dataset, given.condition, given.protocol),
            dict(given.structures),
            given.palette,
            list(given.methods),
            snakemake.output.pdf,
        )
