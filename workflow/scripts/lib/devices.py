"""One GPU for each job of a machine that has several."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path


@contextmanager
def one_gpu(gpus: int) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Take the GPU of this machine that the fewest jobs have taken; yields environment variables and file descriptors.

    A process that gets both sees that GPU alone, and it counts as taken until the process has ended. Nothing is taken
    without GPUs, when the job wants none (`gpus` 0), and inside a Slurm job, because Slurm has chosen already.
    """
    devices = visible_devices() if gpus and "SLURM_JOB_ID" not in os.environ else []
    if not devices:
        yield {}, []
        return
    folder = Path(tempfile.gettempdir()) / f"segcross-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for place in count():  # nobody on a GPU, then one job on each, then two, ...
        for device in devices:
            with (folder / f"gpu-{device.replace('/', '_')}.{place}.lock").open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield {"CUDA_VISIBLE_DEVICES": device}, [file.fileno()]
                return


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    return []
