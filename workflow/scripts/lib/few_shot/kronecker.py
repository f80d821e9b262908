"""The learned, Kronecker-factored update of meta-KFO (Arnold, Iqbal, Sha 2021): U(G) = L G R.

No curvature is estimated, as K-FAC does: L and R are learned with the initial weights, by gradients through the steps
that they make.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

Factors = dict[str, tuple[Tensor, Tensor]]  # per parameter: L (n, n) and R (m, m)


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """(n, m) of a gradient as a matrix, or as a batch of them.

    Vectors (n,) are (n, 1); matrices stay; convolutions (o, i, *kernel) are o matrices of (i, kernel pixels).
    """
    if len(shape) <= 1:
        return math.prod(shape), 1
    return (shape[0], shape[1]) if len(shape) == 2 else (shape[1], math.prod(shape[2:]))


def precondition(gradient: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """L G R, in the shape of `gradient`."""
    n, m = len(left), len(right)
    return (left @ gradient.reshape(-1, n, m) @ right).reshape(gradient.shape)


class Kronecker(nn.Module):
    """Factors L and R for each of some parameters; both start as the identity, which is gradient descent.

    psd: the factors used are L^T L and R^T R, so that every step is one of descent; the learned ones are their roots.
    """

    def __init__(self, parameters: Mapping[str, Tensor], psd: bool = True):
        super().__init__()
        self.psd = psd
        self.names = list(parameters)
        sizes = [matrix_shape(parameter.shape) for parameter in parameters.values()]
        self.left = nn.ParameterList(torch.eye(n) for n, _ in sizes)
        self.right = nn.ParameterList(torch.eye(m) for _, m in sizes)

    def factors(self) -> Factors:
        """The learned matrices by parameter: xi of the papers."""
        return {name: pair for name, *pair in zip(self.names, self.left, self.right, strict=True)}

    def used(self, factor: Tensor) -> Tensor:
        """The matrix that multiplies a gradient."""
        return factor.mT @ factor if self.psd else factor

    def update(self, gradients: Mapping[str, Tensor], factors: Factors) -> dict[str, Tensor]:
        """U_xi of the gradients of parameters."""
        return {
            name: precondition(gradient, *(self.used(factor) for factor in factors[name]))
            for name, gradient in gradients.items()
        }

    def own_update(self, gradients: Factors, factors: Factors) -> Factors:
        """U_xi of the gradients of xi itself: each factor multiplies its own from both sides (a reconstruction)."""
        return {
            name: tuple(
                precondition(gradient, used, used)
                for gradient, used in zip(gradients[name], map(self.used, factors[name]), strict=True)
            )
            for name in factors
        }
