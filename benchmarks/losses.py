"""Forward and backward of every loss: time and memory, against MONAI's where both exist.

    python benchmarks/losses.py [--rounds 7] [--volume]

Ours, MONAI's and torch's cross-entropy alternate within one process, so that a busy machine slows all; ratios are
medians over rounds. Time is the CPU time of one thread (on a GPU, wall time), memory the largest sum of tensors that a
step allocates. `x CE` is the time in units of torch's cross-entropy. About a minute; --volume adds two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when torch starts

import torch
import torch.nn.functional as F
from monai import losses as monai
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

from lib.losses import available, build_loss
from lib.losses.recipes import is_auxiliary

MIB = 2**20
FACTS = {"classes": 4, "class_frequencies": {"voxels": [80, 10, 6, 4], "voxels_of_cases_with_class": [100] * 4}}
SOFTMAX = {"to_onehot_y": True, "softmax": True}
FOREGROUND = SOFTMAX | {"include_background": False}
DICE_CE = {"sum": [{"weight": 1.0, "loss": {"name": name}} for name in ("dice", "cross_entropy")]}
DICE_FOCAL = {"sum": [{"weight": 1.0, "loss": {"name": name}} for name in ("dice", "focal")]}
PEERS: list[tuple[str, dict, Callable]] = [
    ("cross_entropy (torch)", {"name": "cross_entropy"}, lambda z, y: F.cross_entropy(z, y[:, 0])),
    ("dice", {"name": "dice"}, monai.DiceLoss(**FOREGROUND, batch=True)),
    ("dice + cross_entropy", DICE_CE, monai.DiceCELoss(**FOREGROUND, batch=True)),
    ("tversky", {"name": "tversky"}, monai.TverskyLoss(**FOREGROUND, batch=True, alpha=0.3, beta=0.7)),
    ("generalised_dice", {"name": "generalised_dice"}, monai.GeneralizedDiceLoss(**SOFTMAX, batch=True)),
    ("focal", {"name": "focal"}, monai.FocalLoss(to_onehot_y=True, use_softmax=True)),
    ("dice + focal", DICE_FOCAL, monai.DiceFocalLoss(**FOREGROUND, batch=True)),
    ("hausdorff_dt", {"name": "hausdorff_dt"}, monai.HausdorffDTLoss(**FOREGROUND)),
    ("log_hausdorff_dt", {"name": "log_hausdorff_dt"}, monai.LogHausdorffDTLoss(**FOREGROUND)),
    ("boundary", {"name": "boundary"}, monai.BoundaryLoss(**FOREGROUND)),
]


def data(shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Logits, and a label map (B, *S) of boxes, four classes of unequal size in every image."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).mul(2).to(device).requires_grad_()
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.int64)
    for c in (1, 2, 3):
        box = tuple(slice(n // (4 * c), n // (4 * c) + n // (c + 1)) for n in shape[2:])
        target[(slice(None), *box)] = c
    return logits, target.to(device)


def step(loss: Callable, logits: Tensor, target: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    logits.grad = None
    clock = time.process_time if logits.device.type == "cpu" else time.perf_counter
    if logits.device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    loss(logits, target).backward()
    if logits.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def peak_mib(loss: Callable, logits: Tensor, target: Tensor) -> float:
    """The largest sum of tensors that one step allocates."""
    logits.grad = None
    if logits.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(logits, target).backward()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    with torch.profiler.profile(profile_memory=True) as profile:
        loss(logits, target).backward()
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak / MIB


def report(shape: tuple[int, ...], device: str, rounds: int, seconds: float) -> None:
    logits, target = data(shape, device)
    with_channel = target.unsqueeze(1)
    floor = lambda z, y: F.cross_entropy(z, y)  # noqa: E731
    print(f"\nlogits {tuple(shape)} on {device}, {torch.get_num_threads()} thread(s)")
    print(f"{'':28}{'ours ms':>9}{'MONAI ms':>10}{'MONAI/ours':>12}{'ours MiB':>10}{'MONAI MiB':>11}{'x CE':>7}")
    compared = {str(recipe) for _, recipe, _ in PEERS}
    rows = PEERS + [
        (name, {"name": name}, None)
        for name in available()
        if not is_auxiliary(name) and str({"name": name}) not in compared
    ]
    for name, recipe, theirs in rows:
        ours = build_loss(recipe, **FACTS).to(device)
        peak = peak_mib(ours, logits, target)
        first = step(ours, logits, target)
        count = rounds if first * rounds < seconds else max(1, int(seconds / first))
        times: dict[str, list[float]] = {"ours": [], "theirs": [], "floor": []}
        for _ in range(count):
            times["ours"].append(step(ours, logits, target))
            times["floor"].append(step(floor, logits, target))
            if theirs is not None:
                times["theirs"].append(step(theirs, logits, with_channel))
        own, base = statistics.median(times["ours"]), statistics.median(times["floor"])
        line = f"{name:28}{1000 * own:9.2f}"
        if theirs is None:
            line += f"{'':22}{peak:10.1f}{'':11}"
        else:
            other = statistics.median(times["theirs"])
            ratio = statistics.median(t / o for t, o in zip(times["theirs"], times["ours"], strict=True))
            line += f"{1000 * other:10.2f}{ratio:12.2f}{peak:10.1f}{peak_mib(theirs, logits, with_channel):11.1f}"
        print(line + f"{own / base:7.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--volume", action="store_true", help="also volumes of 96 x 96 x 96")
    options = parser.parse_args()
    torch.set_num_threads(1)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    report((8, 4, 128, 128), where, options.rounds, seconds=2.0)
    if options.volume:
        report((2, 4, 96, 96, 96), where, options.rounds, seconds=10.0)
