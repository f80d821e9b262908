"""Batched augmentation on the training device: one fused resampling, then gamma, bias field and noise.

Each transform is drawn per sample, with its own probability and strength. Every random number comes from one
CPU generator, the noise through a seed that is drawn from it, so the state of that generator is all a
checkpoint needs and CPU and CUDA draw the same parameters.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import BadInput
from lib.registry import did_you_mean

# Strengths are upper ends of uniform draws, on both sides of "no change" unless the comment says otherwise.
DEFAULTS: dict[str, dict[str, float]] = {
    "affine": {
        "probability": 0.7,
        "rotation": 15.0,  # degrees, in the plane of the patch; in 3-D about each axis
        "scale": 0.15,  # of the logarithm: sizes from exp(-0.15) to exp(0.15)
        "shear": 0.05,  # tangent of the angle
        "translation": 0.05,  # share of the patch
    },
    "elastic": {
        "probability": 0.3,
        "displacement": 2.0,  # standard deviation of the control points, in the finest pixels; from 0 up
        "spacing": 16.0,  # pixels between control points; not random
    },
    "gamma": {"probability": 0.3, "strength": 0.3},  # of the logarithm of the exponent
    "bias": {
        "probability": 0.2,
        "strength": 0.3,
    },  # of the logarithm of the gain; from 0 up
    "noise": {"probability": 0.2, "strength": 0.15},  # in standard deviations of the patch; from 0 up
}

BIAS_POINTS = 2  # spans of the bias field's spline along each axis


def complete_settings(augment: dict | bool) -> dict[str, dict[str, float]] | None:
    """The protocol's `augment` with every default filled in; None where augmentation is off.

    A transform may be given as `false` (probability 0) or as the keys that differ from DEFAULTS. Raises
    BadInput for an unknown transform or key.
    """
    if augment is False:
        return None
    given = {} if augment is True else augment
    for transform in given.keys() - DEFAULTS.keys():
        raise BadInput(f"augment has no transform '{transform}'.{did_you_mean(transform, DEFAULTS)}")
    settings = {}
    for transform, defaults in DEFAULTS.items():
        values = given.get(transform, {})
        values = {"probability": 0.0} if values is False else {} if values is True else values
        for key in values.keys() - defaults.keys():
            raise BadInput(f"augment.{transform} has no key '{key}'.{did_you_mean(key, defaults)}")
        settings[transform] = defaults | values
    return settings


@torch.no_grad()
def augment_batch(
    image: Tensor, label: Tensor, spacing: Tensor, settings: dict, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented copies of a batch; samples that no transform was drawn for come back bit-equal.

    image (B,C,*S) float32 and label (B,*S) int64 on any device; spacing (B,d) float64 on the CPU, in mm, so
    that a rotation stays rigid in anisotropic voxels; settings from `complete_settings`; generator on the
    CPU. Beyond the border of the patch, image and label are continued by reflection.
    """
    batch, dims, device = len(image), image.ndim - 2, image.device
    on = {
        name: torch.rand(batch, generator=generator) < values["probability"] for name, values in settings.items()
    }  # drawn one transform after the other, always in the order of DEFAULTS

    matrix, offset = _draw_affine(batch, dims, settings["affine"], on["affine"], generator)
    controls = _draw_elastic(batch, image.shape[2:], settings["elastic"], on["elastic"], generator)
    moving = (on["affine"] | on["elastic"]).nonzero()[:, 0]
    if len(moving):
        maps = spacing[moving], matrix[moving], offset[moving], controls[moving]
        grid = _sampling_grid(image.shape[2:], *maps, settings["elastic"]["spacing"], device)
        rows = moving.to(device, non_blocking=True)
        moved = F.grid_sample(image[rows], grid, "bilinear", "reflection", align_corners=False)
        chosen = label[rows].unsqueeze(1).to(image.dtype)  # class indices are exact in float32
        chosen = F.grid_sample(chosen, grid, "nearest", "reflection", align_corners=False)
        image = image.index_copy(0, rows, moved)
        label = label.index_copy(0, rows, chosen[:, 0].to(label.dtype))

    exponent = torch.exp(_symmetric((batch,), generator) * settings["gamma"]["strength"])
    exponent = torch.where(on["gamma"], exponent, 1.0)
    strength = torch.rand(batch, generator=generator) * settings["bias"]["strength"] * on["bias"]
    points = torch.randn((batch, *[BIAS_POINTS + 3] * dims), generator=generator) * _column(strength, dims)
    rows = _rows(on["gamma"] | on["bias"], device)
    if len(rows):
        gain = None
        if bool(on["bias"].any()):
            spans = [size / BIAS_POINTS for size in image.shape[2:]]
            gain = _spline(spans, image.shape[2:], points.to(device)[rows]).exp_()
        image = _change_contrast(image, rows, exponent.to(device)[rows], gain)

    strength = torch.rand(batch, generator=generator) * settings["noise"]["strength"]
    seed = int(torch.randint(2**62, (), generator=generator))
    rows = _rows(on["noise"], device)
    if len(rows):
        image = _add_noise(image, rows, strength.to(device)[rows], seed)
    return image, label


def _rows(mask: Tensor, device: torch.device) -> Tensor:
    return mask.nonzero()[:, 0].to(device, non_blocking=True)


def _symmetric(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1


def _column(values: Tensor, dims: int) -> Tensor:
    return values.reshape(-1, *[1] * dims)


def _draw_affine(
    batch: int, dims: int, strength: dict, on: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Matrices (B,d,d) in mm, offsets (B,d) in shares of the patch; identity and 0 where there is none."""
    planes = [(i, j) for i in range(dims) for j in range(i + 1, dims)]  # one rotation angle each
    angles = _symmetric((batch, len(planes)), generator) * math.radians(strength["rotation"])
    scales = torch.exp(_symmetric((batch, 1), generator) * strength["scale"])
    shears = _symmetric((batch, dims, dims), generator) * strength["shear"]
    offset = _symmetric((batch, dims), generator) * strength["translation"]

    identity = torch.eye(dims).expand(batch, dims, dims)
    matrix = identity + shears.triu(1)
    for (i, j), angle in zip(planes, angles.unbind(1), strict=True):
        rotation = identity.clone()
        rotation[:, i, i] = rotation[:, j, j] = angle.cos()
        rotation[:, i, j], rotation[:, j, i] = -angle.sin(), angle.sin()
        matrix = rotation @ matrix
    matrix = matrix / scales[:, :, None]  # the grid maps output to input, so a larger structure reads closer points
    return torch.where(on[:, None, None], matrix, identity), offset * on[:, None]


def _draw_elastic(batch: int, size: torch.Size, strength: dict, on: Tensor, generator: torch.Generator) -> Tensor:
    """Displacements (B,d,*G) of the control points in finest pixels; 0 where the transform is off."""
    deviation = torch.rand(batch, generator=generator) * strength["displacement"] * on
    points = [math.ceil(n / strength["spacing"]) + 3 for n in size]
    controls = torch.randn((batch, len(size), *points), generator=generator) * _column(deviation, len(size) + 1)
    return controls


def _sampling_grid(
    size: torch.Size,
    spacing: Tensor,
    matrix: Tensor,
    offset: Tensor,
    controls: Tensor,
    span: float,
    device: torch.device,
) -> Tensor:
    """Where each output pixel reads the input: (B,*S,d) in grid_sample's coordinates, last axis x first."""
    dims, batch = len(size), len(matrix)
    extent = torch.tensor(size, dtype=torch.float64)
    # p' = A p in mm; grid_sample's unit is half the patch, so axis i has half-extent (mm) n_i s_i / 2.
    half = extent * spacing / 2
    normalised = matrix.double() * half[:, None, :] / half[:, :, None]
    # The last axis comes first in grid_sample; flipping both axes of the matrix turns (z,y,x) into (x,y,z).
    normalised = normalised.flip(1, 2).float().to(device, non_blocking=True)
    shift = (offset * 2).flip(1).to(device, non_blocking=True)

    # The affine map is a sum of one term per input axis; x comes first among its outputs, which lie one after the other
    # in memory, where sums are fastest.
    grid = shift.reshape(batch, dims, *[1] * dims)
    for axis, n in enumerate(size):
        points = (torch.arange(n, device=device) * 2 + 1) / n - 1
        term = points * normalised[:, :, dims - 1 - axis, None]  # (B,d,n)
        grid = grid + term.reshape(batch, dims, *[n if other == axis else 1 for other in range(dims)])
    if bool(controls.any()):
        finest = spacing.min(dim=1, keepdim=True).values
        unit = (2 * finest / spacing / extent).float()  # grid units of one finest pixel along each axis
        scaled = (controls * unit.reshape(batch, dims, *[1] * dims)).flip(1).to(device, non_blocking=True)
        grid += _spline([span] * dims, size, scaled.flatten(0, 1)).reshape(grid.shape)
    return grid.movedim(1, -1)


def _spline(spans: list[float], size: torch.Size, controls: Tensor) -> Tensor:
    """Uniform cubic B-spline with control points (K,*G), `spans` pixels apart, evaluated on (K,*S)."""
    field = controls
    for axis, (span, n) in enumerate(zip(spans, size, strict=True), start=1):
        weights = _spline_weights(n, span, field.shape[axis], field.device)
        field = (field.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return field


@lru_cache(maxsize=64)
def _spline_weights(n: int, span: float, controls: int, device: torch.device) -> Tensor:
    """(n, controls): the four cubic B-spline weights of each pixel centre."""
    position = (torch.arange(n, dtype=torch.float64) + 0.5) / span
    first = position.floor().long()
    t = position - first
    basis = torch.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=1
    ) / 6  # fmt: skip
    weights = torch.zeros(n, controls, dtype=torch.float64)
    weights.scatter_(1, first[:, None] + torch.arange(4), basis)
    return weights.float().to(device)


def _change_contrast(image: Tensor, rows: Tensor, exponent: Tensor, gain: Tensor | None) -> Tensor:
    """(x - low) / range, to the power `exponent`, times `gain` (K,*S) if any, scaled back; per sample and channel.

    Working from the minimum makes the gain act on non-negative intensities, as a receive coil does, whatever
    the normalisation of the image.
    """
    x = image[rows]
    axes = tuple(range(2, x.ndim))
    low = x.amin(axes, keepdim=True)
    extent = (x.amax(axes, keepdim=True) - low).clamp_min_(torch.finfo(x.dtype).tiny)
    y = ((x - low) / extent).pow_(_column(exponent, x.ndim - 1))
    y = y if gain is None else y.mul_(gain.unsqueeze(1))
    return image.index_copy(0, rows, y.mul_(extent).add_(low))


def _add_noise(image: Tensor, rows: Tensor, strength: Tensor, seed: int) -> Tensor:
    """Gaussian noise of `strength` (K,) standard deviations of each sample and channel."""
    x = image[rows]
    source = torch.Generator(image.device).manual_seed(seed)
    noise = torch.randn(x.shape, generator=source, device=image.device, dtype=image.dtype)
    centred = x - x.mean(tuple(range(2, x.ndim)), keepdim=True)
    deviation = centred.square_().mean(tuple(range(2, x.ndim)), keepdim=True).sqrt_()
    return image.index_copy(0, rows, x + noise * deviation * _column(strength, x.ndim - 1))
