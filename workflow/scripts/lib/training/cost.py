"""What a training costs: FLOPs, memory, energy, and the device that they were measured on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib.provenance import hardware, peak_resident_mb

MIB = 2**20


def device_name(device: torch.device) -> str:
    """The model name of the GPU, or of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(hardware()["cpu"])


def fingerprint(device: torch.device) -> dict[str, str]:
    """What must be equal for two halves of a training to have the bits of an uninterrupted one."""
    return {
        "device": device_name(device),
        "torch": str(torch.__version__),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def forward_flops(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    """FLOPs of the convolutions and matrix products of one forward pass; a multiply-add counts as 2."""
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(shape, device=device))
    model.train(training)
    return counter.get_total_flops()


def peak_memory_mb(device: torch.device) -> float:
    """MiB: the largest sum of tensors on the GPU, or the process's largest resident set on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    return peak_resident_mb()


def energy_meter(device: torch.device) -> Callable[[], float | None]:
    """A function that returns the kWh drawn by the whole GPU board since this call; None without NVML."""
    if device.type != "cuda":
        return lambda: None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        start = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - start) / 3.6e9  # mJ
    except Exception as error:  # no package, no driver library, a GPU without the counter (MIG): energy stays unknown
        print(f"energy is not recorded: {error}", flush=True)
        return lambda: None
