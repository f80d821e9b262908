"""The space of NAS-Unet's cells: operations, edges, and genotypes: published, drawn at random, derived from a search.

A genotype is {"down": [[operation, state], …], "up": […]}, two edges per node. State 0 is the output of the cell
before the last (in UpSC: the skip), 1 that of the last cell, 2, 3, … are the nodes of the cell, in order.

Source: Weng, Zhou, Li, Qiu, NAS-Unet, IEEE Access 2019, in the authors' code (tianbaochou/NasUnet: util/genotype.py,
search/backbone, models/geno_searched.py), written anew from a description of it. Imports no torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

from lib.errors import BadInput
from lib.registry import did_you_mean

NONE = "none"  # nothing comes through an edge; a search mixes it in, and no genotype keeps it
OPERATIONS = {
    "down": ("avg_pool", "max_pool", "down_cweight", "down_dil_conv", "down_dep_conv", "down_conv"),
    "up": ("up_cweight", "up_dep_conv", "up_conv", "up_dil_conv"),
    "normal": ("identity", NONE, "cweight", "dil_conv", "dep_conv", "shuffle_conv", "conv"),
}
STRIDED = {"down": (0, 1), "up": (1,)}  # the states of a cell whose edges change the size
CELLS = tuple(STRIDED)

PUBLISHED = {
    "v3": {
        "down": [
            ["down_dil_conv", 1], ["down_cweight", 0],
            ["down_cweight", 0], ["down_cweight", 1],
            ["down_cweight", 0], ["conv", 3],
            ["down_cweight", 0], ["conv", 4],
        ],
        "up": [
            ["cweight", 0], ["up_cweight", 1],
            ["conv", 2], ["up_cweight", 1],
            ["up_cweight", 1], ["conv", 3],
            ["up_cweight", 1], ["conv", 4],
        ],
    },
    "v2": {
        "down": [
            ["down_conv", 1], ["down_dep_conv", 0],
            ["down_cweight", 1], ["down_dil_conv", 0],
            ["down_dil_conv", 1], ["down_conv", 0],
        ],
        "up": [
            ["identity", 0], ["up_cweight", 1],
            ["identity", 2], ["up_cweight", 1],
            ["cweight", 3], ["up_conv", 1],
        ],
    },
}  # fmt: skip


def edges(nodes: int) -> list[tuple[int, int]]:
    """(node, state that it takes) of all edges of a cell, in the order of the rows of weights: 9 with 3 nodes."""
    return [(node, state) for node in range(2, 2 + nodes) for state in range(node)]


def kind_of(cell: str, state: int) -> str:
    """The kind of operations on the edges from a state: `down` or `up` where they change the size, else `normal`."""
    return cell if state in STRIDED[cell] else "normal"


def kept_operations(cell: str, state: int) -> tuple[str, ...]:
    """What a genotype may have on the edges from a state."""
    return tuple(name for name in OPERATIONS[kind_of(cell, state)] if name != NONE)


def derive(weights: Mapping[str, Sequence[Sequence[float]]], nodes: int) -> dict[str, list]:
    """The genotype of a search: for each node the two strongest edges, each with its strongest operation but none.

    weights: for the kinds down, up, normal one row per edge, the softmax of its alphas. A softmax over fewer
    operations is larger, so strengths are compared in units of an even share. Edges of a node in the order of states.
    """
    genotype: dict[str, list] = {cell: [] for cell in CELLS}
    for cell in CELLS:
        best: dict[int, list[tuple[float, str, int]]] = {}
        for row, (node, state) in enumerate(edges(nodes)):
            kind = kind_of(cell, state)
            shares = zip(weights[kind][row], OPERATIONS[kind], strict=True)
            share, name = max(((s, name) for s, name in shares if name != NONE), key=lambda pair: pair[0])
            best.setdefault(node, []).append((share * len(OPERATIONS[kind]), name, state))
        for found in best.values():
            strongest = sorted(found, key=lambda edge: -edge[0])[:2]
            genotype[cell] += [[name, state] for _, name, state in sorted(strongest, key=lambda edge: edge[2])]
    return genotype


def random_genotype(nodes: int, seed: int) -> dict[str, list]:
    """Uniform over what a search of this many nodes can derive, which is what a search has to be compared with.

    A search shares the alphas of normal operations between both cells, so an edge from a node that both keep has the
    same operation in both; draws in which it differs are rejected.
    """
    draw = random.Random(seed)
    while True:
        genotype = {
            cell: [list(edge) for node in range(2, 2 + nodes) for edge in draw.choice(_pairs(cell, node))]
            for cell in CELLS
        }
        inside = [
            {(position // 2, state): name for position, (name, state) in enumerate(genotype[cell]) if state >= 2}
            for cell in CELLS
        ]
        if all(inside[0][edge] == inside[1][edge] for edge in inside[0].keys() & inside[1].keys()):
            return genotype


def _pairs(cell: str, node: int) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """All that a node of a cell can be: two states, and an operation on each."""
    return [
        ((a, i), (b, j))
        for i, j in combinations(range(node), 2)
        for a, b in product(kept_operations(cell, i), kept_operations(cell, j))
    ]


def cells_of(genotype: object) -> dict[str, list[tuple[str, int]]]:
    """The genotype of a recipe as lists of (operation, state) for `down` and `up`.

    `v3`, `v2`, {random: seed, nodes: 3} or the two lists. Raises BadInput where it cannot be built.
    """
    if isinstance(genotype, str):
        if genotype not in PUBLISHED:
            raise BadInput(
                f"The architecture 'nas_unet' has no genotype '{genotype}'.{did_you_mean(genotype, PUBLISHED)}"
            )
        genotype = PUBLISHED[genotype]
    if isinstance(genotype, Mapping) and "random" in genotype and genotype.keys() <= {"random", "nodes"}:
        seed, nodes = genotype["random"], genotype.get("nodes", 3)
        if any(not isinstance(n, int) or isinstance(n, bool) for n in (seed, nodes)) or nodes < 1:
            raise BadInput(
                f"The genotype of 'nas_unet' is {genotype!r}; it needs an integer seed and an integer of nodes from 1."
            )
        genotype = random_genotype(nodes, seed)
    if not isinstance(genotype, Mapping) or set(genotype) != set(CELLS):
        raise BadInput(
            f"The genotype of 'nas_unet' is {genotype!r}; it needs a name ({', '.join(PUBLISHED)}), {{random: seed}}, "
            "or the two lists {down: [[operation, state], …], up: [[operation, state], …]}; {search: NAME} stands for "
            "the lists that a search finds, which the workflow puts in its place."
        )
    for cell, pairs in genotype.items():
        if not isinstance(pairs, list) or not pairs or len(pairs) % 2:
            raise BadInput(
                f"The genotype of 'nas_unet' needs two [operation, state] per node in '{cell}', not {pairs!r}."
            )
        for position, edge in enumerate(pairs):
            if not isinstance(edge, list | tuple) or len(edge) != 2:
                raise BadInput(f"The genotype of 'nas_unet' has {edge!r} in '{cell}', not [operation, state].")
            operation, state = edge
            node = 2 + position // 2
            if not isinstance(state, int) or isinstance(state, bool) or not 0 <= state < node:
                raise BadInput(
                    f"The genotype of 'nas_unet' has {edge!r} for node {node} of '{cell}', "
                    f"which can take states 0 to {node - 1}."
                )
            if operation not in (known := kept_operations(cell, state)):
                raise BadInput(
                    f"The genotype of 'nas_unet' has {edge!r} for node {node} of '{cell}', but state {state} cannot "
                    f"take it.{did_you_mean(str(operation), known)}"
                )
    return {cell: [(operation, state) for operation, state in pairs] for cell, pairs in genotype.items()}


def entropy(weights: Mapping[str, Sequence[Sequence[float]]], nodes: int) -> float:
    """Mean entropy of the weights of the edges in use, 1 where a search prefers nothing, 0 where it has decided."""
    values = []
    for kind, row in sorted(_used(nodes)):
        shares = weights[kind][row]
        values.append(-sum(s * math.log(s) for s in shares if s > 0) / math.log(len(shares)))
    return math.fsum(values) / len(values)


def _used(nodes: int) -> set[tuple[str, int]]:
    """(kind, row) of the weights that a cell uses; every kind has a row for each edge."""
    return {(kind_of(cell, state), row) for cell in CELLS for row, (_, state) in enumerate(edges(nodes))}


def table(weights: Mapping[str, Sequence[Sequence[float]]], nodes: int) -> Iterator[tuple[str, int, int, str, float]]:
    """Rows of (kind, node, state, operation, weight) of the weights in use."""
    for kind, row in sorted(_used(nodes)):
        for name, share in zip(OPERATIONS[kind], weights[kind][row], strict=True):
            yield kind, *edges(nodes)[row], name, share
