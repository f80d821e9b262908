"""Supervised stages of a cell: every ending, good or bad, becomes a record; nothing is lost to a crash or a kill.

A stage (train, predict, evaluate) runs as a child process. It ends in one of three ways:

- a result, `ok` or `failed` for a scientific reason (`diverged`, `bad-input`): the record is written and the job
  succeeds, so that everything downstream goes on;
- an accident (`out-of-memory`, `error`, `killed`): the attempt is noted and the job fails, so that Snakemake retries;
  the last attempt allowed writes a `failed` record and succeeds;
- an interruption (SIGTERM or SIGINT reached the supervisor: time limit, preemption, Ctrl-C): the attempt is noted as
  `timeout` and the job fails; this never becomes a final failure.

Notes of attempts lie in `results/attempts`, outside the declared outputs, which Snakemake deletes when a job fails.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lib.files import read_json, write_json
from lib.provenance import hardware, value_hash, versions

SCIENTIFIC = ("diverged", "bad-input")
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
) -> dict:
    """Run `target` ("module:function", called with `job`) in a child process and write the stage's status record.

    `record` is `results/cells/<cell>/<stage>.json`. `attempts` counts how many accidents in a row become a final
    failure. With `upstream`, the record of the stage before: where that failed, its record is passed on and nothing
    runs. Returns the record; exits with a non-zero status after an accident or an interruption.
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
    with _alone(notes / f"{stage}.lock", log):
        identity = value_hash({"target": target, "job": job})
        if record.exists() and (done := read_json(record)).get("identity") == identity:
            return done  # a process that outlived its controller did it while this one waited
        past = [read_json(path) for path in sorted(notes.glob(f"{stage}-*.json"), key=_number)]
        number = 1 + len(past)
        note = notes / f"{stage}-{number}.json"
        entry = {
            "stage": stage,
            "state": "failed",
            "reason": "killed",
            "message": "the supervisor was killed before it could say why",
            "log": str(log),
            "attempts": number,
            "identity": identity,
            "started": _now(),
            "hardware": hardware(),
            "versions": versions(),
        }
        write_json(note, entry)
        started = time.monotonic()
        entry |= _run(stage, target, job, notes, log)
        entry |= {"ended": _now(), "wall_seconds": round(time.monotonic() - started, 3)}
        write_json(note, entry)

        if entry["state"] == "ok" or entry["reason"] in SCIENTIFIC or _accidents([*past, entry]) >= attempts:
            write_json(record, entry)
            return entry
    print(
        f"{_title(record)}: {stage} failed ({entry['reason']}): {entry['message']}  (log: {log})",
        file=sys.stderr,
    )
    sys.exit(143 if entry["reason"] == "timeout" else 1)


def _number(note: Path) -> int:
    return int(note.stem.rpartition("-")[2])


def _accidents(entries: list[dict]) -> int:
    """How often the newest entry's job has met an accident since its last success, the newest included."""
    if entries[-1]["reason"] == "timeout":
        return 0
    count = 0
    for entry in reversed(entries):
        if entry["state"] == "ok" or entry["identity"] != entries[-1]["identity"]:
            break
        count += entry["reason"] not in ("timeout", *SCIENTIFIC)
    return count


def _run(stage: str, target: str, job: dict, notes: Path, log: Path) -> dict:
    """One attempt; returns the fields of the record that it decides."""
    job_file, outcome = notes / f"{stage}.job.json", notes / f"{stage}.outcome.json"
    write_json(job_file, job)
    outcome.unlink(missing_ok=True)
    command = [sys.executable, "-u", "-m", "lib.child", target, str(job_file), str(outcome)]
    threads = str(job.get("threads", 1))
    environment = os.environ | {
        "PYTHONPATH": str(SCRIPTS),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic cuBLAS; must be set before CUDA starts
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    interrupted: list[int] = []
    with log.open("a", buffering=1) as file:
        file.write(f"# {_now()}  PYTHONPATH={SCRIPTS} {' '.join(command)}\n")
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip

        def forward(number: int, _frame: object) -> None:
            interrupted.append(number)
            child.send_signal(signal.SIGTERM)

        previous = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            _tee(child, file, _title(notes))
            code = child.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    if outcome.exists():
        said = read_json(outcome)
        if said["ok"]:
            return {"state": "ok", "reason": "", "message": "", "result": said["result"]}
        return {"state": "failed", "reason": said["reason"], "message": said["message"]}
    if interrupted or code in (143, -signal.SIGTERM):
        what = signal.Signals(interrupted[0]).name if interrupted else "SIGTERM"
        return {"state": "failed", "reason": "timeout", "message": f"stopped by {what}; the next run resumes"}
    hint = " (often the system's answer to a lack of memory)" if code == -signal.SIGKILL else ""
    ending = f"killed by {signal.Signals(-code).name}{hint}" if code < 0 else f"exited with {code} and no outcome"
    return {
        "state": "failed",
        "reason": "killed",
        "message": f"the process was {ending}" if code < 0 else ending,
    }


def _tee(child: subprocess.Popen, file, title: str) -> None:
    shown = time.monotonic()
    for line in child.stdout:
        file.write(line)
        if line.startswith("iteration") and time.monotonic() - shown >= TERMINAL_SECONDS:
            shown = time.monotonic()
            print(f"{title}: {line.rstrip()}", file=sys.stderr, flush=True)


@contextmanager
def _alone(lock: Path, log: Path) -> Iterator[None]:
    """Hold the stage's lock; wait for a process that outlived its controller."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{log}: another process still works on this cell; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _title(path: Path) -> str:
    """A short name of the cell whose folder, or a file in it, `path` is."""
    match = re.search(r"([^/]+)/([^/]+)/fold(\d+)/seed(\d+)", str(path))
    return "{}+{} fold {} seed {}".format(*match.groups()) if match else str(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def cell_state(folder: str | Path) -> dict:
    """What is known of the cell in `results/cells/…`: its last record, or its last noted attempt, or `missing`.

    Returns at least state (ok, failed, missing), stage, reason, message, log, attempts.
    """
    folder = Path(folder)
    for stage in ("evaluate", "predict", "train"):
        record = folder / f"{stage}.json"
        if record.exists():
            entry = read_json(record)
            if entry["state"] == "failed" or stage == "evaluate":
                return entry
            break
    notes = Path("results/attempts") / folder.relative_to("results/cells")
    past = [read_json(note) for note in notes.glob("*-*.json")]
    unsuccessful = [entry for entry in past if entry["state"] != "ok"]
    if unsuccessful:
        return max(unsuccessful, key=lambda entry: entry["started"]) | {"state": "missing"}
    nothing = {"state": "missing", "stage": "", "reason": "", "log": "", "attempts": 0}
    return nothing | {"message": "no record: not run, or lost with its machine"}


def forget_failure(folder: str | Path) -> None:
    """Delete a failed cell's records and notes of attempts, so that the next run tries it afresh."""
    folder = Path(folder)
    for stage in ("train", "predict", "evaluate"):
        record = folder / f"{stage}.json"
        if record.exists() and read_json(record)["state"] == "failed":
            record.unlink()
    notes = Path("results/attempts") / folder.relative_to("results/cells")
    for note in notes.glob("*-*.json"):
        note.unlink()
