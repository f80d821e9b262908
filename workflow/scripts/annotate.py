"""Serve a page on which a person segments cases with the interactive methods whose networks are there."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.split import cases_of
from lib.data.store import open_store
from lib.errors import BadInput
from lib.files import read_json
from lib.interactive import METHODS
from lib.interactive.annotation import Annotation
from lib.interactive.play_cell import build_method
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def buildable(methods: dict[str, dict]) -> dict:
    """How to build each of {name: {recipe, network: folder or None}} that has the network which it needs."""
    return {
        name: lambda of=of: build_method(of["recipe"], of["network"])
        for name, of in methods.items()
        if "network" not in METHODS.parameters(of["recipe"]["name"])
        or (of["network"] and (Path(of["network"]) / "weights.pt").exists())
    }


if __name__ == "__main__":
    with logged(snakemake.log[0]) as say:
        try:
            from lib.interactive.page import HOST, serve
        except ModuleNotFoundError as error:
            raise BadInput("The page needs NiceGUI: .venv/bin/python -m pip install -r requirements.lock") from error
        given, params = snakemake.input, snakemake.params
        store = open_store(given.store)
        sources = {case.case: case for case in read_index(given.cases)}
        splits = read_json(given.splits)
        parts = {case: part for part in ("train", "validation", "test") for case in cases_of(splits, params.fold, part)}
        names = {case: f"{case} ({parts.get(case, 'in no part')})" for case in sorted(store.meta["cases"])}
        structures = list(params.structures)
        methods = buildable(params.methods)
        for build in methods.values():  # now, so that no answer waits for imports and a faulty network is known
            build()
        say(f"Open http://{HOST}:{params.port} in a browser. Methods: {', '.join(methods)}. Ctrl-C ends.")
        serve(
            names,
            lambda case: Annotation(store, case, sources[case], structures, params.one_channel),
            methods,
            Path(params.folder),
            params.port,
        )
