"""Scores of one case: time and memory, against the libraries that people score with.

    python benchmarks/metrics.py [--rounds 3] [--cases tumour organ brain …] [--slow] [--cold] [--whole-body]

Label maps of 256 x 256 x 180 voxels with three structures. Ours and the peers alternate within one process, so that a
busy machine slows all; times are CPU time (set OMP_NUM_THREADS=1), medians over rounds, and ratios medians of the
ratios. Memory is the peak of what NumPy allocates in one call (tracemalloc; the few megabytes of a k-d tree are not in
it). A peer that is not installed or fails is said to be absent: `pip install panoptica surface-distance medpy monai`.
--slow times MedPy and MONAI too, half a minute a case. --cold times a whole process that reads and scores ten cases.
--whole-body scores 512 x 512 x 600 voxels with 104 structures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

from lib.metrics import score_case

SHAPE = (256, 256, 180)
STRUCTURES = {"outer": 1, "middle": 2, "core": 3}
TOLERANCE = 2.0
CASES = ("tumour", "organ", "brain", "islands", "far", "noise", "random")
Pair = tuple[np.ndarray, np.ndarray]


def label_maps(name: str, shape: tuple[int, ...] = SHAPE) -> Pair:
    """Prediction and reference, in Fortran order as NIfTI files are read."""
    rng = np.random.default_rng(0)
    if name == "tumour":
        pair = shells(30, 1, shape, 0.12), shells(30, 2, shape, 0.12)
    elif name == "brain":
        field, change = bumps(rng, shape, 32), bumps(rng, shape, 32)
        inside = sum(
            np.linspace(-1, 1, n).reshape([-1 if a == i else 1 for a in range(3)]) ** 2 for i, n in enumerate(shape)
        )
        pair = tuple(
            np.where(inside < 0.93, 1 + np.digitize(f, (-0.12, 0.15)), 0) for f in (field + 0.3 * change, field)
        )
    elif name == "random":
        pair = tuple(rng.integers(0, 4, (2, *shape)))
    else:
        prediction, reference = shells(71, 2, shape, 0.06, other=5), shells(70, 2, shape, 0.06)
        if name == "far":
            prediction = np.roll(prediction, (40, 50), (0, 1))
        elif name == "noise":
            speckle = rng.random(shape) < 0.01
            prediction[speckle] = rng.integers(0, 4, np.count_nonzero(speckle))
        elif name == "islands":
            for corner in rng.integers(10, 170, (8, 3)):
                prediction[tuple(slice(c, c + 8) for c in corner)] = rng.integers(1, 4)
        pair = prediction, reference
    return tuple(np.asfortranarray(labels.astype(np.uint8)) for labels in pair)


def shells(radius: float, seed: int, shape: tuple[int, ...], wobble: float, other: int | None = None) -> np.ndarray:
    """Three nested structures of about this radius; `other` seeds a smaller change of their shape."""
    axes = np.ogrid[tuple(slice(0.5 - n / 2, n / 2) for n in shape)]
    distance = np.sqrt(sum(axis.astype(np.float32) ** 2 for axis in axes))
    distance *= 1 + wobble * bumps(np.random.default_rng(seed), shape, 16)
    if other is not None:
        distance *= 1 + 0.05 * bumps(np.random.default_rng(other), shape, 16)
    return np.digitize(-distance / radius, (-1, -0.75, -0.45))


def bumps(rng: np.random.Generator, shape: tuple[int, ...], cell: int) -> np.ndarray:
    """Smooth noise whose bumps are about `cell` voxels wide."""
    coarse = rng.standard_normal([n // cell + 2 for n in shape]).astype(np.float32)
    fine = ndimage.zoom(coarse, [n / c for n, c in zip(shape, coarse.shape, strict=True)], order=1)
    return ndimage.uniform_filter(fine, cell // 2)


def ours(prediction: np.ndarray, reference: np.ndarray) -> object:
    return score_case(prediction, reference, (1, 1, 1), STRUCTURES, TOLERANCE)


def panoptica() -> Callable:
    from panoptica import InputType, Metric, Panoptica_Evaluator

    evaluator = Panoptica_Evaluator(
        expected_input=InputType.MATCHED_INSTANCE,
        instance_metrics=[Metric.DSC, Metric.IOU, Metric.HD95, Metric.ASSD, Metric.NSD],
        global_metrics=[],
    )

    def run(prediction: np.ndarray, reference: np.ndarray) -> object:
        return evaluator.evaluate(prediction, reference, voxelspacing=(1.0, 1.0, 1.0), verbose=False)

    return run


def surface_distance() -> Callable:
    import surface_distance as s

    def run(prediction: np.ndarray, reference: np.ndarray) -> object:
        values = []
        for label in STRUCTURES.values():
            p, r = prediction == label, reference == label
            found = s.compute_surface_distances(r, p, (1, 1, 1))
            values += [s.compute_dice_coefficient(r, p), s.compute_robust_hausdorff(found, 95)]
            values += [s.compute_average_surface_distance(found), s.compute_surface_dice_at_tolerance(found, TOLERANCE)]
        return values

    return run


def medpy() -> Callable:
    from medpy.metric import binary as m

    def run(prediction: np.ndarray, reference: np.ndarray) -> object:
        pairs = [(prediction == label, reference == label) for label in STRUCTURES.values()]
        return [metric(*pair) for pair in pairs for metric in (m.dc, m.jc, m.hd95, m.assd)]  # it has no NSD

    return run


def monai() -> Callable:
    import torch
    from monai import metrics as m

    torch.set_num_threads(1)

    def run(prediction: np.ndarray, reference: np.ndarray) -> object:
        p, r = (
            torch.from_numpy(np.stack([labels == v for v in (0, *STRUCTURES.values())])[None].astype(np.float32))
            for labels in (prediction, reference)
        )
        spacing = (1.0, 1.0, 1.0)
        return [
            m.compute_dice(p, r, include_background=False),
            m.compute_iou(p, r, include_background=False),
            m.compute_hausdorff_distance(p, r, percentile=95, spacing=spacing),
            m.compute_average_surface_distance(p, r, symmetric=True, spacing=spacing),
            m.compute_surface_dice(p, r, [TOLERANCE] * 3, spacing=spacing),
        ]

    return run


def available(peers: dict[str, Callable], pair: Pair) -> dict[str, Callable]:
    """The peers that run; the others are named with their reason."""
    small = tuple(labels[96:160, 96:160, 60:120] for labels in pair)
    found = {}
    for name, build in peers.items():
        try:
            run = build()
            quietly(run, *small)
            found[name] = run
        except Exception as error:  # whatever keeps a peer from running
            print(f"absent: {name} ({type(error).__name__}: {str(error).splitlines()[0][:90]})")
    return found


def quietly(run: Callable, *pair: np.ndarray) -> object:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return run(*pair)


def seconds(run: Callable, pair: Pair) -> float:
    start = time.process_time()
    quietly(run, *pair)
    return time.process_time() - start


def peak_mib(run: Callable, pair: Pair) -> float:
    tracemalloc.start()
    quietly(run, *pair)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def compare(names: list[str], rounds: int, slow: bool) -> None:
    peers = {"panoptica": panoptica, "surface-distance": surface_distance}
    peers |= {"MONAI": monai, "MedPy": medpy} if slow else {}
    runs = {"ours": ours} | available(peers, label_maps("tumour"))
    quietly(ours, *(labels[96:160, 96:160, 60:120] for labels in label_maps("tumour")))  # imports
    print(f"\n{SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]} voxels, 3 structures: s (MiB) and how often ours goes into it")
    print(f"{'':10}{'ours':>16}" + "".join(f"{name:>26}" for name in list(runs)[1:]))
    for name in names:
        pair = label_maps(name)
        times: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(rounds):
            for key, run in runs.items():
                times[key].append(seconds(run, pair))
        line = f"{name:10}"
        for key, run in runs.items():
            cell = f"{np.median(times[key]):.3f} ({peak_mib(run, pair):.0f})"
            if key == "ours":
                line += f"{cell:>16}"
            else:
                ratio = np.median([t / o for t, o in zip(times[key], times["ours"], strict=True)])
                line += f"{cell:>18}{ratio:7.1f}x"
        print(line, flush=True)


def whole_body(rounds: int) -> None:
    """104 structures in a body of 512 x 512 x 600 voxels, most of it labelled."""
    shape = (512, 512, 600)
    rng = np.random.default_rng(0)
    centres = rng.random((104, 3)) * shape
    from scipy.spatial import cKDTree

    coarse = np.stack(np.meshgrid(*(np.arange(0, n, 8) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    near, which = cKDTree(centres).query(coarse)
    blocks = np.where(near < 60, which + 1, 0).astype(np.uint8).reshape([-(-n // 8) for n in shape])
    reference = np.asfortranarray(blocks.repeat(8, 0).repeat(8, 1).repeat(8, 2)[: shape[0], : shape[1], : shape[2]])
    prediction = np.asfortranarray(np.roll(reference, (2, 1), (0, 2)))
    structures = {f"s{i}": i for i in range(1, 105)}

    def run(p: np.ndarray, r: np.ndarray) -> object:
        return score_case(p, r, (0.9, 0.9, 1.5), structures, TOLERANCE)

    pair = prediction, reference
    taken = np.median([seconds(run, pair) for _ in range(rounds)])
    share = np.count_nonzero(reference) / reference.size
    print(f"\nwhole body {shape}, 104 structures in {share:.0%} of it: {taken:.1f} s, {peak_mib(run, pair):.0f} MiB")


def cold(count: int = 10) -> None:
    """A process that reads and scores `count` organ-like cases, as the rule `evaluate` does."""
    import nibabel as nib

    from lib.data.cases import Case, write_index
    from lib.files import write_json

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "predictions").mkdir()
        pair = label_maps("organ")
        cases = []
        for i in range(count):
            for path, labels in zip((f"predictions/c{i}.nii.gz", f"c{i}_label.nii.gz"), pair, strict=True):
                nib.save(nib.Nifti1Image(labels, np.eye(4)), root / path)
            nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), root / f"c{i}.nii.gz")
            files = {"image": str(root / f"c{i}.nii.gz")}, {"label": str(root / f"c{i}_label.nii.gz")}
            cases.append(Case(f"c{i}", f"c{i}", *files))
        write_index(root / "cases.csv", cases)
        write_json(root / "splits.json", {"folds": [{"test": [c.patient for c in cases]}], "groups": []})
        job = {
            "cell": {"dataset": "d", "condition": "clean", "protocol": "p", "method": "a+b", "architecture": "a",
                     "loss": "b", "fold": 0, "seed": 0},
            "index": str(root / "cases.csv"), "splits": str(root / "splits.json"), "palette": None, "ignore": [],
            "predictions": str(root / "predictions"), "structures": STRUCTURES, "output": str(root / "scores.csv"),
            "tolerance": {"mm": TOLERANCE, "px": 1.0}, "lesions": None,
        }  # fmt: skip
        write_json(root / "job.json", job)
        command = [sys.executable, "-m", "lib.child", "lib.evaluation:evaluate_cell", "job.json", "outcome.json"]
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": sys.path[0]}, check=True)
        wall, after = time.perf_counter() - start, os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"\ncold process, {count} organ cases: {used / count:.3f} s CPU, {wall / count:.3f} s wall per case")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=CASES, metavar="CASE")
    parser.add_argument("--slow", action="store_true", help="MedPy and MONAI too")
    parser.add_argument("--cold", action="store_true", help="a whole process, files and all")
    parser.add_argument("--whole-body", action="store_true", help="512 x 512 x 600 voxels")
    options = parser.parse_args()
    if options.cases:
        compare(options.cases, options.rounds, options.slow)
    if options.cold:
        cold()
    if options.whole_body:
        whole_body(options.rounds)
