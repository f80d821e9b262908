"""How torch is set up for training and inference alike."""

from __future__ import annotations

import os

import torch

from lib.errors import BadInput


def start_torch(threads: int, precision: str, dims: int) -> torch.device:
    """Make torch deterministic, with IEEE float32 (no TF32); the device is CUDA where there is one.

    Raises BadInput for a precision in which networks of `dims` dimensions do not work on the device.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # must be set before CUDA starts
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time and hides nothing here
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and precision == "float16":
        raise BadInput("protocol precision 'float16' needs a GPU; choose 'float32' or 'bfloat16' on a CPU")
    if device.type == "cpu" and precision == "bfloat16" and dims == 3:
        # torch 2.13: weight gradients of 3x3x3 convolutions hold leftover memory where an axis has 2 voxels.
        raise BadInput("protocol precision 'bfloat16' trains volumes wrongly on a CPU; choose 'float32'")
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision as the protocol's `precision` says; does nothing for float32."""
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "float32")
