"""Whether a process died for want of memory: the kernel only sends SIGKILL, some schedulers to a whole job at once."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

import psutil

SECONDS = 1.0  # between two looks at which processes there are
LOOKS = 20  # at their memory meanwhile: half a gigabyte is soon taken, and Slurm, which also polls, must not be first
MIB = 2**20
# Slurm's words in the log of a job: it polled its memory, or the kernel killed in the job's cgroup.
WORDS = re.compile(r"^(slurmstepd|srun)\b.*(exceeded memory limit|oom.kill event|out of memory).*", re.I | re.M)


class MemoryWatch:
    """Look after the memory of child processes while the block runs; `complaint` says of which it was too little.

    - The kernel's count of processes killed for want of memory has risen when the child died of SIGKILL.
    - Inside a Slurm job with a limit `mem_mb`: the job's processes (resident memory, as Slurm adds them up) passed it.
      The largest child is killed then, before Slurm kills all, this process included, and nobody is left to note why.
      Where Slurm was first after all, `slurm_ended_for_memory` tells the next attempt.
    """

    def __init__(self, children: list[subprocess.Popen], mem_mb: int | None):
        self.children, self._complaints = children, {}
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

    def complaint(self, child: subprocess.Popen) -> str:
        """Why this child, which has ended, had too little memory; empty where it had enough."""
        if child.pid not in self._complaints and child.returncode == -9 and _kernel_kills() > self._kills[0]:
            return "the system killed the process for want of memory"
        return self._complaints.get(child.pid, "")

    def _look(self) -> None:
        while not self._over.is_set():
            self._kills.append(_kernel_kills())
            processes = self._processes()
            for _ in range(LOOKS):
                if self._over.wait(SECONDS / LOOKS):
                    return
                if self.mem_mb and (used := _used_mb(processes)) > self.mem_mb:
                    self._stop_largest(used)
                    break

    def _stop_largest(self, used: float) -> None:
        running = [child for child in self.children if child.poll() is None and child.pid not in self._complaints]
        if running:
            largest = max(running, key=lambda child: _used_mb(_family(child.pid)))
            self._complaints[largest.pid] = (
                f"the job used {used:.0f} MB, more than the {self.mem_mb} MB (mem_mb) that it asked for"
            )
            largest.kill()
            while largest.poll() is None and not self._over.wait(SECONDS / LOOKS):
                pass  # what it had is not free before it is gone

    def _processes(self) -> list[psutil.Process]:
        return _family(self._top.pid) if self._top else []


def slurm_ended_for_memory(job: str | None) -> str:
    """What Slurm says of its job of this number if that ended for want of memory.

    Empty where it ended otherwise, and where nobody can tell: without Slurm's commands, or when Slurm has forgotten it.
    """
    if not job:
        return ""
    known = _said("scontrol", "show", "job", job)
    if "OUT_OF_MEMORY" in known + _said("sacct", "--noheader", "--parsable2", "--format=State", "--jobs", job):
        return f"Slurm job {job} ended as OUT_OF_MEMORY"
    with suppress(OSError):
        log = re.search(r"^\s*StdOut=(.+)", known, re.M)
        if log and (words := WORDS.search(Path(log[1]).read_text(errors="replace"))):
            return f"Slurm killed job {job}: {words[0]}"
    return ""


def _said(*command: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    return ""


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _used_mb(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
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
