"""Architectures: one file per family, found by name.

`build_model({"name": "unet", "width": 16}, in_channels=1, out_channels=4, spatial_dims=2)` returns a network
that maps (B, in_channels, *S) to logits (B, out_channels, *S). Listing names and parameters does not import
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.errors import BadInput
from lib.registry import Registry

if TYPE_CHECKING:
    from torch import nn

MODELS = Registry("lib.models")
CONTEXT = ("in_channels", "out_channels", "spatial_dims")  # what the data decide, so a recipe may not


def available() -> list[str]:
    """Names of all architectures, sorted."""
    return MODELS.available()


def build_model(recipe: dict, in_channels: int, out_channels: int, spatial_dims: int) -> nn.Module:
    """Build the network of a recipe `{"name": …, parameter: value, …}` with freshly drawn weights.

    `out_channels` counts the background; `spatial_dims` is 2 or 3. The weights come in channels-last memory
    format, which makes every activation channels-last whatever the input is: on CPUs, pooling with indices is
    then an order of magnitude faster and convolutions 1.2 times.
    Raises BadInput for an unknown name, parameter or value.
    """
    MODELS.check(recipe, CONTEXT)
    if spatial_dims not in (2, 3):
        raise BadInput(f"spatial_dims is {spatial_dims!r}; networks exist for 2 (slices) and 3 (volumes).")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels < 1:
            raise BadInput(f"{name} is {channels}; the architecture '{recipe['name']}' needs at least 1.")
    from lib.models.layers import CHANNELS_LAST

    parameters = {key: value for key, value in recipe.items() if key != "name"}
    model = MODELS.get(recipe["name"])(in_channels, out_channels, spatial_dims, **parameters)
    return model.to(memory_format=CHANNELS_LAST[spatial_dims])
