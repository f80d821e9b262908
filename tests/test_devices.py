"""Jobs on one machine spread over its GPUs; no GPU is needed to test it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest
from conftest import ROOT

from lib.devices import one_gpu, visible_devices


@pytest.fixture(autouse=True)
def three_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-8a2,MIG-1/2/0")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def chosen(stack: ExitStack) -> str:
    environment, _ = stack.enter_context(one_gpu(1))
    return environment["CUDA_VISIBLE_DEVICES"]


def test_each_job_takes_the_gpu_with_the_fewest(tmp_path):
    with ExitStack() as jobs:
        assert [chosen(jobs) for _ in range(7)] == ["0", "GPU-8a2", "MIG-1/2/0"] * 2 + ["0"]
        with ExitStack() as eighth:
            assert chosen(eighth) == "GPU-8a2"
        assert chosen(jobs) == "GPU-8a2", "given back by the eighth"
    with ExitStack() as jobs:
        assert chosen(jobs) == "0"


def test_a_gpu_stays_taken_until_the_child_has_ended_too():
    with one_gpu(1) as (environment, held):
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        child = subprocess.Popen(command, pass_fds=held)
    try:
        with ExitStack() as jobs:
            assert environment["CUDA_VISIBLE_DEVICES"] == "0" and chosen(jobs) == "GPU-8a2"
    finally:
        child.kill()
        child.wait()
    with ExitStack() as jobs:
        assert chosen(jobs) == "0"


@pytest.mark.parametrize("setting", ["", "-1", "NoDevFiles"])
def test_without_gpus_nothing_is_set(monkeypatch, setting):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    with one_gpu(1) as taken:
        assert taken == ({}, [])


def test_a_job_without_need_and_a_job_of_slurm_take_nothing(monkeypatch):
    with one_gpu(0) as taken:
        assert taken == ({}, [])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with one_gpu(1) as taken:
        assert taken == ({}, [])


def test_devices_are_found_by_their_number_or_name(monkeypatch):
    assert visible_devices() == ["0", "GPU-8a2", "MIG-1/2/0"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = "from lib.devices import visible_devices; print(all(d.startswith('GPU-') for d in visible_devices()))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "workflow/scripts", capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr


def test_the_trained_process_sees_one_gpu(in_tmp, monkeypatch):
    from lib.status import supervise

    (in_tmp / "target.py").write_text("import os\ndef see(job): return {'gpu': os.environ['CUDA_VISIBLE_DEVICES']}\n")
    monkeypatch.setattr("lib.status.SCRIPTS", f"{ROOT / 'workflow/scripts'}:{in_tmp}")
    with ExitStack() as jobs:
        chosen(jobs)
        record = supervise(
            "train", "target:see", {"threads": 1}, record="results/cells/x/train.json", log="log", attempts=1, gpus=1
        )
    assert record["result"] == {"gpu": "GPU-8a2"}
