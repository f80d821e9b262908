from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

import lib.memory
from lib.files import read_json
from lib.memory import MemoryWatch, slurm_ended_for_memory
from lib.status import cell_state

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
    with MemoryWatch([greedy], 200) as memory:
        assert greedy.wait(10) == -signal.SIGKILL
    assert memory.complaint(greedy).startswith(
        "the job used 3"
    ) and "more than the 200 MB (mem_mb)" in memory.complaint(greedy)


@pytest.mark.parametrize(("mem_mb", "job"), [(500, "7"), (None, "7"), (200, None)])
def test_within_its_memory_or_without_a_scheduler_nothing_is_stopped(greedy, monkeypatch, mem_mb, job):
    monkeypatch.setenv("SLURM_JOB_ID", job) if job else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(lib.memory, "_top_of_job", lambda: greedy.pid)
    with MemoryWatch([greedy], mem_mb) as memory:
        with pytest.raises(subprocess.TimeoutExpired):
            greedy.wait(0.5)
        greedy.terminate()
        greedy.wait()
    assert not memory.complaint(greedy)


@pytest.mark.parametrize("by_the_kernel", [True, False])
def test_the_kernel_counts_those_that_it_kills_for_memory(greedy, monkeypatch, by_the_kernel):
    """A kill -9 by somebody looks the same but for the count in /proc/vmstat."""
    count = [4]
    monkeypatch.setattr(lib.memory, "_kernel_kills", lambda: count[0])
    with MemoryWatch([greedy], None) as memory:
        greedy.kill()
        count[0] += by_the_kernel
        greedy.wait()
    assert memory.complaint(greedy) == ("the system killed the process for want of memory" if by_the_kernel else "")


SLURM_LOG = """iteration 7/9 loss 0.1, out of memory is what nobody said
{words}
srun: error: node7: task 0: Killed
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that answer as Slurm's do; returns a function that says what of job 12."""

    def says(state: str, words: str = "", sacct: str = "exit 1") -> None:
        log = tmp_path / "of a job.log"
        log.write_text(SLURM_LOG.format(words=words))
        known = f"echo 'JobId=12\n   JobState={state} Reason=None\n   StdOut={log}\n   Power='"
        for name, body in {"scontrol": f'[ "$3" = 12 ] && {known if state else "exit 1"}', "sacct": sacct}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return says


@pytest.mark.parametrize(
    ("state", "words", "sacct", "answer"),
    [
        ("FAILED", "slurmstepd-n7: error: StepId=12.0 exceeded memory limit (9 > 3), being killed", "exit 1",
         "Slurm killed job 12: slurmstepd-n7: error: StepId=12.0 exceeded memory limit"),
        ("FAILED", "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks", "exit 1",
         "Slurm killed job 12: slurmstepd: error: Detected 1 oom_kill event"),
        ("OUT_OF_MEMORY", "", "exit 1", "Slurm job 12 ended as OUT_OF_MEMORY"),
        ("FAILED", "", "echo FAILED; echo OUT_OF_MEMORY", "Slurm job 12 ended as OUT_OF_MEMORY"),
        ("", "", "echo OUT_OF_MEMORY", "Slurm job 12 ended as OUT_OF_MEMORY"),
        ("FAILED", "slurmstepd: error: *** JOB 12 ON n7 CANCELLED ***", "exit 1", ""),
        ("", "slurmstepd: error: exceeded memory limit", "exit 1", ""),
    ],
)  # fmt: skip
def test_slurm_tells_later_of_a_job_that_it_killed_for_memory(slurm, state, words, sacct, answer):
    slurm(state, words, sacct)
    assert slurm_ended_for_memory("12").startswith(answer) and bool(slurm_ended_for_memory("12")) == bool(answer)
    assert slurm_ended_for_memory(None) == ""


def test_without_slurm_nobody_tells(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert slurm_ended_for_memory("12") == ""


def test_a_job_that_slurm_killed_for_memory_is_an_accident_and_the_last_one_its_ending(slurm, in_tmp, monkeypatch):
    """Attempts whose supervisor could note nothing, as the kill of a whole job leaves them."""
    (in_tmp / "target.py").write_text("import os, signal\ndef dies(job): os.kill(os.getppid(), signal.SIGKILL)\n")
    (in_tmp / "attempt.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow/scripts')!r})\n"
        "import lib.status; lib.status.SCRIPTS = f'{sys.path[0]}:.'\n"
        "lib.status.supervise('train', 'target:dies', {}, record='results/cells/a/train.json', log='log', attempts=2)\n"
    )
    monkeypatch.setenv("SLURM_JOB_ID", "12")

    def attempt() -> int:
        return subprocess.run([sys.executable, "attempt.py"]).returncode

    slurm("CANCELLED")
    assert [attempt(), attempt(), attempt()] == [-9] * 3
    assert [read_json(note)["reason"] for note in in_tmp.rglob("train-*.json")] == ["killed"] * 3
    slurm("OUT_OF_MEMORY")
    assert attempt() == -9 and not (in_tmp / "results/cells/a/train.json").exists()
    assert attempt() == 0, "the second accident decides, and nothing runs"
    record = cell_state("results/cells/a")
    assert (record["state"], record["reason"], record["attempts"]) == ("failed", "out-of-memory", 4)
    assert "job 12" in record["message"] and len(list(in_tmp.rglob("train-*.json"))) == 4
