"""MAML and its learned optimisers: initial weights from which a few gradient steps on the support lead far.

theta: the weights of the base. One step is theta <- theta - lr U(grad L(theta)), L the loss on the support, U = the
identity (MAML) or a learned update (meta-KFO, BM-KFO). The outer loss is that on the query after the last step, with
the alignment of the base where it has one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib.errors import BadInput
from lib.few_shot.episodes import Episode, Labelled
from lib.few_shot.kronecker import Factors, Kronecker
from lib.few_shot.methods import LossOf, Predictor
from lib.registry import did_you_mean, register

Parameters = dict[str, Tensor]
ORDERS = ("first", "second")


@register("maml")
class MAML(nn.Module):
    """Model-agnostic meta-learning (Finn 2017).

    steps, lr: of the inner loop, in training and testing. order: `second` differentiates through the inner gradients,
    `first` takes them for constants (first-order MAML).
    With a base that looks at the support, the inner loss is that of the support segmented by itself.
    Cite: finn2017
    """

    trains_on_all_labels = False

    def __init__(
        self, base: nn.Module, loss: LossOf, classes: int, steps: int = 4, lr: float = 0.1, order: str = "second"
    ):
        super().__init__()
        if order not in ORDERS:
            raise BadInput(f"order: '{order}' is none of a gradient through gradients.{did_you_mean(order, ORDERS)}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1 or lr <= 0:
            raise BadInput(f"the inner loop needs steps of at least 1 and lr above 0, not {steps!r} and {lr!r}.")
        self.base, self.loss = base, loss(classes)
        self.steps, self.lr, self.second_order = steps, lr, order == "second"

    def training_loss(self, episode: Episode, **ramp) -> Tensor:
        support, query = episode.support, episode.query
        theta = self.adapted(support, self.second_order, **ramp)
        inputs = query.image, support.image, support.label
        logits, aligned = functional_call(self.base, theta, inputs, {"align": True})
        total = self.loss(logits, query.label, spacing=query.spacing, **ramp)
        if aligned is None:
            return total
        return total + self.loss(aligned, support.label, spacing=support.spacing, **ramp)

    def adapt(self, support: Labelled) -> Predictor:
        with torch.enable_grad():
            theta = {name: weight.detach() for name, weight in self.adapted(support, create_graph=False).items()}
        return lambda query: functional_call(self.base, theta, (query, support.image, support.label))

    def support_loss(self, theta: Parameters, support: Labelled, ramp: dict) -> Tensor:
        logits = functional_call(self.base, theta, (support.image, support.image, support.label))
        return self.loss(logits, support.label, spacing=support.spacing, **ramp)

    def adapted(self, support: Labelled, create_graph: bool, **ramp) -> Parameters:
        """theta after the inner loop, differentiable by what the method learns."""
        theta = dict(self.base.named_parameters())
        for _ in range(self.steps):
            gradients = _gradients(self.support_loss(theta, support, ramp), theta, create_graph)
            theta = descended(theta, gradients, self.lr)
        return theta


@register("meta_kfo")
class MetaKFO(MAML):
    """MAML whose inner gradients pass through learned Kronecker factors (`lib.few_shot.kronecker`; Arnold 2021).

    psd: see there. adapt_optimiser: from the second step on, the factors descend too, by the gradient of the loss that
    their last step led to. The other parameters: as `maml`.
    Known, from the authors' code (learn2learn): all of it; the factors' own descent is plain, at the rate `lr`.
    Cite: arnold2021
    """

    def __init__(
        self,
        base: nn.Module,
        loss: LossOf,
        classes: int,
        steps: int = 4,
        lr: float = 0.1,
        order: str = "second",
        psd: bool = True,
        adapt_optimiser: bool = False,
    ):
        super().__init__(base, loss, classes, steps, lr, order)
        self.optimiser = Kronecker(dict(base.named_parameters()), psd)
        self.adapt_optimiser = adapt_optimiser

    def adapted(self, support: Labelled, create_graph: bool, **ramp) -> Parameters:
        theta = dict(self.base.named_parameters())
        return self.descend(theta, self.optimiser, self.steps, support, create_graph, ramp)

    def descend(
        self, theta: Parameters, optimiser: Kronecker, steps: int, support: Labelled, create_graph: bool, ramp: dict
    ) -> Parameters:
        """`steps` of theta by one optimiser, which where it adapts is updated between them."""
        xi = optimiser.factors()
        for step in range(steps):
            loss = self.support_loss(theta, support, ramp)
            adapts = self.adapt_optimiser and step > 0
            of_xi = {(name, side): factor for name in xi for side, factor in enumerate(xi[name])} if adapts else {}
            # By xi, the gradient is through the last step alone: the step before was made by another xi.
            gradients = _gradients(loss, theta | of_xi, create_graph)
            if adapts:
                xi = self.updated(optimiser, xi, {name: (gradients[name, 0], gradients[name, 1]) for name in xi})
            theta = descended(theta, optimiser.update({name: gradients[name] for name in theta}, xi), self.lr)
        return theta

    def updated(self, optimiser: Kronecker, xi: Factors, gradients: Factors) -> Factors:
        """xi after its own step."""
        return {name: tuple(f - self.lr * g for f, g in zip(xi[name], gradients[name], strict=True)) for name in xi}


@register("bm_kfo")
class BMKFO(MetaKFO):
    """Bidirectional meta-Kronecker factored optimiser (Kim 2023).

    Known, from the drawings of the authors' repository, which holds no code:
        meta-train   theta' = theta - U_xi(grad_theta L(theta)),       xi <- xi - U_xi(grad_xi L(theta))
        meta-test    theta* = theta' - U_xi'(grad_theta' L(theta')),   xi' <- xi' - U_xi'(grad_xi' L(theta'))
    and that parameters and optimisers are Kronecker products. Reconstruction: both halves are steps on the support, the
    first half of `steps` by xi and the second by xi', so that a test, which has no other labels, runs what was trained;
    an optimiser descends, as meta-KFO's code does, by the loss that its last step led to, from the second step of its
    half on (L(theta) itself does not depend on xi); U_xi of the gradient of a factor A is A G A, or with A^T A for A;
    U is multiplied by `lr`; theta, xi and xi' start from values that the outer loop learns.
    steps: of both halves together, at least 4, so that both optimisers update themselves. The others: as `meta_kfo`.
    Cite: kim2023
    """

    def __init__(
        self,
        base: nn.Module,
        loss: LossOf,
        classes: int,
        steps: int = 4,
        lr: float = 0.1,
        order: str = "second",
        psd: bool = True,
    ):
        if isinstance(steps, int) and (steps < 4 or steps % 2):
            raise BadInput(f"bm_kfo needs an even number of steps, at least 4, half for each optimiser, not {steps}.")
        super().__init__(base, loss, classes, steps, lr, order, psd, adapt_optimiser=True)
        self.second_optimiser = Kronecker(dict(base.named_parameters()), psd)

    def adapted(self, support: Labelled, create_graph: bool, **ramp) -> Parameters:
        theta = dict(self.base.named_parameters())
        for optimiser in (self.optimiser, self.second_optimiser):
            theta = self.descend(theta, optimiser, self.steps // 2, support, create_graph, ramp)
        return theta

    def updated(self, optimiser: Kronecker, xi: Factors, gradients: Factors) -> Factors:
        steps = optimiser.own_update(gradients, xi)
        return {name: tuple(f - self.lr * g for f, g in zip(xi[name], steps[name], strict=True)) for name in xi}


def descended(theta: Parameters, directions: Parameters, lr: float) -> Parameters:
    return {name: weight - lr * directions[name] for name, weight in theta.items()}


def _gradients(loss: Tensor, inputs: dict, create_graph: bool) -> dict:
    """The gradient by each input; as constants without `create_graph`. Earlier steps stay differentiable either way."""
    found = torch.autograd.grad(
        loss, list(inputs.values()), create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return dict(zip(inputs, found, strict=True))
