"""Parameters, FLOPs and training memory of the catalogue's architectures, and their docstrings: docs/architectures.md.

    .venv/bin/python benchmarks/architectures.py          # or `make docs`

Nothing is computed and nothing is measured: the networks run on tensors without numbers, so the table is the same on
every machine. What a training really took on a GPU or CPU is in the cost table of its report.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from lib.models import CONTEXT, MODELS, build_model
from lib.search.found import search_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architectures.md"
BEGIN, END = "<!-- table: make docs -->\n", "<!-- end of table -->\n"
PATCHES = {2: (256, 256), 3: (96, 96, 96)}
CHANNELS, CLASSES = 1, 4
MIB = 2**20


def costs(recipe: dict, spatial_dims: int, patch: tuple[int, ...]) -> dict[str, float]:
    """Parameters, FLOPs of one forward pass (a multiply-add is 2), and bytes kept for a training step of one patch.

    The bytes are those of weights, gradients and AdamW's two moments (16 per parameter in float32), buffers, and every
    tensor that autograd keeps for the backward pass. What comes and goes during the pass is not in it, so the peak of a
    training is somewhat higher.
    """
    model = build_model(recipe, CHANNELS, CLASSES, spatial_dims)
    parameters = sum(p.numel() for p in model.parameters())
    fixed = 16 * parameters + sum(t.numel() * t.element_size() for t in model.buffers())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in model.modules():  # the same network, without numbers
            for name, tensor in [*module.named_parameters(recurse=False)]:
                setattr(module, name, nn.Parameter(mode.from_tensor(tensor.detach()), tensor.requires_grad))
            for name, tensor in [*module.named_buffers(recurse=False)]:
                setattr(module, name, mode.from_tensor(tensor))
        own = {storage(t) for t in [*model.parameters(), *model.buffers()]}
        kept: dict[int, tuple[torch.UntypedStorage, int]] = {}

        def keep(tensor: Tensor) -> Tensor:
            if storage(tensor) not in own:
                kept[storage(tensor)] = tensor.untyped_storage(), tensor.untyped_storage().nbytes()
            return tensor

        image = torch.zeros(1, CHANNELS, *patch)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(image)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model.train()(image)
        del logits
    return {
        "parameters": parameters,
        "flops": counter.get_total_flops(),
        "memory": fixed + sum(size for _, size in kept.values()),
    }


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def table(recipes: dict[str, dict]) -> str:
    """Rows of the table: entry of the catalogue, then parameters, GFLOPs and MiB in 2-D and in 3-D."""
    sizes = ["×".join(map(str, patch)) for patch in PATCHES.values()]
    head = ["architecture"] + [
        f"{what}, {size}" for size in sizes for what in ("parameters", "GFLOPs", "training memory (MiB)")
    ]
    lines = [" | ".join(head), " | ".join(["---"] + ["---:"] * (len(head) - 1))]
    for entry, recipe in recipes.items():
        cells = [f"`{entry}`"]
        for dims, patch in PATCHES.items():
            print(f"{entry}, {dims}-D", flush=True)
            cost = costs(recipe, dims, patch)
            cells += [f"{cost['parameters']:,}", f"{cost['flops'] / 1e9:,.2f}", f"{cost['memory'] / MIB:,.0f}"]
        lines.append(" | ".join(cells))
    return "".join(f"| {line} |\n" for line in lines)


def descriptions() -> str:
    """One section per file of architectures: what they share, then each with its parameters and its docstring."""
    parts = []
    for file in sorted({MODELS.module(name) for name in MODELS.available()}):
        tree = ast.parse(file.read_text())
        parts.append(f"## {file.stem}\n\n{ast.get_docstring(tree)}\n")
        for node in tree.body:
            for decorator in getattr(node, "decorator_list", []):
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register":
                    name = decorator.args[0].value
                    given = {key: value for key, value in MODELS.parameters(name).items() if key not in CONTEXT}
                    recipe = ", ".join([f"name: {name}", *(f"{key}: {yaml_of(value)}" for key, value in given.items())])
                    parts.append(f"### {name}\n\n`{{{recipe}}}`\n\n```text\n{ast.get_docstring(node)}\n```\n")
    return "\n".join(parts)


def yaml_of(default: str) -> str:
    """The source text of a default as it is written in the configuration; … where it must be given."""
    value = ast.literal_eval(default) if default else "…"
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).splitlines()[0]


def main() -> None:
    catalogue = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["architectures"]
    recipes = {entry: recipe for entry, recipe in catalogue.items() if not search_name(recipe)}  # unknown until found
    before = PAGE.read_text().partition(BEGIN)[0]
    PAGE.write_text(before + BEGIN + table(recipes) + END + "\n" + descriptions())


if __name__ == "__main__":
    main()
