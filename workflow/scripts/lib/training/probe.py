"""A few steps of a real training, timed: what a forecast of its cost rests on."""

from __future__ import annotations

import time

from lib.inference.device import start_torch
from lib.training.cost import device_name, peak_memory_mb
from lib.training.timing import seconds_per_case, timed
from lib.training.trainer import set_up, unsettled

SECONDS, STEPS = 4.0, 20  # a probe ends with the first of the two, after at least LEAST steps
LEAST = 2


def probe_training(job: dict) -> dict:
    """Time steps and predictions of the training that `job` describes (see `train_cell`); writes nothing.

    Returns seconds per step (list, without the first, which pays for set-up), seconds per validation case (None
    without one), parameters, peak_memory_mb, kwh_per_second (None without NVML), device.
    """
    protocol = job["protocol"]
    device = start_torch(job["threads"], protocol["precision"], len(protocol["patch"]))
    training = set_up(unsettled(job), device)
    timed(training.step, device)
    steps, started = [], time.monotonic()
    while len(steps) < LEAST or (len(steps) < STEPS and time.monotonic() - started < SECONDS):
        steps.append(timed(training.step, device))
    drawn, stepped = training.energy_kwh(), time.monotonic() - started
    return {
        "steps": steps,
        "seconds_per_case": seconds_per_case(training),
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "peak_memory_mb": peak_memory_mb(device),
        "kwh_per_second": None if drawn is None else drawn / stepped,
        "device": device_name(device),
    }
