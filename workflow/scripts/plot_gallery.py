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
        figures, pictures = gallery.draw(
            style.at(style.read_table(snakemake.input.scores), (given.dataset, given.condition, given.protocol)),
            read_index(snakemake.input.index),
            montage.prediction_folders(list(snakemake.input.get("predictions", []))),
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
        place = {"dataset": given.dataset, "condition": given.condition, "protocol": given.protocol}
        write_json(snakemake.output.pictures, place | pictures)
