from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import ROOT

from lib.config import Cell
from lib.errors import BadInput
from lib.files import write_json
from lib.ledger import build_ledger, complaint, require_scores
from lib.status import Task, _CellStage, cell_state, forget_failure, supervise

CELL = Cell("hearts", "clean", "smoke", "unet", "ce", fold=0, seed=1)

ENDINGS = """
import os, signal, sys, time
from pathlib import Path
from lib.errors import BadInput, Diverged

def fine(job): print("iteration 1/1 loss 0.5"); return {"cases": 3}
def diverges(job): raise Diverged("loss is nan at iteration 7")
def bad(job): raise BadInput("a.nii.gz is truncated")
def crashes(job): raise KeyError("oops")
def out_of_memory(job): raise MemoryError("cannot allocate")
def torch_out_of_memory(job): raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
def cpu_allocator(job): raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte")
def killed(job): os.kill(os.getpid(), signal.SIGKILL)
def aborts(job): os.kill(os.getpid(), signal.SIGSEGV)
def full(job):
    try: raise OSError(28, "No space left on device")
    except OSError: raise RuntimeError("unexpected pos 704 vs 598")  # as torch.save ends
def leaves(job): os._exit(3)
def second_time(job):
    flag = Path("flag")
    if flag.exists(): return {}
    flag.touch(); raise OSError("node trouble")
def sleeps(job):
    Path("started").touch(); print(os.getpid(), file=open("pid", "w"), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def stage(in_tmp, monkeypatch):
    """Run one supervised stage whose target is a function of ENDINGS."""
    (in_tmp / "endings.py").write_text(ENDINGS)
    monkeypatch.setattr("lib.status.SCRIPTS", f"{ROOT / 'workflow/scripts'}{os.pathsep}{in_tmp}")

    def run(ending: str, name: str = "train", attempts: int = 1, **options) -> dict:
        return supervise(
            name,
            f"endings:{ending}",
            {"threads": 1},
            record=CELL.folder / f"{name}.json",
            log=f"results/logs/{name}.log",
            attempts=attempts,
            **options,
        )

    return run


def test_a_log_keeps_earlier_attempts_also_when_snakemake_deletes_it(stage):
    with pytest.raises(SystemExit):
        stage("killed")
    log = Path("results/logs/train.log")
    log.unlink()  # as Snakemake does before it starts a job again
    stage("fine")
    assert log.read_text().count("lib.child endings:") == 2


def test_success_is_recorded_with_its_result_and_log(stage):
    record = stage("fine")
    assert (record["state"], record["result"], record["attempts"]) == ("ok", {"cases": 3}, 1)
    assert json.loads((CELL.folder / "train.json").read_text()) == record
    log = Path("results/logs/train.log").read_text()
    assert "lib.child endings:fine" in log and "iteration 1/1" in log


@pytest.mark.parametrize(("ending", "reason"), [("diverges", "diverged"), ("bad", "bad-input")])
def test_a_scientific_failure_is_a_result_at_once(stage, ending, reason):
    record = stage(ending, attempts=3)
    assert (record["state"], record["reason"], record["attempts"]) == ("failed", reason, 1)
    assert cell_state(CELL.folder)["state"] == "failed"


@pytest.mark.parametrize(
    ("ending", "reason", "message"),
    [
        ("crashes", "error", "'oops'"),
        ("out_of_memory", "out-of-memory", "cannot allocate"),
        ("torch_out_of_memory", "out-of-memory", "CUDA out of memory"),
        ("cpu_allocator", "out-of-memory", "not enough memory"),
        ("aborts", "error", "SIGSEGV"),
        ("leaves", "error", "exited with 3 and no outcome"),
    ],
)
def test_an_accident_fails_the_job_until_the_last_attempt_records_it(stage, ending, reason, message):
    with pytest.raises(SystemExit) as stopped:
        stage(ending, attempts=2)
    assert stopped.value.code == 1
    assert not (CELL.folder / "train.json").exists()
    known = cell_state(CELL.folder)
    assert (known["state"], known["reason"]) == ("missing", reason) and message in known["message"]

    record = stage(ending, attempts=2)
    assert (record["state"], record["reason"], record["attempts"]) == ("failed", reason, 2)
    assert message in record["message"]


@pytest.mark.parametrize(
    ("ending", "reason", "message"), [("killed", "killed", "SIGKILL"), ("full", "disk-full", "make room")]
)
def test_what_says_nothing_of_the_method_is_never_a_failure(stage, ending, reason, message):
    for number in range(1, 5):
        with pytest.raises(SystemExit) as stopped:
            stage(ending, attempts=2)
        known = cell_state(CELL.folder)
        assert (stopped.value.code, known["state"], known["reason"]) == (1, "missing", reason)
        assert known["attempts"] == number and message in known["message"]


def test_only_accidents_count_towards_a_failure(stage, in_tmp):
    (in_tmp / "endings.py").write_text(
        "import os, pathlib\n"
        "def trouble(job):\n"
        "    n = len(list(pathlib.Path('results/attempts').rglob('train-*.json')))\n"
        "    if n in (2, 3): os.kill(os.getpid(), 9)\n"
        "    raise KeyError(n)\n"
    )
    for reason in ("error", "killed", "killed"):
        with pytest.raises(SystemExit):
            stage("trouble", attempts=2)
        assert cell_state(CELL.folder)["reason"] == reason
    assert stage("trouble", attempts=2)["reason"] == "error", "the second accident"


def test_an_accident_then_success(stage):
    with pytest.raises(SystemExit):
        stage("second_time", attempts=2)
    assert stage("second_time", attempts=2)["state"] == "ok"


def test_the_failure_of_the_stage_before_is_passed_on_and_nothing_runs(stage):
    stage("diverges", "train")
    passed = stage("crashes", "predict", upstream=CELL.folder / "train.json")
    assert (passed["stage"], passed["reason"]) == ("train", "diverged")
    assert "Not run: train failed" in Path("results/logs/predict.log").read_text()


def test_a_deleted_result_of_the_stage_before_is_no_failure_of_the_method(stage, capsys):
    made = CELL.folder / "predict.json"
    write_json(made, {"stage": "predict", "state": "ok"})
    job = {"predictions": str(CELL.folder / "predictions"), "output": "out"}

    def evaluated() -> dict:
        record = CELL.folder / "evaluate.json"
        return supervise("evaluate", "endings:bad", job, record=record, log="e.log", attempts=1, upstream=made)

    with pytest.raises(SystemExit, match=r"predictions is gone, though .*; delete .*predict\.json and run again"):
        evaluated()
    assert cell_state(CELL.folder, ["evaluate"])["attempts"] == 0, "no attempt, no record, no worst scores"
    Path(job["predictions"]).mkdir()
    assert evaluated()["reason"] == "bad-input"


def test_deleted_scores_are_missed(in_tmp):
    write_json(CELL.folder / "evaluate.json", {"state": "failed"})
    require_scores([CELL])  # where one failed, they are written last
    write_json(CELL.folder / "evaluate.json", {"state": "ok"})
    with pytest.raises(BadInput, match=r"scores.csv is gone, .*delete .*evaluate.json and run again"):
        require_scores([CELL])
    (CELL.folder / "scores.csv").touch()
    require_scores([CELL])


def test_a_full_disk_does_not_stop_the_supervisor_from_following(in_tmp):
    cell = _CellStage("train", "", Task({}, CELL.folder / "train.json", "/dev/full"), 1)
    cell.child = subprocess.Popen(["echo", "hello"], stdout=subprocess.PIPE, text=True)
    cell.follow()
    assert cell.child.returncode == 0


def test_what_another_process_finished_is_not_done_again_if_it_is_all_there(stage, monkeypatch):
    def again(ending: str) -> dict:
        job = {"threads": 1, "output": "out"}
        monkeypatch.setattr("lib.status.value_hash", lambda _: "same job")
        record = CELL.folder / "train.json"
        return supervise("train", f"endings:{ending}", job, record=record, log="train.log", attempts=1)

    Path("out").touch()
    done = again("fine")
    assert again("crashes") == done, "nothing ran"
    Path("out").unlink()  # by Snakemake, after it was made and before the record was
    assert again("crashes")["reason"] == "error"
    assert again("fine")["reason"] == "error", "a recorded failure is an ending too"


def test_leftovers_of_killed_processes_go(stage):
    folder = CELL.folder
    (folder / ".123.predictions").mkdir(parents=True)
    (folder / ".99.scores.csv").touch()
    (folder / ".keep").touch()
    stage("fine")
    assert sorted(p.name for p in folder.iterdir()) == [".keep", "train.json"]


def test_forgetting_a_failure_starts_afresh(stage):
    stage("diverges", "train")
    stage("fine", "predict", upstream=CELL.folder / "train.json")
    forget_failure(CELL.folder)
    assert cell_state(CELL.folder)["state"] == "missing"
    assert stage("fine", "train")["attempts"] == 1


def test_a_stage_that_starts_voids_the_records_after_it(stage):
    stage("fine", "train")
    stage("fine", "predict", upstream=CELL.folder / "train.json")
    stage("fine", "evaluate", upstream=CELL.folder / "predict.json")
    assert cell_state(CELL.folder)["state"] == "ok"
    (CELL.folder / "train.json").unlink()  # as Snakemake does before it trains again
    with pytest.raises(SystemExit):
        stage("crashes", "train", attempts=2)
    assert (cell_state(CELL.folder)["state"], cell_state(CELL.folder)["reason"]) == ("missing", "error")
    assert not (CELL.folder / "predict.json").exists() and not (CELL.folder / "evaluate.json").exists()


def test_attempts_are_counted_for_each_job_and_since_its_last_ending(stage):
    record = CELL.folder / "train.json"
    for ending in ("crashes", "out_of_memory", "fine"):  # three jobs: the targets differ
        with pytest.raises(SystemExit) if ending != "fine" else nullcontext():
            assert stage(ending, attempts=2)["attempts"] == 1
    record.unlink()
    assert stage("fine")["attempts"] == 1
    for _ in range(2):  # after a failure was recorded, accidents are counted anew
        with pytest.raises(SystemExit):
            stage("crashes", attempts=2)
        assert stage("crashes", attempts=2)["attempts"] == 2
        record.unlink()
    assert len(list(Path("results/attempts").rglob("train-*.json"))) == 8


def test_a_missing_cell_tells_of_the_stage_that_it_waits_for(stage):
    with pytest.raises(SystemExit):
        stage("second_time", attempts=2)
    stage("second_time", attempts=2)
    known = cell_state(CELL.folder)
    assert (known["state"], known["stage"], known["reason"]) == ("missing", "predict", "")
    (Path("results/attempts") / CELL.folder.relative_to("results/cells") / ".7.predict-1.json").write_text("{")
    assert cell_state(CELL.folder) == known, "half a note of a killed process is not read"


SUPERVISOR = """
import sys; sys.path[:0] = [{scripts!r}]
import lib.status; lib.status.SCRIPTS = {path!r}
lib.status.supervise("train", "endings:sleeps", {{"threads": 1}}, record={record!r}, log="results/logs/train.log", attempts=1)
"""


@pytest.fixture
def sleeping(stage, in_tmp):
    """A supervisor in its own process, whose child sleeps."""
    scripts = str(ROOT / "workflow/scripts")
    program = SUPERVISOR.format(
        scripts=scripts, path=f"{scripts}{os.pathsep}{in_tmp}", record=str(CELL.folder / "train.json")
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, preexec_fn=_heed_signals
    )
    _wait_for(lambda: Path("pid").exists() and Path("pid").read_text().strip())
    yield process, int(Path("pid").read_text())
    process.kill()
    process.wait()


def _wait_for(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.02)


def _heed_signals():
    """Whatever these tests were told to ignore (nohup does that), their children would ignore too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interruption_is_never_a_failure(sleeping, number):
    process, child = sleeping
    assert cell_state(CELL.folder)["reason"] == "running"
    process.send_signal(number)
    assert process.wait(10) == 143
    assert _gone(child)
    known = cell_state(CELL.folder)
    assert (known["state"], known["reason"]) == ("missing", "timeout")
    assert not (CELL.folder / "train.json").exists()


def test_who_waits_for_another_process_ends_when_asked_to(sleeping, in_tmp):
    first, _ = sleeping
    second = subprocess.Popen(first.args, stderr=subprocess.PIPE, text=True)
    try:
        assert "waiting for it" in second.stderr.readline()
        second.terminate()
        second.wait(10)
    finally:
        second.kill()
        second.wait()
    assert first.poll() is None and cell_state(CELL.folder)["reason"] == "running"


def test_a_killed_supervisor_takes_its_child_along_and_leaves_a_note(sleeping):
    process, child = sleeping
    process.kill()
    process.wait()
    _wait_for(lambda: _gone(child))
    assert cell_state(CELL.folder)["reason"] == "killed"


def test_the_ledger_has_a_row_for_every_cell_whatever_became_of_it(stage):
    stage("diverges")
    other = Cell("hearts", "clean", "smoke", "unet", "ce", fold=1, seed=1)
    ledger = build_ledger([CELL, other])
    assert ledger["state"].tolist() == ["failed", "missing"]
    assert ledger["reason"].tolist() == ["diverged", ""]
    assert ledger["method"].tolist() == ["unet+ce"] * 2
    assert "2 of 2 cells are not ok" in complaint(ledger)
    assert complaint(ledger.assign(state="ok")) == ""
