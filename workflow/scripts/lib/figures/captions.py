"""Title and caption of every figure: the constants TITLE and CAPTION of its module, read without importing it."""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent


def caption_of(figure: str) -> tuple[str, str]:
    """(title, caption) of a figure by the stem of its file: the name of its module, then what tells it from others.

    `montage_acdc_clean` is of montage.py, and its title says which one it is. Raises ValueError where no module fits.
    """
    kinds = [file.stem for file in HERE.glob("*.py") if f"{figure}_".startswith(f"{file.stem}_")]
    if not kinds:
        raise ValueError(f"figure '{figure}': no module in {HERE.name}/ has a name with which it begins")
    kind = max(kinds, key=len)
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((HERE / f"{kind}.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if node.targets[0].id in ("TITLE", "CAPTION")
    }
    rest = figure.removeprefix(kind).lstrip("_")
    return constants["TITLE"] + (f": {rest}" if rest else ""), constants["CAPTION"]
