"""Draw sessions with simulated users round by round."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.figures import style, users_rounds
from lib.interactive.play_cell import read_pictures
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files = [Path(session) / "pictures.npz" for session in snakemake.input.get("sessions", [])]
        sessions = {
            method: read_pictures(file)
            for method, file in zip(snakemake.params.methods, files, strict=True)
            if file.exists()  # a session that failed has none
        }
        figure = users_rounds.draw(sessions, snakemake.params.budget)
        style.save(figure, Path(snakemake.output.pdf).with_suffix(""))
