"""What happens before any work: imports of each kind of job, the plan of a study, the scheduler's cost of a job.

    python benchmarks/starts.py [--rounds 5] [--cells 1000] [--save]

CPU seconds of whole processes with warm file caches, ours and a MONAI script alternating. A plan is a dry run of an
experiment of so many cells, each a train, a predict and an evaluate job; the scheduler's cost is that of jobs that only
touch their outputs, minus planning them. Five minutes, most of it the scheduler.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kills import TINY
from project import ROOT, Project
from test_planning import CHAINS
from tiny_store import tiny_job, tiny_store

ARCHITECTURES = ("unet_narrow", "segnet_narrow", "shallow_segnet_narrow", "nnunet_narrow", "segresnet_narrow")
LOSSES = ("ce", "wce", "dbce", "dice")
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--cores", "2")

TRAINING = """
import json, sys
from lib.inference.device import start_torch
from lib.training.trainer import set_up
job = json.load(open("job.json"))
protocol = job["protocol"]
set_up(job, start_torch(job["threads"], protocol["precision"], len(protocol["patch"]))).step()
"""
MONAI_TRAINING = """
import torch
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import Compose, RandFlipd
items = [{"image": torch.randn(1, 32, 32), "label": torch.ones(1, 32, 32)} for _ in range(4)]
augment = Compose([RandFlipd(["image", "label"], prob=0.5, spatial_axis=0)])
model = UNet(2, 1, 3, (16, 32), (2,))
optimizer = torch.optim.AdamW(model.parameters())
batch = next(iter(DataLoader(CacheDataset(items, augment, progress=False), 2)))
DiceCELoss(to_onehot_y=True, softmax=True)(model(batch["image"]), batch["label"]).backward()
optimizer.step()
"""
BARE_TRAINING = """
import torch
weight = torch.nn.Parameter(torch.zeros(9))
optimizer = torch.optim.AdamW([weight])
weight.sum().backward()
optimizer.step()
"""
EVALUATION = "import lib.evaluation"
MONAI_EVALUATION = "from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric"


def process(folder: Path, *command: str) -> Callable[[], str]:
    """A run of the command that returns its output; raises with it where the command fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts"), "OMP_NUM_THREADS": "1"}

    def run() -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return done.stdout

    return run


def imports(record: bench.Record, folder: Path, rounds: int) -> None:
    tiny_store(folder)
    (folder / "job.json").write_text(json.dumps(tiny_job(folder)))
    jobs = [
        ("training, to the end of its first step", TRAINING, "a script with MONAI", MONAI_TRAINING, "ours <= 1.9"),
        ("training, to the end of its first step", TRAINING, "AdamW alone, on nine numbers", BARE_TRAINING, ""),
        ("evaluation, before its first case", EVALUATION, "MONAI's metrics", MONAI_EVALUATION, "ours <= 0.3"),
        ("ranking, before its first number", "import lib.statistics.ranking", "", "", ""),
        ("a figure, before its first number", "import lib.figures.heatmap", "", "", ""),
        ("the supervisor of a job", "import lib.status", "", "", ""),
    ]
    for what, code, peer, theirs, goal in jobs:
        runs = {"ours": process(folder, sys.executable, "-c", code)}
        if peer:
            runs["theirs"] = process(folder, sys.executable, "-c", theirs)
        seconds = bench.alternate(runs, rounds, bench.children_time)
        record.add(what, seconds["ours"], "s", peer, seconds.get("theirs"), goal)


def planning(record: bench.Record, folder: Path, cells: int) -> None:
    experiment = TINY["experiment"] | {
        "architectures": list(ARCHITECTURES), "losses": list(LOSSES), "seeds": list(range(cells // 40)),
        "folds": [0, 1], "claims": [],
    }  # fmt: skip
    del experiment["methods"]
    project = Project(folder, TINY | {"experiment": experiment})
    said = []
    run = process(project.folder, *SNAKEMAKE, "--dry-run", "--quiet", "rules", "--configfile", "tiny.yaml")
    seconds = bench.alternate({"plan": lambda: said.append(run())}, 1, bench.children_time)["plan"]
    jobs = int(re.search(r"^total +(\d+)", said[-1], re.MULTILINE)[1])
    record.add(f"a plan of {jobs} jobs", seconds, "s", goal=f"ours <= {1 + jobs / 1000:.2f}")


def scheduling(record: bench.Record, folder: Path, chains: int = 1667) -> None:
    (folder / "Snakefile").write_text(CHAINS.replace("range(500)", f"range({chains})"))
    for stage in ("train", "predict", "evaluate"):
        (folder / stage).mkdir()
        for i in range(chains):
            (folder / stage / str(i)).touch()
    commands = {
        "plan": ("--dry-run", "--quiet", "all"),
        "greedy": ("--touch", "--quiet", "all", "--scheduler", "greedy"),
        "ilp": ("--touch", "--quiet", "all", "--scheduler", "ilp"),
    }
    runs = {name: process(folder, *SNAKEMAKE, "--forceall", *command) for name, command in commands.items()}
    times = bench.alternate(runs, 1, bench.children_time, warm_up=False)  # minutes each
    seconds = {name: of[0] for name, of in times.items()}
    greedy, ilp = (1000 * (seconds[name] - seconds["plan"]) / (3 * chains) for name in ("greedy", "ilp"))
    what = f"a finished job of {3 * chains}, the profile's scheduler"
    record.add(what, greedy, "ms", "Snakemake's default scheduler", ilp, "ours <= 15")


if __name__ == "__main__":
    parser = bench.arguments(__doc__, rounds=5)
    parser.add_argument("--cells", type=int, default=1000, help="of the experiment that is planned")
    options = parser.parse_args()
    record = bench.Record("starts", "torch", "monai", "snakemake", "pandas", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("imports", "planning", "scheduling"):
            (Path(folder) / name).mkdir()
        imports(record, Path(folder, "imports"), options.rounds)
        planning(record, Path(folder, "planning"), options.cells)
        scheduling(record, Path(folder, "scheduling"))
    if options.save:
        record.save()
