"""One mechanism that finds architectures and losses by name: a decorated class or function in a file of its package.

Discovery reads syntax trees and imports nothing, so a wrong name or parameter in the configuration is found in
milliseconds, without torch. Only the file that holds the requested component is imported.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lib.errors import BadInput

LIB = Path(__file__).parent


def register(name: str) -> Callable:
    """Mark a class or function as the component `name` (a string literal, snake_case)."""
    return lambda component: component


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The tail of an error message: the closest known words, and all of them."""
    words = sorted(words)
    close = difflib.get_close_matches(word, words, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(words) or 'none'}."


@dataclass(frozen=True)
class _Component:
    file: Path
    module: str
    object_name: str
    parameters: dict[str, str]  # name -> default as source text; "" where there is none
    methods: frozenset[str]  # that the class itself defines; none for a function


class Registry:
    """The components of one package of `lib`, for example `Registry("lib.models")`."""

    def __init__(self, package: str):
        self.package = package

    @property
    def _folder(self) -> Path:
        return LIB.joinpath(*self.package.split(".")[1:])

    @cached_property
    def _components(self) -> dict[str, _Component]:
        found: dict[str, _Component] = {}
        for file in sorted(self._folder.glob("*.py")):
            for node in _body(file):
                for name in _registered_names(node):
                    if name in found:
                        raise ValueError(f"'{name}' is registered in both {found[name].file} and {file}")
                    found[name] = _Component(
                        file, f"{self.package}.{file.stem}", node.name, _parameters(node), _methods(node)
                    )
        return found

    def _find(self, name: str) -> _Component:
        try:
            return self._components[name]
        except KeyError:
            file = self._folder / f"{name}.py"
            hint = f" The file {file} is there, but nothing in it has @register('{name}')." if file.exists() else ""
            raise BadInput(
                f"{self.package} has no '{name}'.{hint}{did_you_mean(str(name), self._components)}"
            ) from None

    def available(self) -> list[str]:
        """Names of all components, sorted."""
        return sorted(self._components)

    def module(self, name: str) -> Path:
        """The source file of a component; raises BadInput for an unknown name."""
        return self._find(name).file

    def parameters(self, name: str) -> dict[str, str]:
        """Parameters of a component's constructor and the source text of their defaults ('' where required)."""
        return dict(self._find(name).parameters)

    def defines(self, name: str, method: str) -> bool:
        """Whether a component is a class whose own body has `method`; raises BadInput for an unknown name."""
        return method in self._find(name).methods

    def get(self, name: str) -> Callable:
        """Import the component's file and return the component; raises BadInput for an unknown name."""
        component = self._find(name)
        return getattr(importlib.import_module(component.module), component.object_name)

    def check(self, recipe: dict, context: Iterable[str]) -> None:
        """Raise BadInput unless `recipe` and the recipes inside it name a component, only parameters of it, and all
        parameters that have no default.

        `context` lists the parameters which the caller supplies; a recipe may not set them.
        """
        for part in nested(recipe):
            if "name" not in part:
                raise BadInput(f"A recipe of {self.package} needs 'name'; got {part}.")
            parameters = self.parameters(part["name"])
            known = parameters.keys() - set(context)
            for key in part.keys() - {"name"} - known:
                raise BadInput(
                    f"'{part['name']}' of {self.package} has no parameter '{key}'.{did_you_mean(str(key), known)}"
                )
            for key in sorted(known - part.keys()):
                if not parameters[key]:
                    raise BadInput(f"'{part['name']}' of {self.package} needs the parameter '{key}'.")

    def modules(self, recipe: dict) -> list[Path]:
        """The source files of a recipe's component and of those of the recipes inside it, sorted."""
        return sorted({self.module(part["name"]) for part in nested(recipe)})


def nested(recipe: dict) -> list[dict]:
    """The recipe itself, then the recipes of the same registry among its values, at any depth.

    A value is a recipe, or a list of recipes, where it is a mapping with the key `name`:
    `{name: hdc_duc, of: {name: unet}}` gives both.
    """
    inside = [part for value in recipe.values() for part in (value if isinstance(value, list) else [value])]
    return [recipe] + [n for part in inside if isinstance(part, dict) and "name" in part for n in nested(part)]


def _body(file: Path) -> list[ast.stmt]:
    try:
        return ast.parse(file.read_text(encoding="utf-8"), str(file)).body
    except SyntaxError as error:
        raise BadInput(f"{file}: line {error.lineno}: {error.msg}; every file of this folder is read") from None


def _registered_names(node: ast.stmt) -> list[str]:
    return [
        decorator.args[0].value
        for decorator in getattr(node, "decorator_list", [])
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "register"
    ]


def _methods(node: ast.ClassDef | ast.FunctionDef) -> frozenset[str]:
    body = node.body if isinstance(node, ast.ClassDef) else []
    return frozenset(part.name for part in body if isinstance(part, ast.FunctionDef))


def _parameters(node: ast.ClassDef | ast.FunctionDef) -> dict[str, str]:
    function = node
    if isinstance(node, ast.ClassDef):
        function = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
        if function is None:
            return {}
    positional = function.args.posonlyargs + function.args.args
    defaults = [""] * (len(positional) - len(function.args.defaults))
    defaults += [ast.unparse(d) for d in function.args.defaults]
    table = {a.arg: d for a, d in zip(positional, defaults, strict=True)}
    table |= {
        a.arg: ast.unparse(d) if d else ""
        for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    }
    table.pop("self", None)
    return table
