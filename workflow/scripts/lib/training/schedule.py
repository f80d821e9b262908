"""Learning-rate schedules as functions of the iteration, so that a checkpoint needs no state of theirs."""

from __future__ import annotations

import math

from lib.errors import BadInput


def learning_rate(protocol: dict, iteration: int) -> float:
    """Rate of the step that follows `iteration` finished ones (0 … iterations - 1).

    Linear warm-up over `warmup` steps up to `lr`, then over the remaining steps, with x from 0 to 1:
    polynomial lr (1 - x)^0.9 (as DeepLab and nnU-Net), cosine lr (1 + cos pi x) / 2 (Loshchilov & Hutter
    2017), constant, or halving: lr / 2^k after k times `halve_every` steps.
    """
    peak, warmup = protocol["lr"], protocol["warmup"]
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    x = (iteration - warmup) / max(protocol["iterations"] - warmup, 1)
    if protocol["schedule"] == "halving":
        if "halve_every" not in protocol:
            raise BadInput("protocol: schedule: halving needs halve_every, the iterations after which the rate halves.")
        return peak * 0.5 ** ((iteration - warmup) // protocol["halve_every"])
    factors = {"polynomial": (1 - x) ** 0.9, "cosine": (1 + math.cos(math.pi * x)) / 2, "constant": 1.0}
    return peak * factors[protocol["schedule"]]
