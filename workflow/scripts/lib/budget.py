"""The budget of a protocol, given as iterations, epochs or minutes, in iterations. Imports no torch."""

from __future__ import annotations

import math

BUDGETS = ("iterations", "epochs", "minutes")


def planned_iterations(protocol: dict, meta: dict, cases: list[str]) -> int | None:
    """Iterations of a training on `cases` of a store's metadata; None where its first steps have to tell.

    An epoch is as many patches as `cases` have images: slices where networks see slices, else volumes.
    """
    if "iterations" in protocol:
        return protocol["iterations"]
    if "minutes" in protocol:
        return None
    images = sum(meta["cases"][case]["shape"][0] if meta["spatial_dims"] == 2 else 1 for case in cases)
    return math.ceil(protocol["epochs"] * images / protocol["batch"])


def iterations_within(protocol: dict, step: float, validation: float) -> int:
    """How many iterations of `step` seconds fit into the protocol's minutes, at least one.

    `validation`: seconds of one, which follows every `validate_every` iterations and the last one.
    """
    every = protocol["validate_every"]
    period = every * step + validation
    periods, rest = divmod(60 * protocol["minutes"], period)
    return max(1, int(periods) * every + max(0, int((rest - validation) / step)))
