"""UNETR: the published count, MONAI's own forward pass, and inputs of other sizes than the one trained on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import build
from torch import Tensor, nn

from lib.errors import BadInput
from lib.models import build_model

SMALL = {"name": "unetr", "width": 4, "hidden": 24, "heads": 2, "layers": 12, "image_size": 32}


def of_monai(model: nn.Module, size: int, dims: int, grid: int) -> nn.Module:
    """MONAI's network for images of `size`, with the weights of `model`, whose embeddings have `grid` per axis."""
    from monai.networks.nets import UNETR

    network = UNETR(2, 3, size, feature_size=4, hidden_size=24, mlp_dim=96, num_heads=2, spatial_dims=dims)
    state = model.network.state_dict()
    name = "vit.patch_embedding.position_embeddings"
    maps = state[name].transpose(1, 2).reshape(1, 24, *[grid] * dims)
    mode = {2: "bilinear", 3: "trilinear"}[dims]
    state[name] = F.interpolate(maps, size=[size // 16] * dims, mode=mode).flatten(2).transpose(1, 2)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected and all("norm_cross_attn" in key for key in missing)
    return network.eval()


@pytest.mark.slow  # draws 93 million numbers
def test_parameter_count():
    """The paper has 92.58 M."""
    model = build({"name": "unetr"}, 3, channels=(1, 14))
    assert sum(p.numel() for p in model.parameters()) == 92_784_046


@pytest.mark.parametrize(("size", "dims"), [(32, 2), (80, 2), (16, 2), (32, 3), (48, 3)])
def test_equals_monai_with_interpolated_embeddings(size, dims):
    """At the size of the embeddings exactly MONAI's network; at others MONAI's network for that size."""
    model = build(SMALL, dims).eval()
    x = torch.rand(1, 2, *[size] * dims)
    reference = of_monai(model, size, dims, grid=2)
    if size == 16:  # one token: the network sees the image continued to the right
        x = torch.cat([x, x[..., -1:].expand(-1, -1, -1, 16)], 3)
        torch.testing.assert_close(model(x[..., :16]), model(x)[..., :16])
        return
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-5)


def test_embeddings_of_their_own_grid_are_untouched():
    model = build(SMALL)
    learned = model.network.vit.patch_embedding.position_embeddings
    assert model.position_embeddings([2, 2]) is learned
    with torch.no_grad():
        learned.copy_(torch.tensor([0.0, 4.0, 0.0, 4.0])[None, :, None].expand(1, 4, 24))  # rises to the right
    expected = torch.tensor([0.0, 1.0, 3.0, 4.0]).repeat(2)
    torch.testing.assert_close(model.position_embeddings([2, 4])[0, :, 5], expected)


@pytest.mark.slow
def test_trained_on_patches_it_segments_whole_slices():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    target = torch.zeros(2, 96, 96, dtype=torch.long)
    for case, (disk, square) in enumerate((((30, 33), (50, 48)), ((65, 27), (12, 50)))):
        target[case][(y - disk[0]) ** 2 + (x - disk[1]) ** 2 <= 18**2] = 1
        target[case, square[0] : square[0] + 32, square[1] : square[1] + 30] = 2
    image = torch.tensor([0.0, 1.0, -1.0])[target][:, None].repeat(1, 2, 1, 1) + 0.3 * torch.randn(2, 2, 96, 96)
    model = build(SMALL | {"width": 8, "hidden": 48, "layers": 4})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        corners = torch.randint(0, 65, (8, 2)).tolist()
        batch = [
            (image[i % 2, :, r : r + 32, c : c + 32], target[i % 2, r : r + 32, c : c + 32])
            for i, (r, c) in enumerate(corners)
        ]
        patches, labels = (torch.stack(part) for part in zip(*batch, strict=True))
        optimizer.zero_grad()
        F.cross_entropy(model(patches), labels).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = model.eval()(image).argmax(1)
    assert min(dice(predicted == c, target == c) for c in (1, 2)) > 0.9


def dice(a: Tensor, b: Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"heads": 5}, r"hidden \(24\) to be a multiple of heads \(5\)"),
        ({"layers": 6}, "4 or 8 or 12 layers, not 6"),
        ({"image_size": 40}, "image_size to be a multiple of 16, not 40"),
        ({"width": 0}, "integer width of at least 1, not 0"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_model(SMALL | recipe, 1, 2, 2)
