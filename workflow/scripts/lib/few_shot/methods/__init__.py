"""Few-shot methods: how a base network is trained on episodes, and how it is adapted to a support.

A method is a module that holds its base. `training_loss(episode, **ramp)` is what the outer optimiser descends;
`adapt(support)` returns a function from query images (Q, C, H, W) to logits (Q, classes, H, W). `ramp` is `iteration`
and `iterations`, for losses whose weights change.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lib.few_shot import METHODS, own_parameters
from lib.few_shot.networks import build_base
from lib.losses import build_loss

Predictor = Callable[[Tensor], Tensor]
LossOf = Callable[[int], nn.Module]  # classes -> loss


def build_method(settings: dict, loss: dict, in_channels: int, seen: int) -> nn.Module:
    """The method of a resolved entry, with freshly drawn weights; `seen`: structures with labels in its training."""
    method = METHODS.get(settings["name"])
    classes = settings["way"] + 1

    def loss_of(classes: int) -> nn.Module:
        return build_loss(loss, classes=classes, spatial_dims=2)

    base = settings["base"]
    base = base if "architecture" in base else base | {"way": settings["way"]}
    network = build_base(base, in_channels, seen + 1 if method.trains_on_all_labels else classes)
    own = {key: value for key, value in own_parameters(settings).items() if key != "name"}
    return method(network, loss_of, classes, **own)
