"""Supervised stages of a cell: every ending, good or bad, becomes a record; nothing is lost to a crash or a kill.

A stage (train, predict, evaluate) runs as a child process. It ends in one of three ways:

- a result, `ok` or `failed` for a scientific reason (`diverged`, `bad-input`): the record is written and the job
  succeeds, so that everything downstream goes on;
- an accident (`out-of-memory`, `error`): the attempt is noted and the job fails, so that Snakemake retries; the last
  attempt allowed writes a `failed` record and succeeds;
- an interruption: the attempt is noted and the job fails; however often, this never becomes a final failure, because
  it says nothing about the method. `timeout`: a signal asked the supervisor to stop (time limit, preemption, Ctrl-C, a
  closed terminal). `killed`: kill -9 of the child, or of the supervisor itself. `disk-full`.

Notes of attempts lie in `results/attempts`, outside the declared outputs, which Snakemake deletes when a job fails.
A stage that starts deletes the records of the stages after it: should it fail, nothing of an older recipe remains
that could pass for a result.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from lib.cells import STAGES, method_of
from lib.child import DISK_FULL
from lib.devices import one_gpu
from lib.files import read_json, remove_leftovers, write_json
from lib.memory import MemoryWatch, slurm_ended_for_memory
from lib.provenance import hardware, value_hash, versions

SCIENTIFIC = ("diverged", "bad-input")
INTERRUPTED = ("timeout", "killed", "disk-full")
INTERRUPTIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
SCRIPTS = Path(__file__).resolve().parents[1]
TERMINAL_SECONDS = 10  # between two lines of one stage on the terminal


def supervise(
    stage: str,
    target: str,
    job: dict,
    *,
    record: str | Path,
    log: str | Path,
    attempts: int,
    upstream: str | Path | None = None,
    mem_mb: int | None = None,
    gpus: int = 0,
) -> dict:
    """Run `target` ("module:function", called with `job`) in a child process and write the stage's status record.

    `record` is `results/cells/<cell>/<stage>.json`. `attempts` is how many accidents of one job in a row become a final
    failure. With `upstream`, the record of the stage before: where that failed, its record is passed on and nothing
    runs. Inside a Slurm job, `mem_mb` is what the job may use. With `gpus`, the child sees one GPU of the machine, the
    least taken. Returns the record; exits with a non-zero status after an accident or an interruption.
    """
    record, log = Path(record), Path(log)
    before = read_json(upstream) if upstream else {"state": "ok"}
    if before["state"] != "ok":
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"Not run: {before['stage']} failed ({before['reason']}: {before['message']})\n")
        write_json(record, before)
        return before

    notes = Path("results/attempts") / record.parent.relative_to("results/cells")
    notes.mkdir(parents=True, exist_ok=True)
    with _alone(notes / f"{stage}.lock", log) as lock, _requests_to_stop() as stop:
        identity = value_hash({"target": target, "job": job})
        done = read_json(record) if record.exists() else {}
        if done.get("identity") == identity and (done["state"] == "failed" or Path(job["output"]).exists()):
            return done  # a process that outlived its controller did it while this one waited
        for folder in (record.parent, notes):
            remove_leftovers(folder)
        for later in STAGES[STAGES.index(stage) + 1 :]:
            record.with_name(f"{later}.json").unlink(missing_ok=True)
        past = _notes(notes, stage)
        number = 1 + max(past, default=0)
        note = notes / f"{stage}-{number}.json"
        if past:
            _ask_slurm(notes / f"{stage}-{number - 1}.json", past[number - 1])
        since = _since_last_ending(past.values(), identity)
        if since and _decides(since, attempts):  # as is known only now
            entry = since[-1] | {"recorded": True}
            write_json(notes / f"{stage}-{number - 1}.json", entry)
            write_json(record, entry)
            return entry
        entry = {
            "stage": stage,
            "state": "failed",
            "reason": "killed",
            "message": "the whole job was killed, or its machine lost, before it could say why",
            "log": str(log),
            "attempts": 1 + len(since),
            "identity": identity,
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "started": _now(),
            "hardware": hardware(),
            "versions": versions(),
        }
        write_json(note, entry)
        started = time.monotonic()
        with one_gpu(gpus) as (gpu, held):
            entry |= _run(stage, target, job, notes, log, stop, mem_mb, gpu, [lock, *held])
        ended = _decides([*since, entry], attempts)
        entry |= {"ended": _now(), "wall_seconds": round(time.monotonic() - started, 3), "recorded": ended}
        write_json(note, entry)
        if ended:
            write_json(record, entry)
            if stage == STAGES[-1]:
                _forget_kept_training(record.parent / "training")
            return entry
    _say(f"{_title(record)}: {stage} failed ({entry['reason']}): {entry['message']}  (log: {log})")
    sys.exit(143 if entry["reason"] == "timeout" else 1)


def _notes(folder: Path, stage: str) -> dict[int, dict]:
    """Notes of a stage's attempts by their number, oldest first."""
    numbers = sorted(int(note.stem.rpartition("-")[2]) for note in folder.glob(f"{stage}-*.json"))
    return {number: read_json(folder / f"{stage}-{number}.json") for number in numbers}


def _since_last_ending(entries: Iterable[dict], identity: str) -> list[dict]:
    """The attempts at this very job since an attempt was recorded as its ending, or was at another job."""
    since: list[dict] = []
    for entry in entries:
        ended = entry["state"] == "ok" or entry.get("recorded") or entry["identity"] != identity
        since = [] if ended else [*since, entry]
    return since


def _decides(tries: list[dict], attempts: int) -> bool:
    """Whether the last of these attempts at a job is its ending."""
    last = tries[-1]
    accidents = sum(entry["reason"] not in INTERRUPTED for entry in tries)
    ended = last["state"] == "ok" or last["reason"] in SCIENTIFIC
    return ended or (accidents >= attempts and last["reason"] not in INTERRUPTED)


def _ask_slurm(note: Path, entry: dict) -> None:
    """A killed attempt may have had too little memory: Slurm can kill all of a job before anybody notes it."""
    if entry["reason"] == "killed" and (message := slurm_ended_for_memory(entry.get("slurm_job"))):
        entry |= {"reason": "out-of-memory", "message": message}
        write_json(note, entry)


def _run(
    stage: str, target: str, job: dict, notes: Path, log: Path, stop: _Stop, mem_mb: int | None, gpu: dict, held: list
) -> dict:
    """One attempt; returns the fields of the record that it decides."""
    job_file, outcome = notes / f"{stage}.job.json", notes / f"{stage}.outcome.json"
    write_json(job_file, job)
    outcome.unlink(missing_ok=True)
    command = [sys.executable, "-u", "-m", "lib.child", target, str(job_file), str(outcome)]
    threads = str(job.get("threads", 1))
    environment = os.environ | gpu | {
        "PYTHONPATH": str(SCRIPTS),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic cuBLAS; must be set before CUDA starts
    }  # fmt: skip
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1) as file:
        file.write(f"# {_now()}{_slurm_job()}  PYTHONPATH={SCRIPTS} {' '.join(command)}\n")
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, pass_fds=held,  # cell and GPU stay taken until the child has ended, too
        )  # fmt: skip
        stop.forward_to(child)
        with MemoryWatch(child, mem_mb) as memory:
            _tee(child, file, _title(notes))
            code = child.wait()

    if outcome.exists():
        said = read_json(outcome)
        if said["ok"]:
            return {"state": "ok", "reason": "", "message": "", "result": said["result"]}
        return {"state": "failed", "reason": said["reason"], "message": said["message"]}
    return {"state": "failed"} | dict(zip(("reason", "message"), _ending(code, stop, memory), strict=True))


def _ending(code: int, stop: _Stop, memory: MemoryWatch) -> tuple[str, str]:
    """Reason and message of a child that left no outcome."""
    if memory.complaint:
        return "out-of-memory", memory.complaint
    if stop.caught or code in (143, -signal.SIGTERM):
        what = signal.Signals(stop.caught[0]).name if stop.caught else "SIGTERM"
        return "timeout", f"stopped by {what}; the next run resumes"
    if code == DISK_FULL:
        return "disk-full", "no space left on the disk; make room and run again"
    if code == -signal.SIGKILL:
        return "killed", "the process was killed by SIGKILL; the next run resumes"
    if code < 0:
        return "error", f"the process was killed by {signal.Signals(-code).name}"
    return "error", f"the process exited with {code} and no outcome"


def _slurm_job() -> str:
    """Which Slurm job this is: its number is the name of Slurm's own log."""
    number, node = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURMD_NODENAME", "?")
    return f"  Slurm job {number} on {node}" if number else ""


def _tee(child: subprocess.Popen, file, title: str) -> None:
    shown = time.monotonic()
    for line in child.stdout:
        with suppress(OSError):  # a full disk is the child's to report; its pipe must not clog
            file.write(line)
        if line.startswith("iteration") and time.monotonic() - shown >= TERMINAL_SECONDS:
            shown = time.monotonic()
            _say(f"{title}: {line.rstrip()}")


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(text, file=sys.stderr, flush=True)


class _Stop:
    """Signals that asked for an end, passed on to the child as SIGTERM."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.child: subprocess.Popen | None = None

    def __call__(self, number: int, _frame: object) -> None:
        self.caught.append(number)
        if self.child:
            self.child.send_signal(signal.SIGTERM)

    def forward_to(self, child: subprocess.Popen) -> None:
        self.child = child
        if self.caught:
            child.send_signal(signal.SIGTERM)


@contextmanager
def _requests_to_stop() -> Iterator[_Stop]:
    """Note signals instead of dying of them; what is ignored (SIGHUP under nohup) stays ignored."""
    stop = _Stop()
    wanted = [s for s in INTERRUPTIONS if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, stop) for s in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alone(lock: Path, log: Path) -> Iterator[int]:
    """Hold the stage's lock, a file descriptor; wait for a process that outlived its controller."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{log}: another process still works on this cell; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _is_locked(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _title(path: Path) -> str:
    """A short name of the cell whose folder, or a file in it, `path` is."""
    match = re.search(r"([^/]+)/([^/]+)/fold(\d+)/seed(\d+)", str(path))
    if not match:
        return str(path)
    architecture, loss, fold, seed = match.groups()
    return f"{method_of(architecture, loss)} fold {fold} seed {seed}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def cell_state(folder: str | Path, stages: Iterable[str] = STAGES) -> dict:
    """What is known of the cell in `results/cells/…` with these stages: its last record, or else `missing` and why.

    Returns at least state (ok, failed, missing), stage, reason, message, log, attempts. Of a missing cell these are
    those of the first stage without a record: it is running, or its last attempt failed, or there is none.
    """
    folder = Path(folder)
    notes = Path("results/attempts") / folder.relative_to("results/cells")
    for stage in stages:
        record = folder / f"{stage}.json"
        if not record.exists():
            nothing = {"state": "missing", "stage": stage, "reason": "", "log": "", "attempts": 0}
            nothing |= {"message": "no record: not run, or lost with its machine"}
            *_, last = nothing, *_notes(notes, stage).values()
            if _is_locked(notes / f"{stage}.lock"):
                return last | {"state": "missing", "reason": "running", "message": "still running"}
            return nothing if last["state"] == "ok" else last | {"state": "missing"}
        entry = read_json(record)
        if entry["state"] == "failed":
            break
    return entry


def forget_failure(folder: str | Path) -> None:
    """Delete a failed cell's records and notes of attempts, so that the next run tries it afresh."""
    folder = Path(folder)
    for stage in STAGES:
        record = folder / f"{stage}.json"
        if record.exists() and read_json(record)["state"] == "failed":
            record.unlink()
    notes = Path("results/attempts") / folder.relative_to("results/cells")
    for note in notes.glob("[a-z]*-*.json"):
        note.unlink()


def _forget_kept_training(training: Path) -> None:
    """Delete what the trainer kept of its results, once the cell cannot be taken for one to be trained."""
    if (cost := training / "cost.json").exists():
        shutil.rmtree(Path("results/checkpoints") / read_json(cost)["identity"], ignore_errors=True)
