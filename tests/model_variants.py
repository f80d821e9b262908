"""Small variants of every architecture, for the tests that go over the whole registry, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lib.models import build_model

CLASSES = 3
CHANNELS = 2


@dataclass(frozen=True)
class Variant:
    """A recipe narrow enough for tests, and what its docstring promises."""

    recipe: dict
    minimum: int  # pixels along every axis that the network accepts
    dims: tuple[int, ...] = (2, 3)
    outputs: int = 1  # logits in training: 1, or the levels of deep supervision
    volume_minimum: tuple[int, int, int] | None = None  # where the axes of volumes differ
    learner: dict | None = None  # a recipe wide enough to learn pictures, where 16 channels are not

    @property
    def name(self) -> str:
        return self.recipe["name"]

    def __str__(self) -> str:
        return "-".join(_words(self.recipe))

    def wide(self) -> dict:
        """A recipe wide enough to learn pictures by heart."""
        return self.learner or _widened(self.recipe)

    def smallest(self, dims: int) -> tuple[int, ...]:
        if dims == 3 and self.volume_minimum:
            return self.volume_minimum
        return (self.minimum,) * dims

    def odd(self, dims: int) -> tuple[int, ...]:
        """An anisotropic size, multiple of nothing along most axes."""
        return tuple(n + more for n, more in zip(self.smallest(dims), {2: (1, 7), 3: (1, 0, 3)}[dims], strict=True))


def _widened(recipe: dict) -> dict:
    wide = {
        key: _widened(value) if isinstance(value, dict) and "name" in value else value for key, value in recipe.items()
    }
    return {**wide, "width": 16} if "width" in wide else wide


def _words(recipe: dict) -> list[str]:
    words = []
    for key, value in recipe.items():
        if isinstance(value, dict):
            words += _words(value) if "name" in value else [key]
        elif key == "name":
            words.append(value)
        elif isinstance(value, bool):
            words.append(key if value else f"no {key}")
        elif key != "width":
            words.append(str(value))
    return words


UNET = {"name": "unet", "width": 4}
SWIN = {"name": "swin_unetr", "width": 12, "window": 3}
VARIANTS = [
    Variant({"name": "attention_unet", "width": 4}, 16),
    Variant({"name": "dmfnet", "width": 4}, 16),
    Variant({"name": "hdc_duc", "of": UNET}, 31),
    Variant({"name": "hdc_duc", "of": {**UNET, "deep_supervision": True}}, 31, dims=(2,), outputs=4),
    Variant({"name": "mednext", "width": 4}, 16),
    Variant({"name": "mednext", "width": 4, "kernel": 5, "deep_supervision": True}, 16, dims=(2,), outputs=5),
    Variant({"name": "nas_unet", "width": 4, "depth": 3}, 8),
    Variant({"name": "nas_unet", "width": 4, "depth": 3, "genotype": "v2"}, 8, dims=(2,)),
    Variant({"name": "nnunet", "width": 4, "stages": 4}, 8),
    Variant({"name": "nnunet", "width": 4, "stages": 4, "deep_supervision": True}, 8, dims=(2,), outputs=2),
    Variant({"name": "nnunet_resenc", "width": 4, "stages": 3}, 4),
    Variant({"name": "pcnet", "width": 4}, 6, volume_minimum=(1, 6, 6)),
    Variant({"name": "pnet", "width": 4}, 17),
    Variant({"name": "pvt_gcascade", "variant": "b0", "width": 4}, 32),
    Variant({"name": "pvt_gcascade", "variant": "b0", "width": 4, "deep_supervision": True}, 32, dims=(2,), outputs=5),
    Variant({"name": "reversible_unet", "width": 4}, 16),
    Variant({"name": "reversible_unet", "width": 4, "blocks": 2}, 16, dims=(2,)),
    Variant({"name": "segnet", "width": 4}, 32),
    Variant({"name": "segnet_basic", "width": 4}, 16),
    Variant({"name": "segresnet", "width": 8}, 8),
    Variant({"name": "shallow_segnet", "width": 4}, 8),
    Variant({"name": "shallow_segnet", "width": 4, "upsampling": "unpool"}, 8),
    Variant(SWIN, 32, dims=(2,), learner=SWIN),  # volumes take long: test_models_swin_unetr.py
    Variant({"name": "ts_unet", "width": 4}, 16),
    Variant({"name": "u2net_3d", "width": 4, "pools": 3}, 8),
    Variant({"name": "u2net_3d", "width": 4, "pools": 3, "separable": False}, 8, dims=(3,)),
    Variant(UNET, 16),
    Variant({**UNET, "normalisation": "instance"}, 16),
    *(Variant({**UNET, "normalisation": kind}, 16, dims=(2,)) for kind in ("group", "none")),
    Variant({**UNET, "residual": True}, 16),
    Variant({**UNET, "deep_supervision": True}, 16, outputs=4, dims=(2,)),
    Variant({"name": "unet_plus_plus", "width": 4}, 16),
    Variant({"name": "unet_plus_plus", "width": 4, "deep_supervision": True}, 16, outputs=4, dims=(2,)),
    Variant({"name": "unetr", "width": 4, "hidden": 24, "heads": 2, "layers": 4, "image_size": 32}, 16),
    Variant({"name": "vnet", "width": 4}, 16),
]


def build(
    recipe: dict, spatial_dims: int = 2, seed: int = 0, channels: tuple[int, int] = (CHANNELS, CLASSES)
) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(recipe, *channels, spatial_dims)


def on_meta(recipe: dict, inputs: int, outputs: int, spatial_dims: int) -> nn.Module:
    """A network of any width without its numbers, for counts and shapes."""
    with torch.device("meta"), _NoDraws():
        return build_model(recipe, inputs, outputs, spatial_dims)


def parameters(recipe: dict, inputs: int, outputs: int, spatial_dims: int) -> int:
    return sum(p.numel() for p in on_meta(recipe, inputs, outputs, spatial_dims).parameters())


class _NoDraws(TorchFunctionMode):
    """On the meta device, which has no numbers to draw, `normal_` imports torch's compiler: 1.4 s."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0] if function is Tensor.normal_ else function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Step:
    weights: dict[str, Tensor]  # before
    logits: list[Tensor]
    gradients: dict[str, Tensor]


def step(recipe: dict, size: tuple[int, ...], precision: torch.dtype = torch.float32, device: str = "cpu") -> Step:
    """Build a network, and take the gradient of a random sum of its logits for a batch of two."""
    model = build(recipe, len(size)).to(device)
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and not parameter.any():
            nn.init.ones_(parameter)  # a scale that starts at 0 lets no gradient through to what it scales
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(1)  # dropout
    x = torch.rand(2, CHANNELS, *size).to(device)
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        logits = model(x)
    logits = [y.float() for y in (logits if isinstance(logits, list) else [logits])]
    sum((y * torch.rand(y.shape).to(device)).sum() for y in logits).backward()
    return Step(weights, logits, {name: p.grad for name, p in model.named_parameters()})


def assert_same(one: Step, other: Step) -> None:
    """Two steps have equal bits: weights, logits and gradients."""
    assert all(torch.equal(t, other.weights[name]) for name, t in one.weights.items())
    assert all(torch.equal(a, b) for a, b in zip(one.logits, other.logits, strict=True))
    for name, gradient in one.gradients.items():
        assert torch.equal(gradient, other.gradients[name]), f"the gradient of {name} differs between two equal steps"


def executed(model: nn.Module, x: Tensor) -> list[tuple[str, int, int]]:
    """(layer type, output channels, height) of the layers without parts, in the order of execution."""
    order = []
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda layer, _, y: order.append((type(layer).__name__, y.shape[1], y.shape[2]))
            )
    model(x)
    return order
