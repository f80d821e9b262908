"""The supernet of NAS-Unet's search: every edge of its cells mixes all operations, by weights that are learnt too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from lib.models.layers import check_positive
from lib.models.nas_unet import UOfCells, fitted_sum, operation, preprocess
from lib.search.space import CELLS, NONE, OPERATIONS, derive, edges, kind_of

ALPHA_SCALE = 1e-3  # of the first alphas, drawn from a normal distribution
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
Mixing = Mapping[str, Mapping[str, Tensor]]


class Supernet(nn.Module):
    """(B, in_channels, *S) to logits (B, out_channels, *S), any S of at least 2^depth along each axis.

    `depth` DownSC, `depth` + 1 UpSC cells of `nodes` nodes. A node is the sum of one edge from every earlier state, an
    edge the sum of all operations of its kind, each times the softmax of its alpha; alphas (edges, operations) of the
    kinds down, up and normal are common to all cells, those of normal operations to DownSC and UpSC too. Every kind has
    a row for every edge; rows of edges that are not of the kind are never used.
    Source: Weng 2019, official code; Liu, Simonyan, Yang, DARTS, ICLR 2019. Normalisation inside cells has no scale and
    no shift, the classifier is behind a dropout of 0.1. Ours: He weights.
    Cite: weng2019, liu2019
    """

    def __init__(
        self, in_channels: int, out_channels: int, spatial_dims: int, width: int = 16, depth: int = 4, nodes: int = 3
    ):
        super().__init__()
        check_positive("supernet of nas_unet", width=width, depth=depth, nodes=nodes)
        self.nodes = nodes
        self.network = UOfCells(
            in_channels,
            out_channels,
            spatial_dims,
            nodes * width,
            depth,
            lambda cell, before_last, last: MixedCell(spatial_dims, before_last, last, width, nodes, cell),
        )
        self.network.classifier = nn.Sequential(DROPOUT[spatial_dims](0.1), self.network.classifier)
        rows = len(edges(nodes))
        self.alphas = nn.ParameterDict(
            {kind: nn.Parameter(ALPHA_SCALE * torch.randn(rows, len(names))) for kind, names in OPERATIONS.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        shares = {kind: alphas.softmax(dim=1) for kind, alphas in self.alphas.items()}
        return self.mixed(x, dict.fromkeys(CELLS, shares))

    def mixed(self, x: Tensor, mixing: Mixing) -> Tensor:
        """Logits with these weights of each kind (edges, operations) in the cells `down` and `up`."""
        return self.network(x, {cell: (mixing[cell],) for cell in CELLS})

    def weights(self) -> list[nn.Parameter]:
        """What the first half of the data trains: all that is learnt but the alphas."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def shares(self) -> dict[str, list[list[float]]]:
        """The softmax of the alphas, for `lib.search.space`."""
        return {kind: alphas.detach().double().softmax(dim=1).tolist() for kind, alphas in self.alphas.items()}

    def genotype(self) -> dict[str, list]:
        return derive(self.shares(), self.nodes)


class MixedCell(nn.Module):
    """A DownSC (`down`) or UpSC (`up`) before anything is chosen: s0 and s1 as those of NAS-Unet, to `channels`."""

    def __init__(self, spatial_dims: int, before_last: int, last: int, width: int, nodes: int, cell: str):
        super().__init__()
        self.channels = nodes * width
        self.preprocess0 = preprocess(spatial_dims, before_last, width, stride=2 if cell == "down" else 1)
        self.preprocess1 = preprocess(spatial_dims, last, width)
        self.edges = edges(nodes)
        self.kinds = [kind_of(cell, state) for _, state in self.edges]
        self.operations = nn.ModuleList(
            nn.ModuleDict({name: operation(name, spatial_dims, width) for name in OPERATIONS[kind] if name != NONE})
            for kind in self.kinds
        )
        for layer in self.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.requires_grad_(False)  # stays at scale 1, shift 0

    def forward(self, s0: Tensor, s1: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        parts: list[Tensor] = []
        for row, (node, state) in enumerate(self.edges):
            kind, operations = self.kinds[row], self.operations[row]
            shares = zip(OPERATIONS[kind], weights[kind][row], strict=True)
            parts.append(reduce(add, (w * operations[name](states[state]) for name, w in shares if name != NONE)))
            if state == node - 1:  # the node's last edge
                states.append(fitted_sum(parts))
                parts = []
        return torch.cat(states[2:], dim=1)
