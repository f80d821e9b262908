"""The auxiliary term: its identities, what a pair is, what it learns, and where its gradient goes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from model_variants import VARIANTS, build

from lib.errors import BadInput
from lib.losses import build_loss
from lib.losses.mutual_information import MutualInformation, bce_estimate, neighbourhoods
from lib.training.trainer import Features

SIZES = {"spatial_dims": 2, "image_channels": 1, "feature_channels": 6}


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, 50, generator=generator, dtype=torch.float64) * 3 + shift for shift in (1, -1))


def test_the_estimate_is_binary_cross_entropy_with_logits():
    positive, negative = scores()
    both = torch.cat([positive.flatten(), negative.flatten()])
    labels = torch.cat([torch.ones(200), torch.zeros(200)]).double()
    expected = F.binary_cross_entropy_with_logits(both, labels)
    assert bce_estimate(positive, negative).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_estimate_is_minus_half_the_jensen_shannon_information():
    positive, negative = scores()
    information = (-F.softplus(-positive)).mean() - F.softplus(negative).mean()  # Hjelm 2018, Nowozin 2016
    assert bce_estimate(positive, negative).item() == pytest.approx(-information.item() / 2, rel=1e-12)
    # Deep InfoMax's code shifts both expectations by log 2.
    e_positive = (math.log(2) - F.softplus(-positive)).mean()
    e_negative = (F.softplus(-negative) + negative - math.log(2)).mean()
    shifted = e_positive - e_negative
    assert shifted.item() == pytest.approx(2 * math.log(2) - 2 * bce_estimate(positive, negative).item(), rel=1e-12)
    assert bce_estimate(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2))


def test_scores_are_bilinear():
    torch.manual_seed(0)
    term = MutualInformation(width=5, positions=16, **SIZES)
    image, features = torch.randn(3, 1, 8, 8), torch.randn(3, 6, 2, 2)
    h = term.embed(neighbourhoods(image, 16))
    torch.manual_seed(7)
    h = term.embed(neighbourhoods(image, 16))
    s = torch.sigmoid(features.mean((2, 3)) @ term.project.weight.T + term.project.bias)
    pairs = torch.einsum("bph,hk,bk->bp", h, term.score.weight[0], s) + term.score.bias
    torch_bilinear = term.score(h, s.unsqueeze(1).repeat(1, h.shape[1], 1)).squeeze(2)
    torch.testing.assert_close(term.scores(h, s), torch_bilinear)
    wrong = torch.einsum("bph,hk,bk->bp", h[[2, 0, 1]], term.score.weight[0], s) + term.score.bias
    torch.manual_seed(7)
    value = term.auxiliary(image, features)
    assert value.item() == pytest.approx(bce_estimate(pairs, wrong).item(), rel=1e-5)
    assert term.score.bias.item() == 0


@pytest.mark.parametrize(
    ("size", "positions"), [((32, 32), 1024), ((64, 50), 1024), ((80, 80), 100), ((16, 20, 24), 500), ((5, 5), 9)]
)
def test_neighbourhoods_are_those_of_a_regular_grid(size, positions):
    image = torch.arange(math.prod(size)).float().view(1, 1, *size)
    torch.manual_seed(3)
    found = neighbourhoods(image, positions)[0]
    assert found.shape[1] == 3 ** len(size)
    assert positions / 3 < len(found) <= 1.4 * positions
    centres = found[:, 3 ** len(size) // 2].long()
    assert len(centres.unique()) == len(centres)
    padded = F.pad(image, [1, 1] * len(size), mode="replicate")[0, 0]
    for centre, values in zip(centres[::7], found[::7], strict=True):
        place = torch.unravel_index(centre, size)
        box = padded[tuple(slice(int(i), int(i) + 3) for i in place)]
        assert torch.equal(values, box.flatten())


def test_it_learns_which_image_the_features_are_of():
    """Features that are the mean intensity of the image: the estimate of the information rises from nothing."""
    torch.manual_seed(0)
    term = MutualInformation(width=16, positions=64, spatial_dims=2, image_channels=1, feature_channels=2)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.02)
    values = {"own": [], "noise": []}
    for kind in ("noise", "own"):
        for _ in range(150):
            level = torch.tensor([-2.0, 2.0])[torch.randperm(2)].repeat(4)
            image = level.view(-1, 1, 1, 1) + 0.3 * torch.randn(8, 1, 16, 16)
            features = level.view(-1, 1, 1, 1).expand(8, 2, 4, 4) if kind == "own" else torch.randn(8, 2, 4, 4)
            value = term.auxiliary(image, features)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values[kind].append(value.item())
    assert sum(values["noise"][-20:]) / 20 > 0.6  # of log 2 = 0.693: there is nothing to know
    assert sum(values["own"][-20:]) / 20 < 0.15


def test_a_batch_of_one_is_told_from_its_shuffled_pixels():
    torch.manual_seed(0)
    term = MutualInformation(width=16, positions=64, spatial_dims=2, image_channels=1, feature_channels=2)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.02)
    rows = torch.linspace(-2, 2, 16)
    image = (rows[:, None] + rows).view(1, 1, 16, 16)
    for _ in range(150):
        value = term.auxiliary(image, torch.ones(1, 2, 4, 4))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert value.item() < 0.4


def test_gradients_reach_the_features_and_not_the_logits():
    recipe = {
        "sum": [
            {"weight": 1, "loss": {"name": "cross_entropy"}},
            {"weight": {"from": 0.0, "to": 0.5}, "loss": {"name": "mutual_information", "width": 4}},
        ]
    }
    loss = build_loss(recipe, classes=3, **SIZES)
    plain = build_loss({"name": "cross_entropy"})
    logits, target = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(0, 3, (2, 8, 8))
    features = torch.randn(2, 6, 2, 2, requires_grad=True, dtype=torch.bfloat16)
    batch = {"image": torch.randn(2, 1, 8, 8), "features": features}
    at_start = loss(logits, target, iteration=0, iterations=10, **batch)
    assert at_start.item() == plain(logits, target).item()
    value = loss(logits, target, **batch)
    of_logits, of_features = torch.autograd.grad(value, [logits, features])
    torch.testing.assert_close(of_logits, torch.autograd.grad(plain(logits, target), logits)[0])
    assert of_features.dtype == torch.bfloat16 and of_features.any() and of_features.isfinite().all()

    # Once, whatever the levels of deep supervision and the regions.
    torch.manual_seed(0)
    extra = loss(logits, target, **batch) - plain(logits, target)
    torch.manual_seed(0)
    levels = [logits, logits[:, :, ::2, ::2]]
    assert (loss(levels, target, **batch) - plain(levels, target)).item() == pytest.approx(extra.item(), abs=1e-6)
    assert len(build_loss(recipe, classes=3, regions=[[1, 2], [2], [1]], **SIZES).terms[1]) == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_gradient_in_float64(batch):
    torch.manual_seed(0)
    term = MutualInformation(width=3, positions=1000, **SIZES).double()
    image, features = torch.randn(batch, 1, 6, 6), torch.randn(batch, 6, 2, 2, dtype=torch.float64, requires_grad=True)

    def value(features: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)  # which pixels are shuffled
        return term.auxiliary(image, features)

    assert torch.autograd.gradcheck(value, (features, *term.parameters()))


def test_bad_input_is_explained():
    recipe = {"sum": [{"weight": 1, "loss": {"name": name}} for name in ("dice", "mutual_information")]}
    with pytest.raises(BadInput, match="needs the sizes of the network's input and features"):
        build_loss(recipe, classes=3)
    with pytest.raises(BadInput, match="needs the image and the features of the network, and got none"):
        build_loss(recipe, classes=3, **SIZES)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))
    with pytest.raises(BadInput, match="needs width to be a number of at least 1, not 0"):
        MutualInformation(width=0, **SIZES)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_architectures_name_features_that_depend_on_the_image(variant):
    """(B, channels, *s), as many channels as were announced, and the gradient reaches the network."""
    dims = variant.dims[0]
    size = tuple(2 * n for n in variant.smallest(dims))
    network = build(variant.recipe, dims, channels=(1, 3)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    features = Features(network, variant.name)
    count = features.channels((1, 1, *size), torch.device("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    network(torch.randn(2, 1, *size))
    found = features.take()
    assert found.shape[:2] == (2, count) and found.dim() == 2 + dims
    assert (found[0] != found[1]).any()
    assert features.take() is None
    gradients = torch.autograd.grad(found.float().square().sum(), list(network.parameters()), allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in gradients)
