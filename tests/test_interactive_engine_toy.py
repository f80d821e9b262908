"""BIFSeg from end to end on blobs: a network that has seen bright ones meets, with a user, bright and dark ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_interactive_engine import box_job
from tiny_store import SPLITS, restore_torch, tiny_store  # noqa: F401

from lib.data.store import open_store
from lib.files import read_json, write_json
from lib.interactive import METHODS
from lib.interactive.instances import crop, instances_of, jittered_box, members_of, of_instance
from lib.interactive.networks import train_network
from lib.interactive.robot import Robot
from lib.interactive.session import play

KINDS = {"bright": 10, "dark": 20}  # seen, unseen


def blobs(rng: np.random.Generator, shape=(12, 64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Slices with a bright blob on the left and a dark one on the right, on a smooth ground with noise."""
    image, label = np.empty(shape, np.float32), np.zeros(shape, np.uint8)
    for number in range(shape[0]):
        ground = gaussian_filter(rng.normal(0, 1, shape[1:]), 6)
        ground /= ground.std() * 4
        for kind, centre in ((1, 16), (2, 48)):
            field = gaussian_filter(rng.normal(0, 1, shape[1:]), 4)
            field *= 0.25 / field.std()
            rows, columns = np.ogrid[: shape[1], : shape[2]]
            radius = np.hypot(rows - 32 + rng.uniform(-4, 4), columns - centre) / rng.uniform(8, 12)
            inside = radius + field < 1
            inside &= (columns < 31) if kind == 1 else (columns > 32)
            label[number][inside] = kind
            ground = np.where(inside, 1.6 if kind == 1 else -1.6, ground)
        image[number] = ground + rng.normal(0, 0.25, shape[1:])
    return image[None], label


@pytest.mark.slow
def test_weights_help_on_an_unseen_kind(tmp_path):
    """The ordering of the paper on objects that the network has not seen, with the robot as the user."""
    tiny_store(tmp_path)
    meta = read_json(tmp_path / "store/store.json")
    for number, case in enumerate(meta["cases"]):
        image, label = blobs(np.random.default_rng(number))
        np.save(tmp_path / f"store/{case}.image.npy", image)
        np.save(tmp_path / f"store/{case}.label.npy", label)
        meta["cases"][case] |= {"shape": list(label.shape), "spacing": [1.0, 1.0, 1.0]}
    write_json(tmp_path / "store/store.json", meta)
    model = {"name": "pnet", "width": 8, "dropout": 0.2}
    instances = {"structures": KINDS, "seen": ["bright"], "size": 40, "margin": 6}
    training = {"iterations": 300, "validate_every": 150, "lr": 1e-2, "momentum": 0.9}
    assert train_network(box_job(tmp_path, "network", model, instances, **training))["validation_dice"] > 0.95

    store = open_store(tmp_path / "store")
    image, label = store.image("p4_a", "test"), store.label("p4_a", "train")
    dice = {}
    for ablation in ("network", "graph_cut", "unweighted", "weighted"):
        method = METHODS.get("bifseg")(network=tmp_path / "network", ablation=ablation)
        for one in instances_of(label, members_of(KINDS), 2, case="p4_a", patient="p4", slices_per_case=4):
            here = of_instance(label, one)
            box = jittered_box(one, here.shape, 6, np.random.default_rng(one.slice_index))
            mask = here[box] == 1 + list(KINDS).index(one.structure)
            rounds = play(method, crop(of_instance(image, one), box, (1.0, 1.0)), mask, Robot(seed=0), 4, 1.0)
            dice.setdefault((one.structure, ablation), []).append(rounds[-1].dice)
    dice = {key: np.mean(values) for key, values in dice.items()}
    assert all(dice["bright", ablation] > 0.97 for ablation in ("network", "graph_cut", "unweighted", "weighted"))
    assert dice["dark", "network"] < 0.1
    assert dice["dark", "network"] < dice["dark", "graph_cut"] < dice["dark", "unweighted"] < dice["dark", "weighted"]
    assert dice["dark", "weighted"] > 0.8
