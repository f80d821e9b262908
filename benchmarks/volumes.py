"""Volumes of 512 x 512 x 600 voxels: patches from storage, and sliding windows in bounded memory.

    python benchmarks/volumes.py [--shape 512 512 600] [--classes 4] [--patch 128] [--no-prediction] [--save]

A patch of 128 x 128 x 128 as a training draws it: CPU time of one thread with the file in the system's cache, and the
bytes that come from the disk without. Then what a training reads of a case before its first patch: the index of
foreground voxels against the label map. Then a prediction, from the stored image to the label map on the grid of a file
with half as many voxels along the last axis: peak of the memory that is not the files' own (RssAnon) beyond that at the
start, and CPU time. The network is one convolution of size 1, so that blending, resampling and argmax are what is
measured. MONAI's: `sliding_window_inference` with the same windows and weights, `interpolate`, argmax. Each runs in a
process of its own. Ten minutes and 10 GiB of memory; --classes 2 --shape 256 256 200 makes it one minute.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import bench
import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import nn

from lib.data.preprocess import restore
from lib.data.store import Store, foreground_voxels, write_voxels
from lib.inference.device import start_torch
from lib.inference.forward import GAUSSIAN_SIGMA, OVERLAP, predict_slabs
from lib.training.sampler import PatchSampler, TrainingCase

MIB = 2**20
CASE = "case"


def write_store(folder: Path, shape: list[int]) -> Store:
    """One case of noise with three spheres."""
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((1, *shape[1:]), np.float32)
    image = np.lib.format.open_memmap(folder / f"{CASE}.image.npy", "w+", np.float32, (1, *shape))
    label = np.lib.format.open_memmap(folder / f"{CASE}.label.npy", "w+", np.uint8, tuple(shape))
    _, *across = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    for row, height in enumerate(np.linspace(-1, 1, shape[0])):
        image[:, row] = np.roll(plane, row, -1)
        radius = np.sqrt(sum(axis**2 for axis in across) + height**2)[0]
        label[row] = np.digitize(-radius, (-0.8, -0.5, -0.2))
    write_voxels(folder / f"{CASE}.voxels.npy", foreground_voxels(label))
    return Store(folder, {})


def opened(store: Store) -> TrainingCase:
    return TrainingCase(store.image(CASE), store.label(CASE), np.ones(3), store.voxels(CASE))


def patches(record: bench.Record, store: Store, patch: int, rounds: int) -> None:
    sampler = PatchSampler([opened(store)], [patch] * 3, 1, 0.5, torch.Generator().manual_seed(0))
    seconds = bench.alternate({"ours": sampler.draw}, 10 * rounds)["ours"]
    what = f"patch of {patch}³ from {' x '.join(map(str, store.label(CASE).shape))}"
    record.add(what, 1000 * float(np.median(seconds)), "ms")
    read = []
    for _ in range(rounds):
        for kind in ("image", "label"):
            with (store.folder / f"{CASE}.{kind}.npy").open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        sampler.cases[0] = opened(store)
        before = psutil.Process().io_counters().read_bytes
        sampler.draw()
        read.append((psutil.Process().io_counters().read_bytes - before) / MIB)
    whole = (store.image(CASE).nbytes + store.label(CASE).nbytes) / MIB
    record.add("read from disk for it, cold", float(np.median(read)), "MiB", "the whole case", whole)
    seconds = bench.alternate(
        {"ours": lambda: store.voxels(CASE), "scan": lambda: foreground_voxels(store.label(CASE))}, rounds
    )
    times = {name: [1000 * s for s in of] for name, of in seconds.items()}
    record.add("foreground voxels of a case at the start", times["ours"], "ms", "from the label map", times["scan"])


def geometry_of(shape: list[int]) -> dict:
    """Of a file along the stored axes, with half as many voxels along the last."""
    file = [*shape[:2], shape[2] // 2]
    crop = [[0, n] for n in file]
    return {"shape": file, "orientation": [[0, 1], [1, 1], [2, 1]], "crop": crop, "axes": [0, 1, 2], "stored": shape}


def network(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv3d(1, classes, 1).eval()


def predict_ours(image: np.ndarray, classes: int, patch: list[int]) -> np.ndarray:
    slabs = predict_slabs(network(classes), image, patch, torch.device("cpu"))
    return restore(slabs, geometry_of(list(image.shape[1:])))


@torch.no_grad()
def predict_monai(image: np.ndarray, classes: int, patch: list[int]) -> np.ndarray:
    from monai.inferers import sliding_window_inference

    windows = {"sw_batch_size": 1, "overlap": OVERLAP, "mode": "gaussian", "sigma_scale": GAUSSIAN_SIGMA}
    model = network(classes)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # a memory map, and nobody writes
    volume = torch.from_numpy(np.asarray(image))[None]
    probabilities = sliding_window_inference(volume, patch, predictor=lambda x: model(x).softmax(1), **windows)
    size = geometry_of(list(image.shape[1:]))["shape"]
    return F.interpolate(probabilities, size, mode="trilinear").argmax(1)[0].to(torch.uint8).numpy()


def measured(predict: Callable, folder: Path, classes: int, patch: list[int]) -> tuple[float, float, np.ndarray]:
    """Peak memory in MiB beyond that at the start, CPU seconds, the label map; for a process of its own."""
    start_torch(1, "float32", 3)
    image = Store(folder, {}).image(CASE)
    predict(image[:, : patch[0], : patch[1], : patch[2]], classes, patch)  # imports and first calls
    before = peak = own_memory()
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.01):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    label = predict(image, classes, patch)
    seconds = time.process_time() - start
    over.set()
    watcher.join()
    return (peak - before) / MIB, seconds, label


def own_memory() -> int:
    """Bytes resident that no file backs."""
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


def predictions(record: bench.Record, store: Store, classes: int, patch: int) -> None:
    peaks, times, labels = {}, {}, {}
    for name, predict in {"ours": predict_ours, "MONAI": predict_monai}.items():
        with get_context("spawn").Pool(1) as pool:
            run = partial(measured, predict, store.folder, classes, [patch] * 3)
            peaks[name], times[name], labels[name] = pool.apply(run)
    what = f"prediction of {' x '.join(map(str, store.label(CASE).shape))}, {classes} classes"
    peer = "sliding_window_inference"
    record.add(f"{what}: memory", peaks["ours"], "MiB", peer, peaks["MONAI"], "ratio >= 2")
    record.add(f"{what}: time", times["ours"], "s", peer, times["MONAI"])
    equal = float(np.mean(labels["ours"] == labels["MONAI"]))
    record.add(f"voxels with the label that {peer} gives", 100 * equal, "%")


def main() -> None:
    parser = bench.arguments(__doc__)
    parser.add_argument("--shape", nargs=3, type=int, default=[512, 512, 600])
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--no-prediction", action="store_true")
    options = parser.parse_args()
    record = bench.Record("volumes", "numpy", "torch", "monai")
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), options.shape)
        patches(record, store, options.patch, options.rounds)
        if not options.no_prediction:
            predictions(record, store, options.classes, options.patch)
    if options.save:
        record.save()


if __name__ == "__main__":
    main()
