"""Samples per second of a training: ours, MONAI's plain loop and nnU-Net's, on the same network, batch and cases.

    python benchmarks/training.py [--rounds 5] [--width 32] [--nnunet PYTHON] [--save]

Patches of 8 x 128 x 128 from slices of 256 x 256, four classes, Dice and cross-entropy. Ours is `Training.step`, with
all that an iteration of a cell does: sampling, augmentation, forward, backward, clipping, update. MONAI's:
CacheDataset, DataLoader without workers, dictionary transforms of the same kinds and probabilities, AdamW. nnU-Net's:
its own loader, augmentation, loss and `train_step`, in a process of the environment that --nnunet names. Ours and
MONAI's share a process, and so our settings: deterministic algorithms, no TF32, no search for kernels; nnU-Net has its
own. All take turns; on a CPU time is CPU time of one thread. `outside` is the share of a step that is not forward,
loss, backward, clipping or update. `auto` is what the probe chooses for slices on this machine. "Forward and backward"
are those of the network alone: as ours lies in memory, channels last, against channels first and torch.compile. On a
GPU (time until it is done) also its utilisation and memory. About ten minutes on a quiet machine, half of them to
compile networks; nothing is written without --save.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from unittest.mock import patch

from bench import Record, alternate, arguments

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when torch starts

import numpy as np
import torch
from torch import nn

from lib.inference.device import autocast, start_torch
from lib.losses import build_loss
from lib.models import build_model
from lib.status import SCRIPTS
from lib.training.augment import complete_settings
from lib.training.cost import MIB, fingerprint
from lib.training.precision import choose_precision
from lib.training.sampler import PatchSampler, TrainingCase
from lib.training.trainer import Progress, Training, build_optimizer

BATCH, PATCH, CLASSES = 8, [128, 128], 4
CASES, SHAPE = 6, (16, 256, 256)
STEPS = {"cpu": 1, "cuda": 50}  # in a turn
PROTOCOL = {
    "iterations": 10**6, "batch": BATCH, "patch": PATCH, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01,
    "schedule": "polynomial", "warmup": 0, "clip": 12.0, "foreground": 0.5,
}  # fmt: skip
LOSS = {"sum": [{"weight": 1.0, "loss": {"name": name}} for name in ("dice", "cross_entropy")]}
NARROW = [
    {"name": "unet", "width": 8},
    {"name": "shallow_segnet", "stages": 3, "width": 8},
    {"name": "segnet", "width": 8},
]


def cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise over boxes of three structures: images (D, H, W) float32 and labels uint8."""
    made = []
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        label = np.zeros(SHAPE, np.uint8)
        for value in range(1, CLASSES):
            y, x = rng.integers(30, 150, 2)
            label[:, y : y + 70, x : x + 60] = value
        made.append((rng.normal(label, 1).astype(np.float32), label))
    return made


def ours(recipe: dict, precision: str, device: torch.device) -> Training:
    """A training in its first iteration, as `lib.training.trainer.set_up` makes it."""
    torch.manual_seed(0)
    generators = {name: torch.Generator().manual_seed(0) for name in ("sampler", "augment")}
    training = [TrainingCase(image[None], label, np.ones(3)) for image, label in cases()]
    model = build_model(recipe, 1, CLASSES, 2).to(device)
    loss = build_loss(LOSS, classes=CLASSES, spatial_dims=2, image_channels=1).to(device)
    return Training(
        protocol=PROTOCOL | {"precision": precision},
        device=device,
        model=model,
        loss=loss,
        features=None,
        optimizer=build_optimizer(PROTOCOL, [*model.parameters(), *loss.parameters()]),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "float16"),
        generators=generators,
        sampler=PatchSampler(training, PATCH, BATCH, PROTOCOL["foreground"], generators["sampler"]),
        validation=[],
        regions=None,
        augment=complete_settings({}),
        progress=Progress(fingerprint=fingerprint(device)),
        energy_kwh=lambda: None,
    )


@contextmanager
def timed_inside(training: Training):
    """A list that fills with the CPU seconds of forward, loss, backward, clipping and update of its steps."""
    seconds = []

    def timed(work: Callable) -> Callable:
        def run(*arguments, **named):
            before = time.process_time()
            result = work(*arguments, **named)
            seconds.append(time.process_time() - before)
            return result

        return run

    parts = [(training.model, "forward"), (training.loss, "forward"), (torch.Tensor, "backward")]
    parts += [(nn.utils, "clip_grad_norm_"), (training.optimizer, "step")]
    with ExitStack() as patched:
        for owner, name in parts:
            patched.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        yield seconds


def monai_loop(network: nn.Module, precision: str, device: torch.device) -> Callable[[], None]:
    """A step of the loop of MONAI's tutorials, with augmentation of our kinds, probabilities and strengths."""
    from monai import transforms as T
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss

    keys = ["image", "label"]
    modes = {"mode": ["bilinear", "nearest"], "padding_mode": "reflection"}
    affine = {"rotate_range": 0.26, "scale_range": 0.15, "shear_range": 0.05, "translate_range": 6.4}
    augmentation = [
        T.RandCropByPosNegLabeld(keys, label_key="label", spatial_size=PATCH, pos=1, neg=1, num_samples=1),
        T.RandAffined(keys, prob=0.7, **affine, **modes),
        T.Rand2DElasticd(keys, prob=0.3, spacing=(16, 16), magnitude_range=(0, 2), **modes),
        T.RandAdjustContrastd("image", prob=0.3, gamma=(0.74, 1.35)),
        T.RandBiasFieldd("image", prob=0.2, coeff_range=(0, 0.3)),
        T.RandGaussianNoised("image", prob=0.2, std=0.15),
    ]
    slices = [
        {"image": torch.from_numpy(image[None]), "label": torch.from_numpy(label[None])}
        for whole, labels in cases()
        for image, label in zip(whole, labels, strict=True)
    ]
    dataset = CacheDataset(slices, T.Compose([T.EnsureTyped(keys), *augmentation]), progress=False)
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
    loss, network = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True), network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)

    def batches():
        while True:
            yield from loader

    source = batches()

    def step() -> None:
        batch = next(source)
        image, label = batch["image"].to(device), batch["label"].to(device)
        optimizer.zero_grad()
        with autocast(device, precision):
            logits = network(image)
        value = loss(logits.float(), label)
        value.backward()
        optimizer.step()
        value.item()  # every tutorial adds it up

    return step


class NnUNet:
    """nnU-Net's loop in a process of its own."""

    def __init__(self, python: str, recipe: dict, folder: Path):
        np.savez(folder / "cases.npz", *[np.stack([image, label.astype(np.float32)]) for image, label in cases()])
        self.log = folder / "log"
        words = [json.dumps(value) for value in (recipe, BATCH, PATCH, CLASSES)]
        command = [python, str(Path(__file__).with_name("nnunet_loop.py")), str(folder), *words]
        environment = os.environ | {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
        environment |= {"nnUNet_n_proc_DA": "0", "nnUNet_compile": "f", "PYTHONPATH": str(SCRIPTS)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, stderr=self.log.open("w"), env=environment, **pipes)

    def seconds(self, steps: int) -> float:
        print(steps, file=self.process.stdin, flush=True)
        if line := self.process.stdout.readline():
            return float(line)
        sys.exit(f"nnU-Net's loop ended:\n{self.log.read_text()[-2000:]}")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def repeated(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """STEPS of them, waited for."""

    def run() -> None:
        for _ in range(STEPS[device.type]):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


@contextmanager
def utilisation(device: torch.device):
    """A list that fills with the percentage of time in which kernels ran; it stays empty without a GPU."""
    seen, ended = [], threading.Event()

    def watch() -> None:
        with suppress(ModuleNotFoundError, RuntimeError):  # no NVML: nothing is known
            while not ended.wait(0.1):
                seen.append(torch.cuda.utilization(device))

    watcher = threading.Thread(target=watch)
    if device.type == "cuda":
        watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        if device.type == "cuda":
            watcher.join()


def rates(seconds: list[float], device: torch.device) -> list[float]:
    return [STEPS[device.type] * BATCH / s for s in seconds]


def share_outside(record: Record, recipe: dict, precision: str, options) -> None:
    """Of many steps together, for not every batch is augmented alike."""
    training = ours(recipe, precision, torch.device("cpu"))
    training.step()
    with timed_inside(training) as inside:
        before = time.process_time()
        for _ in range(4 * options.rounds):
            training.step()
        whole = time.process_time() - before
    what = f"outside the step, {recipe['name']} {recipe['width']}, {precision}"
    record.add(what, 100 * (1 - sum(inside) / whole), "%", goal="ours <= 5")


def against_peers(record: Record, recipe: dict, precision: str, device: torch.device, options) -> None:
    """Rows of one precision; nnU-Net has float32 on a CPU, and autocast (float16) on a GPU."""
    training, name = ours(recipe, precision, device), f"{recipe['name']} {recipe['width']}, {precision}"
    runs = {"ours": training.step}
    with suppress(ModuleNotFoundError):
        runs["MONAI"] = monai_loop(build_model(recipe, 1, CLASSES, 2), precision, device)
        if precision == options.auto:
            runs["BasicUNet"] = monai_loop(basic_unet(recipe["width"]), "float32", device)
    runs = {key: repeated(step, device) for key, step in runs.items()}
    torch.cuda.reset_peak_memory_stats() if device.type == "cuda" else None
    seconds = alternate(runs, options.rounds, options.clock)
    speed = {key: rates(values, device) for key, values in seconds.items()}
    row = {"unit": "images/s", "more_is_better": True}
    record.add(f"training, {name}", speed["ours"], peer="MONAI loop", theirs=speed.get("MONAI"), **row)
    if precision == options.auto:
        amx = torch.cpu._is_amx_tile_supported() or device.type == "cuda"
        peer = {"peer": "MONAI loop, BasicUNet, float32", "theirs": speed.get("BasicUNet")}
        record.add(f"training, {name} (auto)", speed["ours"], **peer, **row, goal="ratio >= 2.5" if amx else "")
    if device.type == "cuda":
        with utilisation(device) as seen:
            torch.cuda.reset_peak_memory_stats()
            repeated(training.step, device)()
        record.add(f"peak memory, {name}", torch.cuda.max_memory_allocated() / MIB, "MiB")
        if seen:
            record.add(f"utilisation, {name}", median(seen), "%")


def against_nnunet(record: Record, recipe: dict, device: torch.device, options) -> None:
    precision = "float16" if device.type == "cuda" else "float32"
    training, steps, theirs = repeated(ours(recipe, precision, device).step, device), STEPS[device.type], None
    if options.nnunet:
        with tempfile.TemporaryDirectory() as folder:
            peer = NnUNet(options.nnunet, recipe, Path(folder))
            peer.seconds(1)
            seconds, theirs = [], []
            for _ in range(options.rounds + 1):
                seconds += alternate({"ours": training}, 1, options.clock)["ours"]
                theirs.append(peer.seconds(steps))
            peer.close()
        seconds, theirs = seconds[1:], rates(theirs[1:], device)
    else:
        seconds = alternate({"ours": training}, options.rounds, options.clock)["ours"]
    what = f"training, {recipe['name']} {recipe['width']}, {precision}"
    record.add(what, rates(seconds, device), "images/s", "nnU-Net's loop", theirs, more_is_better=True)


def variants(record: Record, recipe: dict, precision: str, device: torch.device, options) -> None:
    """What the layout in memory gives a network, and what torch.compile would give it, and takes to compile."""
    networks = {name: build_model(recipe, 1, CLASSES, 2).to(device).train() for name in ("ours", "first", "compiled")}
    networks["first"].to(memory_format=torch.contiguous_format)
    networks["compiled"] = torch.compile(networks["compiled"])
    image = torch.randn(BATCH, 1, *PATCH, device=device)

    def run(network: nn.Module) -> Callable[[], None]:
        def step() -> None:
            network.zero_grad()
            with autocast(device, precision):
                logits = network(image)
            logits.float().square().mean().backward()

        return repeated(step, device)

    runs = {name: run(network) for name, network in networks.items()}
    before = time.perf_counter()
    runs["compiled"]()
    compiling = time.perf_counter() - before
    seconds = alternate(runs, options.rounds, options.clock)
    what = f"{recipe['name']} {recipe['width']}, {precision}"
    for name, peer in (("first", "channels first"), ("compiled", "torch.compile")):
        record.add(f"forward and backward, {what}", seconds["ours"], "s", peer, seconds[name])
    record.add(f"torch.compile, {what}, its first step", compiling, "s")


def basic_unet(width: int) -> nn.Module:
    from monai.networks.nets import BasicUNet

    return BasicUNet(2, 1, CLASSES, features=(width, 2 * width, 4 * width, 8 * width, 16 * width, width))


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--width", type=int, default=32, help="of the wide U-Net (%(default)s)")
    parser.add_argument("--nnunet", metavar="PYTHON", help="of an environment with `pip install nnunetv2`")
    options = parser.parse_args()
    device = start_torch(1, "float32", 2)
    options.clock = time.perf_counter if device.type == "cuda" else time.process_time
    options.auto = choose_precision(1)["2d"]["precision"]
    record = Record("training", "torch", "monai", "nnunetv2")
    wide = {"name": "unet", "width": options.width}
    for recipe in (*NARROW, wide) if device.type == "cpu" else ():  # kernels of a GPU run behind the program
        for precision in dict.fromkeys(("float32", options.auto)):
            share_outside(record, recipe, precision, options)
    for precision in dict.fromkeys(("float32", options.auto)):
        against_peers(record, wide, precision, device, options)
    against_nnunet(record, wide, device, options)
    for recipe in (NARROW[0], wide):
        variants(record, recipe, options.auto, device, options)
    if options.save:
        record.save()


if __name__ == "__main__":
    sys.exit(main())
