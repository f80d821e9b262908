"""Write the second half of losses.md from the docstrings: python docs/losses.py"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

from lib.losses.recipes import CONTEXT, LOSSES

PAGE = Path(__file__).with_name("losses.md")
MARK = "<!-- From here on written by docs/losses.py, from the docstrings. -->\n"


def families() -> str:
    """One section per file of losses: what they share, then each with its parameters and its docstring."""
    parts = []
    for file in sorted({LOSSES.module(name) for name in LOSSES.available()}):
        tree = ast.parse(file.read_text())
        parts.append(f"## {file.stem.replace('_', ' ').capitalize()}\n\n```text\n{ast.get_docstring(tree)}\n```\n")
        documents = {
            decorator.args[0].value: ast.get_docstring(node)
            for node in tree.body
            for decorator in getattr(node, "decorator_list", [])
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register"
        }
        for name, text in documents.items():
            given = {key: default for key, default in LOSSES.parameters(name).items() if key not in CONTEXT}
            recipe = ", ".join([f"name: {name}", *(f"{key}: {_yaml(default)}" for key, default in given.items())])
            parts.append(f"### {name}\n\n`{{{recipe}}}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _yaml(default: str) -> str:
    """The source text of a default as it is written in the configuration."""
    value = ast.literal_eval(default)
    if isinstance(value, float):
        return re.sub(r"^(\d+)e", r"\1.0e", default)  # YAML reads 1e-05 as text
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def page(text: str) -> str:
    """The page with its second half written anew."""
    return text.partition(MARK)[0] + MARK + "\n" + families()


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
