"""From `losses:` of the configuration to recipes; see `recipes` for their forms. Nothing here imports torch.

An entry may name others: `{sum: {dice: 1.0, boundary: {from: 0, to: 1}}}` and
`{name: topk_bottom_all_but_sigma, of: focal}`. A resolved recipe holds theirs, so that an edited entry changes exactly
the methods that use it.
"""

from __future__ import annotations

from lib.errors import BadInput
from lib.losses.recipes import check_recipe
from lib.registry import did_you_mean


def loss_recipe(name: str, entries: dict[str, dict]) -> dict:
    """The recipe of the entry `name`, checked; raises BadInput, which does not name the entry."""
    recipe = _resolve(entries[name], entries, (name,))
    check_recipe(recipe)
    return recipe


def _resolve(entry: dict, entries: dict[str, dict], path: tuple[str, ...]) -> dict:
    def other(name: object, key: str) -> dict:
        if name not in entries:
            raise BadInput(f"{key}: '{name}' is not in the catalogue.{did_you_mean(str(name), entries)}")
        if name in path:
            raise BadInput(f"{key}: {' → '.join([*path, name])} goes in a circle.")
        return _resolve(entries[name], entries, (*path, name))

    if "sum" in entry:
        if set(entry) != {"sum"} or not isinstance(entry["sum"], dict):
            raise BadInput("a sum is written {sum: {entry: weight, entry: weight}}, and has no other key.")
        return {"sum": [{"weight": weight, "loss": other(name, "sum")} for name, weight in entry["sum"].items()]}
    if entry.get("of") is not None:
        return entry | {"of": other(entry["of"], "of")}
    return dict(entry)
