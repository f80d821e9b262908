"""The search space by hand, genotypes derived and drawn, and the supernet against the networks that it contains."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor, nn

from lib.cells import Cell
from lib.errors import BadInput
from lib.files import atomic, write_json
from lib.ledger import build_ledger
from lib.models import build_model
from lib.search.darts import recipe_text
from lib.search.found import search_name, search_of, with_genotype
from lib.search.space import (
    CELLS,
    NONE,
    OPERATIONS,
    PUBLISHED,
    cells_of,
    derive,
    edges,
    entropy,
    kept_operations,
    kind_of,
    random_genotype,
    table,
)
from lib.search.supernet import MixedCell, Supernet

EDGES = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2), (4, 3)]


def even(nodes: int) -> dict[str, list[list[float]]]:
    return {kind: [[1 / len(names)] * len(names) for _ in edges(nodes)] for kind, names in OPERATIONS.items()}


def prefer(weights: dict, kind: str, edge: tuple[int, int], operation: str, share: float) -> None:
    """One operation of an edge gets `share`, the others the rest, evenly."""
    names = OPERATIONS[kind]
    weights[kind][edges(3).index(edge)] = [share if n == operation else (1 - share) / (len(names) - 1) for n in names]


def test_edges_operations_and_alphas_of_three_nodes():
    assert edges(3) == EDGES and len(edges(4)) == 14
    supernet = Supernet(1, 2, 2, width=4, depth=1)
    assert {kind: tuple(a.shape) for kind, a in supernet.alphas.items()} == {
        "down": (9, 6),
        "up": (9, 4),
        "normal": (9, 7),
    }
    assert all(a.std() < 3e-3 for a in supernet.alphas.values())
    (down,), (up, _) = supernet.network.down, supernet.network.up
    # `none` is no module. DownSC: both inputs are halved; UpSC: only the last cell's output is doubled.
    assert [len(e) for e in down.operations] == [6] * 9
    assert [len(e) for e in up.operations] == [6, 4, 6, 4, 6, 6, 4, 6, 6]
    assert ["down_conv" in e for e in down.operations] == [state < 2 for _, state in EDGES]
    assert ["up_conv" in e for e in up.operations] == [state == 1 for _, state in EDGES]
    assert len(supernet.network.down) == 1 and len(supernet.network.up) == 2


def test_what_learns_in_a_supernet():
    supernet = Supernet(1, 2, 2, width=16, depth=1)
    learnt = {id(p) for p in supernet.weights()}
    assert not learnt & {id(a) for a in supernet.alphas.values()}
    norms = [
        m
        for cells in (supernet.network.down, supernet.network.up)
        for m in cells.modules()
        if isinstance(m, nn.GroupNorm)
    ]
    assert norms and not any(id(p) in learnt for norm in norms for p in norm.parameters())
    assert id(supernet.network.stem0[1].weight) in learnt
    frozen = sum(p.numel() for norm in norms for p in norm.parameters())
    alphas = sum(a.numel() for a in supernet.alphas.values())
    assert sum(p.numel() for p in supernet.weights()) == sum(p.numel() for p in supernet.parameters()) - frozen - alphas


@pytest.mark.parametrize("size", [(13, 22), (9, 8, 10)])
def test_any_size(size):
    supernet = Supernet(2, 3, len(size), width=4, depth=2, nodes=2)
    assert supernet(torch.rand(1, 2, *size)).shape == (1, 3, *size)
    with pytest.raises(BadInput, match="at least 4 pixels"):
        supernet(torch.rand(1, 2, 3, *size[1:]))


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_by_hand(cell):
    torch.manual_seed(0)
    mixed = MixedCell(2, 3, 5, 16, 2, cell)
    s0, s1 = torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6)
    weights = {kind: torch.rand(5, len(names)) for kind, names in OPERATIONS.items()}
    a, b = mixed.preprocess0(s0), mixed.preprocess1(s1)

    def edge(row: int, x: Tensor, kind: str) -> Tensor:
        share = dict(zip(OPERATIONS[kind], weights[kind][row], strict=True))
        return sum(share[name] * operation(x) for name, operation in mixed.operations[row].items())

    if cell == "down":
        assert a.shape == b.shape
        n2 = edge(0, a, "down") + edge(1, b, "down")
        n3 = edge(2, a, "down") + edge(3, b, "down") + edge(4, n2, "normal")
        assert n2.shape[2:] == (2, 3)
    else:
        up = [edge(row, b, "up") for row in (1, 3)]
        assert up[0].shape[2:] == (7, 11)
        up = [F.interpolate(y, size=(8, 12), mode="nearest") for y in up]
        n2 = edge(0, a, "normal") + up[0]
        n3 = edge(2, a, "normal") + up[1] + edge(4, n2, "normal")
    torch.testing.assert_close(mixed(s0, s1, weights), torch.cat([n2, n3], 1), rtol=1e-4, atol=1e-5)


def test_the_softmax_of_the_alphas_mixes():
    supernet = Supernet(1, 2, 2, width=4, depth=1, nodes=2).eval()
    for alphas in supernet.alphas.values():
        nn.init.normal_(alphas)
    x = torch.rand(1, 1, 9, 8)
    shares = {
        kind: torch.tensor([[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in alphas.tolist()])
        for kind, alphas in supernet.alphas.items()
    }
    torch.testing.assert_close(supernet(x), supernet.mixed(x, dict.fromkeys(CELLS, shares)))
    assert supernet.shares()["up"][3] == pytest.approx(shares["up"][3].tolist(), abs=1e-6)


def discrete(supernet: Supernet, genotype: dict, width: int, depth: int) -> nn.Module:
    """The network of a genotype, made of the very modules that the supernet has for it."""
    network = build_model({"name": "nas_unet", "width": width, "depth": depth, "genotype": genotype}, 2, 3, 2)
    network.stem0, network.stem1 = supernet.network.stem0, supernet.network.stem1
    network.classifier = supernet.network.classifier
    for name in CELLS:
        for cell, mixed in zip(getattr(network, name), getattr(supernet.network, name), strict=True):
            cell.preprocess0, cell.preprocess1 = mixed.preprocess0, mixed.preprocess1
            for position, (operation, state) in enumerate(genotype[name]):
                row = mixed.edges.index((2 + position // 2, state))
                cell.operations[position] = mixed.operations[row][operation]
    return network.eval()


def one_hot(genotype: dict, nodes: int) -> dict[str, dict[str, Tensor]]:
    """Mixing weights of each cell: 1 for what the genotype keeps, 0 for all else."""
    mixing = {cell: {kind: torch.zeros(len(edges(nodes)), len(n)) for kind, n in OPERATIONS.items()} for cell in CELLS}
    for cell in CELLS:
        for position, (operation, state) in enumerate(genotype[cell]):
            kind = kind_of(cell, state)
            row = edges(nodes).index((2 + position // 2, state))
            mixing[cell][kind][row, OPERATIONS[kind].index(operation)] = 1
    return mixing


@pytest.mark.parametrize(
    ("genotype", "nodes", "size"),
    [
        (PUBLISHED["v3"], 4, (24, 21)),
        (PUBLISHED["v2"], 3, (17, 16)),
        *((random_genotype(nodes, seed), nodes, (11, 18)) for nodes, seed in ((1, 0), (2, 1), (3, 2))),
    ],
)
def test_a_supernet_that_has_chosen_is_the_network_of_the_genotype(genotype, nodes, size):
    torch.manual_seed(0)
    supernet = Supernet(2, 3, 2, width=16, depth=2, nodes=nodes).eval()
    x = torch.randn(2, 2, *size)
    with torch.no_grad():
        expected = discrete(supernet, genotype, 16, 2)(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(supernet.mixed(x, one_hot(genotype, nodes)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_a_supernet_with_decided_alphas_is_the_network_that_is_derived_from_it(seed):
    """Every edge that changes the size counts, for there is no `none` among its operations; of the others only the skip."""
    torch.manual_seed(seed)
    nodes = 3
    supernet = Supernet(2, 3, 2, width=16, depth=2, nodes=nodes).eval()
    for kind, alphas in supernet.alphas.items():
        names = OPERATIONS[kind]
        for row, (_, state) in enumerate(edges(nodes)):
            choices = [i for i, name in enumerate(names) if name != NONE]
            chosen = names.index(NONE) if kind == "normal" and state >= 2 else choices[torch.randint(len(choices), ())]
            alphas.data[row] = torch.where(torch.arange(len(names)) == chosen, 1e4, 0.0)
    genotype = supernet.genotype()
    assert all([state for _, state in genotype[cell]] == [0, 1] * nodes for cell in CELLS)
    x = torch.randn(2, 2, 13, 20)
    with torch.no_grad():
        torch.testing.assert_close(supernet(x), discrete(supernet, genotype, 16, 2)(x), rtol=1e-4, atol=1e-5)


def test_derivation_by_hand():
    weights = even(3)
    prefer(weights, "down", (2, 0), "down_conv", 0.5)
    prefer(weights, "down", (2, 1), "max_pool", 0.4)
    prefer(weights, "down", (3, 0), "down_cweight", 0.22)
    prefer(weights, "down", (3, 1), "avg_pool", 0.9)
    prefer(weights, "normal", (3, 2), "dil_conv", 0.2)  # 7 · 0.2 = 1.4 even shares, (3, 0) has 6 · 0.22 = 1.32
    prefer(weights, "normal", (4, 2), NONE, 0.9)  # leaves 0.1 / 6 to each of the others
    prefer(weights, "normal", (4, 3), "conv", 0.3)
    prefer(weights, "down", (4, 1), "down_dil_conv", 0.3)
    prefer(weights, "normal", (2, 0), "identity", 0.6)
    prefer(weights, "up", (2, 1), "up_conv", 0.3)
    prefer(weights, "up", (3, 1), "up_dep_conv", 0.3)  # 4 · 0.3 = 1.2 < 1.4
    prefer(weights, "normal", (3, 0), "cweight", 0.16)  # 1.12
    prefer(weights, "up", (4, 1), "up_cweight", 0.99)
    assert derive(weights, 3) == {
        "down": [
            ["down_conv", 0], ["max_pool", 1],
            ["avg_pool", 1], ["dil_conv", 2],
            ["down_dil_conv", 1], ["conv", 3],
        ],
        "up": [
            ["identity", 0], ["up_conv", 1],
            ["up_dep_conv", 1], ["dil_conv", 2],
            ["up_cweight", 1], ["conv", 3],
        ],
    }  # fmt: skip


def inside(genotype: dict, cell: str) -> dict:
    return {(p // 2, state): name for p, (name, state) in enumerate(genotype[cell]) if state >= 2}


def agrees(genotype: dict) -> bool:
    """Normal operations have common alphas, so both cells have the same one where both keep its edge."""
    down, up = (inside(genotype, cell) for cell in CELLS)
    return all(down[edge] == up[edge] for edge in down.keys() & up.keys())


def test_what_is_derived_and_what_is_drawn_can_be_built_and_lies_in_one_space():
    torch.manual_seed(0)
    for seed in range(40):
        random = {kind: torch.randn(9, len(n)).softmax(1).tolist() for kind, n in OPERATIONS.items()}
        for genotype in (derive(random, 3), random_genotype(3, seed)):
            assert [len(pairs) for pairs in cells_of(genotype).values()] == [6, 6] and agrees(genotype)
            states = [[state for _, state in genotype[cell]] for cell in CELLS]
            assert all(s[i] < s[i + 1] for s in states for i in (0, 2, 4))
    assert random_genotype(3, 1) == random_genotype(3, 1) != random_genotype(3, 2)
    assert agrees(PUBLISHED["v2"]) and agrees(PUBLISHED["v3"])


def test_random_genotypes_are_uniform():
    one = [random_genotype(1, seed) for seed in range(1500)]
    for cell, combinations in (("down", 36), ("up", 24)):
        counts = Counter(str(genotype[cell]) for genotype in one)
        assert len(counts) == combinations and chisquare(list(counts.values())).pvalue > 1e-3
    # The second of two nodes is one of 108 in DownSC, 72 of them with a normal edge (3, 2), and of 84 and 60 in UpSC;
    # of the 72 · 60 in which both have it, the sixth is left in which they agree.
    both = sum(
        len(inside(g, "down")) == len(inside(g, "up")) == 1 for g in (random_genotype(2, s) for s in range(1500))
    )
    left = 72 * 60 / 6
    assert both / 1500 == pytest.approx(left / (108 * 84 - 72 * 60 + left), abs=0.03)


def test_genotypes_of_recipes():
    recipe = {"name": "nas_unet", "width": 4, "depth": 2, "genotype": {"random": 3}}
    lists = recipe | {"genotype": random_genotype(3, 3)}
    torch.manual_seed(0)
    a = build_model(recipe, 1, 2, 2).state_dict()
    torch.manual_seed(0)
    b = build_model(lists, 1, 2, 2).state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert cells_of({"random": 0, "nodes": 4})["up"] == [tuple(edge) for edge in random_genotype(4, 0)["up"]]
    for genotype, message in (
        ({"random": "a"}, "integer seed"),
        ({"random": 0, "nodes": 0}, "nodes from 1"),
        ({"random": 0, "node": 3}, "or the two lists"),
        ({"search": "brief"}, "which the workflow puts in its place"),
        ({"down": [["down_conv", 0], ["down_conv", 1]], "up": [["none", 0], ["up_conv", 1]]}, "Known: conv, cweight"),
    ):
        with pytest.raises(BadInput, match=message):
            cells_of(genotype)


def test_entropy_and_table_of_what_is_in_use():
    weights = even(2)
    assert entropy(weights, 2) == pytest.approx(1)
    # 4 edges of DownSC, 2 of UpSC, 3 normal ones: skip of both nodes, and from node to node
    assert len(list(table(weights, 2))) == 4 * 6 + 2 * 4 + 3 * 7
    weights["up"][1] = [1, 0, 0, 0]
    assert entropy(weights, 2) == pytest.approx(8 / 9)
    weights["up"][0] = [1, 0, 0, 0]  # state 0 of UpSC has normal operations
    assert entropy(weights, 2) == pytest.approx(8 / 9)
    assert ("up", 2, 1, "up_cweight", 1) in list(table(weights, 2))


def test_a_cell_gets_the_genotype_of_its_own_search(in_tmp):
    cell = Cell("d", "c", "p", "nas_unet_searched", "ce", 1, 2)
    recipe = {"name": "nas_unet", "width": 4, "depth": 2, "genotype": {"search": "brief"}}
    search = search_of(recipe, cell)
    assert str(search.folder) == "results/cells/d/c/brief/nas_unet/search/fold1/seed2"
    assert search_name({"genotype": "v3"}) is search_of({"name": "unet"}, cell) is None
    assert with_genotype(recipe, None) == with_genotype(recipe, search) == recipe  # nothing found yet
    genotype = random_genotype(3, 0)
    with atomic(search.folder / "genotype.yaml") as file:
        file.write_text(recipe_text(genotype, {"found_by": {"search": "brief"}}))
    found = with_genotype(recipe, search)
    assert found == recipe | {"genotype": genotype} and build_model(found, 1, 2, 2)


def test_the_ledger_has_the_cost_of_the_search(in_tmp):
    cells = [Cell("d", "c", "p", name, "ce", 0, 0) for name in ("searched", "unet", "not_run")]
    search = search_of({"genotype": {"search": "brief"}}, cells[0])
    write_json(search.folder / "training/cost.json", {"wall_seconds": 90.5, "gpu_hours": 0.025, "energy_kwh": None})
    for cell, found_by in ((cells[0], str(search.folder)), (cells[1], None)):
        write_json(cell.folder / "training/cost.json", {"wall_seconds": 10.0, "search": found_by})
    ledger = build_ledger(cells)
    assert ledger["search_seconds"].tolist()[0] == 90.5 and ledger["search_gpu_hours"].tolist()[0] == 0.025
    assert ledger.loc[1:, ["search_seconds", "search_gpu_hours", "search_energy_kwh"]].isna().all(axis=None)
    assert ledger["wall_seconds"].tolist()[:2] == [10, 10]


def test_kept_operations():
    assert kept_operations("up", 0) == ("identity", "cweight", "dil_conv", "dep_conv", "shuffle_conv", "conv")
    assert kept_operations("up", 1) == OPERATIONS["up"] and kept_operations("down", 0) == OPERATIONS["down"]
