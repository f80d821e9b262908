"""Which papers an experiment rests on: its data sets, architectures and losses, and the tools that made it.

A component says what to cite in the last line of its docstring, `Cite: key, key`, keys of config/references.bib; it is
read from the syntax tree, so nothing is imported. `Cite: nothing, …` says that there is no paper.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from lib.classical import CLASSICAL
from lib.few_shot import METHODS, NETWORKS
from lib.interactive import METHODS as INTERACTIVE
from lib.losses.recipes import LOSSES, terms
from lib.registry import Registry, nested

MODELS = Registry("lib.models")


@dataclass(frozen=True)
class Reference:
    """One entry of a BibTeX file."""

    key: str
    entry: str  # as it stands in the file
    fields: dict[str, str]

    @property
    def short(self) -> str:
        """Author and year, as in a text: "Ronneberger et al., 2015"; the title where no author is known."""
        names = [name.split(",")[0] for name in self.fields.get("author", "").split(" and ") if name]
        if not names:
            who = f"“{_plain(self.fields['title'])}”"
        elif len(names) == 1:
            who = _plain(names[0])
        elif len(names) == 2 and names[1] != "others":
            who = f"{_plain(names[0])} and {_plain(names[1])}"
        else:
            who = f"{_plain(names[0])} et al."
        return f"{who}, {self.fields['year']}" if "year" in self.fields else who

    @property
    def line(self) -> str:
        """The entry as one line of a list of references."""
        authors = _plain(self.fields.get("author", "")).replace(" and others", " et al.").split(" and ")
        where = self.fields.get("journal") or self.fields.get("booktitle") or ""
        volume = self.fields.get("volume", "") + (f"({self.fields['number']})" if "number" in self.fields else "")
        pages = self.fields.get("pages", "").replace("--", "–")
        place = " ".join(part for part in (_plain(where), volume + (f":{pages}" if volume and pages else "")) if part)
        arxiv = f"arXiv:{self.fields['eprint']}" if "eprint" in self.fields else ""
        doi = f"doi:{self.fields['doi']}" if "doi" in self.fields else ""
        parts = ["; ".join(a for a in authors if a), _plain(self.fields["title"]), place, self.fields.get("year", "")]
        return ". ".join(part for part in [*parts, doi or arxiv] if part) + "."


def read_references(path: str | Path) -> dict[str, Reference]:
    """The entries of a BibTeX file whose entries and fields start lines of their own, by key."""
    text = Path(path).read_text(encoding="utf-8")
    found = {}
    for match in re.finditer(r"^@\w+\{([^,\s]+),$(.*?)^\}$", text, flags=re.MULTILINE | re.DOTALL):
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", match[2], flags=re.MULTILINE))
        found[match[1]] = Reference(match[1], match[0], fields)
    return found


def citations(registry: Registry, name: str) -> list[str]:
    """The keys that the docstring of a component gives; none where it says so or says nothing."""
    tree = ast.parse(registry.module(name).read_text())
    for node in tree.body:
        registered = [
            d.args[0].value for d in getattr(node, "decorator_list", []) if isinstance(d, ast.Call) and d.args
        ]
        if name in registered:
            line = re.search(r"^Cite: (.+)$", ast.get_docstring(node) or "", flags=re.MULTILINE)
            keys = line[1].split(", ") if line else []
            return [] if keys[:1] == ["nothing"] else keys
    return []


def cited_by_architecture(recipe: dict) -> list[str]:
    """Keys for a recipe and the architectures inside it."""
    return _unique(key for part in nested(recipe) for key in citations(MODELS, part["name"]))


def cited_by_classical(recipe: dict) -> list[str]:
    """Keys for the recipe of a method that trains no network."""
    return citations(CLASSICAL, recipe["name"])


def cited_by_few_shot(entry: dict) -> list[str]:
    """Keys for the method of an entry and for its base, where that looks at the support."""
    of_base = [] if isinstance(entry["base"], str) else citations(NETWORKS, entry["base"]["name"])
    return _unique([*citations(METHODS, entry["name"]), *of_base])


def cited_by_interactive(recipe: dict) -> list[str]:
    """Keys for the recipe of an interactive method."""
    return citations(INTERACTIVE, recipe["name"])


def cited_by_loss(recipe: dict) -> list[str]:
    """Keys for the terms of a recipe and the losses inside them."""
    return _unique(key for _, loss in terms(recipe) for part in nested(loss) for key in citations(LOSSES, part["name"]))


def used(text: str, references: dict[str, Reference]) -> tuple[list[Reference], list[str]]:
    """The entries that a text with marks [@key] cites, in the order of the file, and the keys that have none."""
    keys = _unique(re.findall(r"@([\w-]+)", " ".join(re.findall(r"\[(@[^\]]+)\]", text))))
    known = [reference for key, reference in references.items() if key in keys]
    return known, [key for key in keys if key not in references]


def _unique(keys) -> list[str]:
    return list(dict.fromkeys(keys))


def _plain(text: str) -> str:
    """BibTeX without its braces and the accents and symbols that references.bib uses."""
    accents = {r"{\"u}": "ü", r"{\"o}": "ö", r"{\"a}": "ä", r"{\'a}": "á", r"{\'e}": "é", r"$\sigma$": "σ"}
    for code, letter in accents.items():
        text = text.replace(code, letter)
    return text.replace("{", "").replace("}", "")
