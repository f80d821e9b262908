"""Weights of an encoder from a file of the user; without one, every network starts from freshly drawn weights.

The recipe names the file and its SHA-256: `{name: pvt_gcascade, weights: models/pvt_v2_b2.pth, weights_sha256: 3f…}`.
So the hash is part of the cell's identity, another file means another recipe, and the report, which prints recipes,
says which weights a network started from.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from torch import nn

from lib.errors import BadInput

SHOWN = 3  # keys that an error names


def load_encoder(
    architecture: str,
    encoder: nn.Module,
    weights: str | None,
    weights_sha256: str | None,
    prefix: str,
    ignored: tuple[str, ...] = (),
) -> None:
    """Load the weights of `encoder` from the file `weights`; does nothing where that is None.

    The file holds a state_dict (nothing that could run code), bare or under the key `state_dict` or `model`, of the
    encoder alone or of a network that names it `prefix`; names may start with `module.`. Keys that contain one of
    `ignored`, such as a classification head, are left out; everything else must match in name and shape.
    Raises BadInput for a missing file, another hash, or a mismatch, with the keys.
    """
    if weights is None:
        if weights_sha256 is not None:
            raise BadInput(f"The architecture '{architecture}' has weights_sha256 but no weights; give the file too.")
        return
    where = f"The weights '{weights}' of the architecture '{architecture}'"
    path = Path(weights).expanduser()
    if not path.is_file():
        raise BadInput(f"{where} are no file (seen from {Path.cwd()}); correct the path, or leave weights out.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if weights_sha256 != found:
        raise BadInput(
            f"{where} have the SHA-256 {found}, but the recipe says {weights_sha256}. If this is the file that you "
            f"mean, write weights_sha256: {found}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise BadInput(f"{where} cannot be read as a state_dict of tensors: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{where} are no state_dict (names and tensors).")

    state = {key.removeprefix("module."): value for key, value in state.items()}
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    state = {key: value for key, value in (inside or state).items() if not any(word in key for word in ignored)}
    expected = encoder.state_dict()
    problems = {
        "missing in the file": sorted(expected.keys() - state.keys()),
        "unknown to the network": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{key} ({tuple(state[key].shape)} in the file, {tuple(expected[key].shape)} in the network)"
            for key in sorted(expected.keys() & state.keys())
            if state[key].shape != expected[key].shape
        ],
    }
    if any(problems.values()):
        parts = [
            f"{len(keys)} {kind}: {', '.join(keys[:SHOWN])}{', …' if len(keys) > SHOWN else ''}"
            for kind, keys in problems.items()
            if keys
        ]
        raise BadInput(f"{where} do not fit its encoder. Parameters {'; '.join(parts)}.")
    encoder.load_state_dict(state)
