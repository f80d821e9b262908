from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import lib.memory
from lib.memory import MemoryWatch

GREEDY = "import time; x = bytearray(300 * 2**20); print(flush=True); time.sleep(60)"


@pytest.fixture
def greedy():
    child = subprocess.Popen([sys.executable, "-c", GREEDY], stdout=subprocess.PIPE)
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(lib.memory, "SECONDS", 0.05)


def test_a_job_that_passes_its_memory_is_stopped_and_says_by_how_much(greedy, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(lib.memory, "_top_of_job", lambda: greedy.pid)
    with MemoryWatch(greedy, 200) as memory:
        assert greedy.wait(10) == -signal.SIGKILL
    assert memory.complaint.startswith("the job used 3") and "more than the 200 MB (mem_mb)" in memory.complaint


@pytest.mark.parametrize(("mem_mb", "job"), [(500, "7"), (None, "7"), (200, None)])
def test_within_its_memory_or_without_a_scheduler_nothing_is_stopped(greedy, monkeypatch, mem_mb, job):
    monkeypatch.setenv("SLURM_JOB_ID", job) if job else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(lib.memory, "_top_of_job", lambda: greedy.pid)
    with MemoryWatch(greedy, mem_mb) as memory:
        with pytest.raises(subprocess.TimeoutExpired):
            greedy.wait(0.5)
        greedy.terminate()
        greedy.wait()
    assert not memory.complaint


@pytest.mark.parametrize("by_the_kernel", [True, False])
def test_the_kernel_counts_those_that_it_kills_for_memory(greedy, monkeypatch, by_the_kernel):
    """A kill -9 by somebody looks the same but for the count in /proc/vmstat."""
    count = [4]
    monkeypatch.setattr(lib.memory, "_kernel_kills", lambda: count[0])
    with MemoryWatch(greedy, None) as memory:
        greedy.kill()
        count[0] += by_the_kernel
        greedy.wait()
    assert memory.complaint == ("the system killed the process for want of memory" if by_the_kernel else "")
