"""Draw the worst and most disputed cases of one dataset, and write the pictures that the report shows."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.figures import gallery, montage, style
from lib.files import atomic, write_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        from matplotlib.backends.backend_pdf import PdfPages

        given = snakemake.params
        place = (given.dataset, given.condition, given.protocol)
        scores = style.at(style.read_table(snakemake.input.scores), place)
        figures, pictures = gallery.draw(
            scores,
            read_index(snakemake.input.index),
            montage.prediction_folders(scores),
            dict(given.structures),
            list(given.methods),
            given.palette,
            style.overlays(list(given.coloured)),
        )
        with (
            atomic(snakemake.output.pdf) as temporary,
            PdfPages(temporary, metadata={"CreationDate": None}) as pages,
        ):
            for figure in figures:
                pages.savefig(figure)
        named = dict(zip(("dataset", "condition", "protocol"), place, strict=True))
        write_json(snakemake.output.pictures, named | pictures)
