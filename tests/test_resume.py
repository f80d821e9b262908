"""A training that is killed or stopped, at any point, ends with the bits of one that was not."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_store import restore_torch, tiny_job, tiny_store  # noqa: F401

from lib.files import write_json
from lib.status import supervise
from lib.training import train_cell, trainer
from lib.training.validation import mean_dice

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow/scripts"


def outcome(job: dict) -> tuple[dict, list[list[str]]]:
    folder = Path(job["output"])
    with (folder / "curve.csv").open() as file:
        rows = [row[:4] for row in csv.reader(file)]  # all columns but the seconds
    return torch.load(folder / "weights.pt", weights_only=True), rows


def assert_same_bits(resumed: dict, uninterrupted: dict) -> None:
    (weights, rows), (expected, expected_rows) = outcome(resumed), outcome(uninterrupted)
    assert rows == expected_rows
    assert weights.keys() == expected.keys()
    for name in weights:
        assert torch.equal(weights[name], expected[name]), name


def start(job: dict) -> subprocess.Popen:
    folder = Path(job["output"]).parent
    write_json(folder / "job.json", job)
    command = [sys.executable, "-u", "-m", "lib.child", "lib.training:train_cell", "job.json", "outcome.json"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.002)


def test_kill_9_and_sigterm(tmp_path):
    tiny_store(tmp_path)
    change = {"optimizer": "sgd", "lr": 1e-2, "score": "best", "iterations": 120, "validate_every": 7}
    change |= {"checkpoint_minutes": 0}  # one after each iteration
    whole, broken = tiny_job(tmp_path, "whole", **change), tiny_job(tmp_path, "broken", **change)
    train_cell(whole)

    process = start(broken)
    store, fold = trainer.open_fold(broken)
    checkpoints = tmp_path / "broken_checkpoints" / trainer.training_origin(broken, store.meta, fold)["identity"]
    wait_for(checkpoints / "checkpoint.pt", process)
    time.sleep(random.uniform(0, 0.2))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "broken").exists()

    process = start(broken)
    for line in process.stdout:
        if line.startswith("resumed at iteration"):
            break
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 143 and "SIGTERM: checkpoint at iteration" in output

    result = train_cell(broken)
    assert result["resumed"] == 2 and result["resumed_elsewhere"] is False and not list(checkpoints.glob("*.pt"))
    assert_same_bits(broken, whole)


@pytest.fixture
def stop_at(monkeypatch):
    """Send this process a signal during the given iteration, once."""

    def arrange(iteration: int, number: signal.Signals = signal.SIGTERM) -> None:
        step, left = trainer.Training.step, [number]

        def stopped(self):
            if left and self.progress.iteration == iteration - 1:
                os.kill(os.getpid(), left.pop())
            step(self)

        monkeypatch.setattr(trainer.Training, "step", stopped)

    return arrange


@pytest.mark.parametrize("iteration", [1, 8, 11, 23])  # 8: a validation is due as well
@pytest.mark.parametrize(
    "change",
    [
        {"score": "best"},
        {"optimizer": "sgd", "clip": None, "schedule": "constant", "augment": False},
        {"precision": "bfloat16", "schedule": "cosine"},
    ],
)
def test_a_stopped_training_resumes(tmp_path, stop_at, change, iteration):
    tiny_store(tmp_path)
    whole, broken = tiny_job(tmp_path, "whole", **change), tiny_job(tmp_path, "broken", **change)
    train_cell(whole)
    stop_at(iteration)
    with pytest.raises(SystemExit) as stopped:
        train_cell(broken)
    assert stopped.value.code == 143 and not (tmp_path / "broken").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the handlers are given back
    torch.manual_seed(99)
    assert train_cell(broken)["resumed"] == 1
    assert_same_bits(broken, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_other_signals_stop_as_well(tmp_path, stop_at, number):
    tiny_store(tmp_path)
    stop_at(5, number)
    with pytest.raises(SystemExit):
        train_cell(tiny_job(tmp_path))
    assert list((tmp_path / "training_checkpoints").glob("*/checkpoint.pt"))


def test_a_stopped_validation_is_repeated(tmp_path, monkeypatch):
    tiny_store(tmp_path)
    whole, broken = tiny_job(tmp_path, "whole"), tiny_job(tmp_path, "broken")
    train_cell(whole)

    def stopped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return mean_dice(*arguments)

    monkeypatch.setattr(trainer, "mean_dice", stopped)
    with pytest.raises(SystemExit):
        train_cell(broken)
    monkeypatch.undo()
    assert train_cell(broken)["resumed"] == 1
    assert_same_bits(broken, whole)


def test_a_network_with_dropout_resumes(tmp_path, stop_at, monkeypatch):
    """The global generator, which dropout draws from, is part of the checkpoint."""
    tiny_store(tmp_path)
    build = trainer.build_model
    monkeypatch.setattr(
        trainer, "build_model", lambda *recipe: torch.nn.Sequential(torch.nn.Dropout(0.3), build(*recipe))
    )
    whole, broken = tiny_job(tmp_path, "whole"), tiny_job(tmp_path, "broken")
    train_cell(whole)
    stop_at(10)
    with pytest.raises(SystemExit):
        train_cell(broken)
    torch.manual_seed(99)
    assert train_cell(broken)["resumed"] == 1
    assert_same_bits(broken, whole)


@pytest.mark.parametrize("damaged", [["checkpoint.pt"], ["checkpoint.pt", "previous.pt"]])
def test_damaged_checkpoints_cost_time_and_nothing_else(tmp_path, stop_at, capsys, damaged):
    tiny_store(tmp_path)
    change = {"checkpoint_minutes": 0}
    whole, broken = tiny_job(tmp_path, "whole", **change), tiny_job(tmp_path, "broken", **change)
    train_cell(whole)
    stop_at(9)
    with pytest.raises(SystemExit):
        train_cell(broken)
    (folder,) = (tmp_path / "broken_checkpoints").iterdir()
    for name in damaged:
        (folder / name).write_bytes((folder / name).read_bytes()[:1000])
    capsys.readouterr()
    train_cell(broken)
    output = capsys.readouterr().out
    assert output.count("is damaged") == len(damaged)
    assert ("resumed at iteration 8" in output) == (len(damaged) == 1)
    assert_same_bits(broken, whole)


def test_another_machine_is_recorded(tmp_path, stop_at, monkeypatch):
    tiny_store(tmp_path)
    job = tiny_job(tmp_path)
    stop_at(9)
    with pytest.raises(SystemExit):
        train_cell(job)
    here = trainer.fingerprint
    monkeypatch.setattr(trainer, "fingerprint", lambda device: here(device) | {"device": "another"})
    result = train_cell(job)
    assert result["resumed"] == 1 and result["resumed_elsewhere"] is True


def test_a_stale_checkpoint_is_not_resumed(tmp_path, stop_at, capsys):
    tiny_store(tmp_path)
    stop_at(9)
    with pytest.raises(SystemExit):
        train_cell(tiny_job(tmp_path))
    result = train_cell(tiny_job(tmp_path) | {"code": "1"})
    assert result["resumed"] == 0 and "resumed" not in capsys.readouterr().out


def test_time_and_peak_add_up(tmp_path, stop_at):
    tiny_store(tmp_path)
    job = tiny_job(tmp_path)
    stop_at(20)
    with pytest.raises(SystemExit):
        train_cell(job)
    (file,) = (tmp_path / "training_checkpoints").glob("*/checkpoint.pt")
    before = torch.load(file, weights_only=True)["progress"]
    result = train_cell(job)
    assert result["wall_seconds"] > before["seconds"] > 0
    assert result["peak_memory_mb"] >= before["peak_memory_mb"] > 0


@pytest.mark.parametrize("links", [True, False])
def test_a_finished_training_is_not_repeated(tmp_path, monkeypatch, capsys, links):
    """Snakemake deletes the outputs of a job that ended after its controller was killed, and starts the job again."""
    tiny_store(tmp_path)
    job = tiny_job(tmp_path)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    cost, before = train_cell(job), outcome(job)
    shutil.rmtree(job["output"])
    monkeypatch.setattr(trainer.Training, "step", lambda self: pytest.fail("trained again"))
    assert train_cell(job) == cost and "its results were kept" in capsys.readouterr().out
    assert outcome(job)[1] == before[1]
    assert all(torch.equal(outcome(job)[0][name], weights) for name, weights in before[0].items())


def test_another_job_does_not_get_the_kept_results(tmp_path):
    tiny_store(tmp_path)
    job = tiny_job(tmp_path)
    identity = train_cell(job)["identity"]
    other = job | {"cell": job["cell"] | {"seed": 7}}
    assert train_cell(other)["identity"] != identity


@pytest.mark.parametrize("place", ["hand_over", "remove_checkpoints"])
def test_a_kill_between_training_and_its_end(tmp_path, monkeypatch, place):
    tiny_store(tmp_path)
    whole, broken = tiny_job(tmp_path, "whole"), tiny_job(tmp_path, "broken", checkpoint_minutes=0)
    train_cell(whole)
    function, calls = getattr(trainer, place), []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == (2 if place == "hand_over" else 1):
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(trainer, place, killed)
    with pytest.raises(KeyboardInterrupt):
        train_cell(broken)
    monkeypatch.undo()
    monkeypatch.setattr(trainer.Training, "step", lambda self: pytest.fail("trained again"))
    train_cell(broken)
    assert_same_bits(broken, whole)


def test_what_was_kept_goes_when_the_cell_has_been_scored(tmp_path, monkeypatch):
    tiny_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "target.py").write_text("def nothing(job): pass\n")
    monkeypatch.setattr("lib.status.SCRIPTS", f"{SCRIPTS}{os.pathsep}{tmp_path}")
    cell = Path("results/cells/tiny")
    job = tiny_job(tmp_path) | {"output": str(cell / "training"), "checkpoints": "results/checkpoints"}
    kept = Path("results/checkpoints", train_cell(job)["identity"])
    assert (kept / "finished/weights.pt").samefile(cell / "training/weights.pt")
    for stage in ("predict", "evaluate"):
        assert kept.exists()
        supervise(stage, "target:nothing", {}, record=cell / f"{stage}.json", log="log", attempts=1)
    assert not kept.exists() and outcome(job)
