"""Encoders from weights on disk: loaded exactly, only by their hash, and every mismatch is named."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from model_variants import build

from lib.errors import BadInput

SMALL = {"name": "pvt_gcascade", "variant": "b0", "width": 4}


def recipe_with(path: Path) -> dict:
    return SMALL | {"weights": str(path), "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def saved(path: Path, change=lambda state: state) -> dict:
    """A recipe with the encoder of another seed, after `change`, in a file."""
    torch.save(change(build(SMALL, seed=7).encoder.state_dict()), path)
    return recipe_with(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state,
        lambda state: state | {"head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {
            "model": {f"backbone.{key}": value for key, value in state.items()} | {"decoder.x": torch.ones(1)}
        },
    ],
    ids=["bare", "with a classifier", "wrapped", "of a whole network"],
)
def test_loads_the_encoder_and_nothing_else(tmp_path, change):
    recipe = saved(tmp_path / "encoder.pth", change)
    model, scratch, other = build(recipe), build(SMALL), build(SMALL, seed=7)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, other.encoder.state_dict()[name])
    assert not torch.equal(scratch.encoder.patch_embed1.proj.weight, model.encoder.patch_embed1.proj.weight)
    assert torch.equal(model.classifiers[0].weight, scratch.classifiers[0].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "norm4.bias"}, "1 missing in the file: norm4.bias"),
        (lambda s: s | {"norm5.bias": torch.ones(1)}, "1 unknown to the network: norm5.bias"),
        (
            lambda s: s | {"norm4.bias": torch.ones(5)},
            r"1 of another shape: norm4.bias \(\(5,\) in the file, \(32,\) in the network\)",
        ),
        (
            lambda s: {f"x.{k}": v for k, v in s.items()},
            "missing in the file: block1.0.attn.kv.bias, .*, …; .* unknown",
        ),
        (lambda s: [1, 2], "are no state_dict"),
    ],
)
def test_mismatches_are_named(tmp_path, change, message):
    recipe = saved(tmp_path / "encoder.pth", change)
    with pytest.raises(BadInput, match=message):
        build(recipe)


def test_the_hash_must_be_that_of_the_file(tmp_path):
    recipe = saved(tmp_path / "encoder.pth")
    right = recipe.pop("weights_sha256")
    for wrong in ({}, {"weights_sha256": "0" * 64}):
        with pytest.raises(BadInput, match=f"write weights_sha256: {right}"):
            build(recipe | wrong)
    with pytest.raises(BadInput, match="weights_sha256 but no weights"):
        build(SMALL | {"weights_sha256": right})
    with pytest.raises(BadInput, match=r"'nowhere.pth' .* are no file \(seen from .*leave weights out"):
        build(recipe | {"weights": "nowhere.pth", "weights_sha256": right})


class _Code:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def test_files_that_could_run_code_are_refused(tmp_path):
    for name, content in (
        ("code.pth", pickle.dumps({"a": _Code()}, protocol=2)),
        ("text.pth", b"not weights"),
        ("empty.pth", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="cannot be read as a state_dict"):
            build(recipe_with(tmp_path / name))


def test_transformers_of_monai_take_encoders_too(tmp_path):
    unetr = {"name": "unetr", "width": 4, "hidden": 24, "heads": 2, "layers": 4, "image_size": 32}
    path = tmp_path / "unetr.pth"
    other = build(unetr, seed=7)
    torch.save(other.network.state_dict() | {"vit.blocks.0.norm_cross_attn.weight": torch.ones(24)}, path)
    model = build(unetr | {k: v for k, v in recipe_with(path).items() if k.startswith("weights")})
    for name, value in model.network.vit.state_dict().items():
        assert torch.equal(value, other.network.vit.state_dict()[name])
    swin = {"name": "swin_unetr", "width": 12, "window": 3}
    path, other = tmp_path / "swin.pth", build(swin, seed=7)
    torch.save(other.network.swinViT.state_dict(), path)
    model = build(swin | {k: v for k, v in recipe_with(path).items() if k.startswith("weights")})
    assert torch.equal(
        model.network.swinViT.layers3[0].blocks[1].attn.qkv.weight,
        other.network.swinViT.layers3[0].blocks[1].attn.qkv.weight,
    )
