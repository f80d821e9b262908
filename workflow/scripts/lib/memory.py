"""Whether a child process died for want of memory: the kernel only sends SIGKILL, some schedulers to all at once."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

import psutil

SECONDS = 1.0  # between two looks
MIB = 2**20


class MemoryWatch:
    """Look after the memory of a child process while the block runs; `complaint` then says that it was too little.

    - The kernel's count of processes killed for want of memory has risen when the child died of SIGKILL.
    - Inside a Slurm job with a limit `mem_mb`: the job's processes (resident memory, as Slurm adds them up) passed it.
      The child is killed then, before Slurm kills all, this process included, and nobody is left to note why.
    """

    def __init__(self, child: subprocess.Popen, mem_mb: int | None):
        self.child, self.complaint = child, ""
        self.mem_mb = mem_mb if "SLURM_JOB_ID" in os.environ else None
        self._top = psutil.Process(_top_of_job()) if self.mem_mb else None
        self._kills = deque([_kernel_kills()], maxlen=10)  # counts of the last looks: a large process dies slowly
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if not self.complaint and self.child.returncode == -9 and _kernel_kills() > self._kills[0]:
            self.complaint = "the system killed the process for want of memory"

    def _look(self) -> None:
        while not self._over.wait(SECONDS):
            if self.mem_mb and (used := self._used_mb()) > self.mem_mb:
                self.complaint = (
                    f"the job used {used:.0f} MB, more than the {self.mem_mb} MB (mem_mb) that it asked for"
                )
                self.child.kill()
                return
            self._kills.append(_kernel_kills())

    def _used_mb(self) -> float:
        total = 0
        with suppress(psutil.NoSuchProcess):
            for process in (self._top, *self._top.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
        return total / MIB


def _top_of_job() -> int:
    """The first process of this Slurm step, as slurmstepd started it and as Slurm adds up from; else this process."""
    process = psutil.Process()
    for parent in process.parents():
        if parent.name().startswith("slurmstepd"):
            return process.pid
        process = parent
    return os.getpid()


def _kernel_kills() -> int:
    """Processes that the kernel has killed for want of memory since it started, on this machine or in its cgroups."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
