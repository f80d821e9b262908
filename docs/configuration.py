"""Write configuration.md beside this file from the schema of the configuration (`make docs`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import yaml

HERE = Path(__file__).parent
SCHEMA = HERE.parent / "config/schemas/config.schema.yaml"
INTRODUCTION = """# Every key of the configuration

Written by `make docs` from `config/schemas/config.schema.yaml`; do not edit. [Datasets](datasets.md) explains the
blocks of datasets by examples, [training](training.md) the protocols.

`a.b` is the key `b` in the block `a`, `NAME` a name of your choice, `[]` an entry of a list. Keys without a default may
be left out, unless they are **required**.
"""
WORDS = {"string": "text", "integer": "whole number", "number": "number", "null": "`null`"}
WORDS |= {"boolean": "`true`, `false`"}


def page(schema: dict) -> str:
    """The whole page as Markdown: a section with a table for each block of the first level, then the other keys."""
    blocks = {key: part for key, part in schema["properties"].items() if part.get("type") == "object"}
    rest = {"properties": {key: part for key, part in schema["properties"].items() if key not in blocks}}
    text = INTRODUCTION
    for key, part in blocks.items():
        of_names = part.get("additionalProperties")
        title, inner = (f"{key}: NAME:", of_names) if isinstance(of_names, dict) else (f"{key}:", part)
        text += f"\n## `{title}`\n\n{_linked(part['description'])}\n{_table(_keys(inner, '', schema))}"
    text += "\n## Beside the blocks\n\nAlso for one run, as in `snakemake --config partial=true`.\n"
    return text + _table(_keys(rest, "", schema))


def _table(rows: Iterator[list[str]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows]
    return "\n| key | value | default | meaning |\n|---|---|---|---|\n" + "".join(lines) if lines else ""


def _linked(text: str) -> str:
    """A description with its braces as code and its pages as links."""
    parts = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(parts), 2):
        code = re.sub(r"(_?\{([^{}]|\{[^{}]*\})*\})+", r"`\g<0>`", parts[at])
        parts[at] = re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", code)
    return "".join(parts)


def _keys(part: dict, path: str, schema: dict, required: tuple = ()) -> Iterator[list[str]]:
    """Rows of the table of a block: its keys, each followed by those of its own block."""
    part = _resolved(part, schema)
    properties = {}
    for variant in [part, *part.get("oneOf", []), *part.get("anyOf", [])]:
        properties |= _resolved(variant, schema).get("properties", {})
    for key, inner in properties.items():
        inner = _resolved(inner, schema)
        default = f"`{_short(inner['default'])}`" if "default" in inner else ""
        needed = "**required**" if key in (*required, *part.get("required", [])) else default
        yield [f"`{path}{key}`", _value(inner, schema), needed, _linked(inner.get("description", ""))]
        yield from _keys(inner, f"{path}{key}.", schema)
    of_names, of_entries = part.get("additionalProperties"), part.get("items")
    if isinstance(of_names, dict) and "properties" in of_names:
        yield from _keys(of_names, f"{path}NAME.", schema)
    if isinstance(of_entries, dict):
        yield from _keys(of_entries, f"{path.removesuffix('.')}[].", schema)


def _value(part: dict, schema: dict) -> str:
    """What may be written, in words."""
    part = _resolved(part, schema)
    if "const" in part:
        return f"`{_short(part['const'])}`"
    if "enum" in part:
        return ", ".join(f"`{_short(value)}`" for value in part["enum"])
    if "anyOf" in part and "properties" not in part:
        return " or ".join(dict.fromkeys(_value(variant, schema) for variant in part["anyOf"]))
    kinds = part.get("type", "string")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return " or ".join(_kind(kind, part, schema) for kind in kinds)


def _kind(kind: str, part: dict, schema: dict) -> str:
    if kind == "array":
        low, high = part.get("minItems", 0), part.get("maxItems")
        count = f" of {low}" if low == high else f" of {low} to {high}" if high else ""
        return f"list{count}: {_value(part['items'], schema)}"
    if kind == "object":
        if names := [key for key in part.get("properties", {}) if key in part.get("required", [])]:
            return f"block with `{'`, `'.join(names)}`"
        inner = part.get("additionalProperties")
        return f"`NAME:` {_value(inner, schema)}" if isinstance(inner, dict) and "properties" not in inner else "block"
    words = WORDS[kind]
    if kind in ("integer", "number"):
        low, high = part.get("minimum", part.get("exclusiveMinimum")), part.get("maximum", part.get("exclusiveMaximum"))
        open_low, open_high = "exclusiveMinimum" in part, "exclusiveMaximum" in part
        words += f" {'>' if open_low else '≥'} {low}" if low is not None else ""
        words += f"{' and' if low is not None else ''} {'<' if open_high else '≤'} {high}" if high is not None else ""
    return words


def _resolved(part: dict, schema: dict) -> dict:
    if "$ref" in part:
        target = reduce(lambda at, key: at[key], part["$ref"].removeprefix("#/").split("/"), schema)
        return target | {k: v for k, v in part.items() if k != "$ref"}
    return part


def _short(value: object) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...", "").strip()


if __name__ == "__main__":
    (HERE / "configuration.md").write_text(page(yaml.safe_load(SCHEMA.read_text("utf-8"))), "utf-8")
