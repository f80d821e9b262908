"""Between a search and the cells whose architecture takes its genotype from it. Imports no torch.

A search is itself a cell, of which only the first stage exists: the training of a supernet `nas_unet`, under the
settings of the search instead of a protocol, with `search` in the place of a loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from lib.cells import Cell

KIND = "search"
SUPERNET = "nas_unet"
GENOTYPE = "genotype.yaml"


def search_name(recipe: Mapping) -> str | None:
    """The search that the recipe of an architecture names: `genotype: {search: NAME}`."""
    genotype = recipe.get("genotype")
    return genotype[KIND] if isinstance(genotype, Mapping) and set(genotype) == {KIND} else None


def search_of(recipe: Mapping, cell: Cell) -> Cell | None:
    """The search that a cell with this architecture rests on: on the same data, fold and seed."""
    name = search_name(recipe)
    return name and Cell(cell.dataset, cell.condition, name, SUPERNET, KIND, cell.fold, cell.seed)


def resolved(recipe: dict, cell: Cell) -> dict:
    """The recipe as the cell's network is built: with the genotype of its own search, once that is found."""
    return with_genotype(recipe, search_of(recipe, cell))


def with_genotype(recipe: dict, search: Cell | None) -> dict:
    """The recipe with the genotype that the search has found; the recipe itself where it has found none, or is None."""
    file = search and search.folder / GENOTYPE
    found = yaml.safe_load(file.read_text(encoding="utf-8")) if file and file.exists() else None
    return recipe | {"genotype": found["architecture"]["genotype"]} if found else recipe
