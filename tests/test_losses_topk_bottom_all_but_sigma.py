"""The envelope: limits, brute-force selection, a derivative that does not jump, and whether it drops the wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from lib.errors import BadInput
from lib.losses import build_loss
from lib.losses.topk_bottom_all_but_sigma import envelope, image_weights, pixel_weights
from lib.models import build_model

NAME = "topk_bottom_all_but_sigma"
SHAPES = [(4, 4, 13, 10), (3, 4, 6, 7, 9)]


def data(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def brute_force(losses: np.ndarray, keep: float, drop: float, mode: str, beta: float) -> float:
    """Image by image with sorted lists; losses (B, *S)."""
    means = []
    for image in losses.reshape(len(losses), -1):
        ascending = np.sort(image)
        if mode == "std":
            threshold = image.mean() + drop * image.std()
            dropped = (image > threshold).sum()
        else:
            dropped = round(drop * image.size) if mode == "fraction" else drop
            threshold = (ascending[-dropped - 1] + ascending[-dropped]) / 2 if dropped else np.inf
        if beta:
            weight = 1 / (1 + np.exp(-(threshold - image) / (beta * image.std())))
            means.append((weight * image).sum() / weight.sum())
        else:
            means.append(ascending[: image.size - dropped].mean())
    means = np.array(means)
    k = max(1, int(keep * len(means) + 0.5))
    descending = np.sort(means)[::-1]
    if not beta or k == len(means):
        return descending[:k].mean()
    weight = 1 / (1 + np.exp(-(means - descending[k - 1 : k + 1].mean()) / (beta * means.std())))
    return (weight * means).sum() / weight.sum()


# Values


def test_value_by_hand():
    """Three images of four pixels; the largest pixel of each is dropped, the image of mean 1 is dropped."""
    losses = torch.tensor([[1.0, 1, 1, 90], [2, 80, 4, 3], [70, 5, 5, 5]])
    assert envelope(losses, 0.7, 0.25, "fraction", 0).item() == pytest.approx((3 + 5) / 2)
    assert envelope(losses, 0.7, 1, "count", 0).item() == pytest.approx((3 + 5) / 2)
    assert envelope(losses, 0.7, 1.5, "std", 0).item() == pytest.approx((3 + 5) / 2)
    assert envelope(losses, 0.2, 0.25, "fraction", 0).item() == pytest.approx(5)
    assert envelope(losses, 1, 3, "count", 0).item() == pytest.approx((1 + 2 + 5) / 3)
    assert envelope(losses, 1, 99, "count", 0).item() == pytest.approx((1 + 2 + 5) / 3)  # at least one pixel stays


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("beta", [0, 0.1, 1])
@pytest.mark.parametrize(("mode", "drop"), [("fraction", 0.1), ("fraction", 0), ("count", 7), ("std", 1), ("std", 0)])
@pytest.mark.parametrize("keep", [0.1, 0.5, 1])
def test_value_equals_brute_force(keep, mode, drop, beta, shape):
    logits, target = data(shape)
    each = F.cross_entropy(logits, target, reduction="none").detach().numpy()
    expected = brute_force(each, keep, drop, mode, beta)
    loss = build_loss({"name": NAME, "keep_images": keep, "drop_pixels": drop, "sigma_mode": mode, "beta": beta})
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-9)
    assert loss(logits.float(), target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("beta", [0, 0.1, 3])
def test_keeping_everything_is_the_plain_mean(beta):
    logits, target = data((3, 4, 9, 9))
    loss = build_loss({"name": NAME, "keep_images": 1, "drop_pixels": 0, "beta": beta})
    plain = F.cross_entropy(logits, target)
    assert loss(logits, target).item() == pytest.approx(plain.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss(logits, target), plain)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    far = build_loss({"name": NAME, "keep_images": 1, "drop_pixels": 1e9, "sigma_mode": "std", "beta": beta})
    assert far(logits, target).item() == pytest.approx(plain.item(), rel=1e-9)


@pytest.mark.parametrize(("mode", "drop"), [("fraction", 0.1), ("count", 7), ("std", 1)])
def test_beta_towards_zero_is_hard_selection(mode, drop):
    losses = torch.rand(5, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hard, smooth = (envelope(losses, 0.5, drop, mode, beta) for beta in (0, 1e-6))
    assert smooth.item() == pytest.approx(hard.item(), rel=1e-9)


@pytest.mark.parametrize("beta", [0, 0.1])
def test_a_batch_of_one_image_keeps_it(beta):
    losses = torch.rand(1, 200, generator=torch.Generator().manual_seed(0))
    for keep in (0.01, 0.5, 1):
        assert image_weights(losses.mean(1), keep, beta).tolist() == [1]
    assert torch.equal(envelope(losses, 0.01, 0.1, "fraction", beta), envelope(losses, 1, 0.1, "fraction", beta))


@pytest.mark.parametrize("beta", [0, 0.1])
@pytest.mark.parametrize("mode", ["fraction", "count", "std"])
def test_equal_losses_are_weighed_equally(mode, beta):
    losses = torch.full((3, 50), 0.1, requires_grad=True)
    value = envelope(losses, 0.4, 1 if mode == "count" else 0.1, mode, beta)
    assert value.item() == pytest.approx(0.1)
    assert torch.autograd.grad(value, losses)[0].flatten().tolist() == pytest.approx([1 / 150] * 150)


# Derivatives


def sweep(beta: float, steps: int, level: str) -> tuple[np.ndarray, np.ndarray]:
    """One loss moves through the threshold in `steps` steps: the envelope and its derivative with respect to that loss."""
    fixed = torch.linspace(0, 1, 50, dtype=torch.float64)
    values, slopes = [], []
    for moving in np.linspace(0.7, 0.9, steps + 1):
        leaf = torch.tensor(moving, dtype=torch.float64, requires_grad=True)
        losses = torch.cat([leaf.view(1), fixed])
        if level == "pixel":
            value = envelope(losses.view(1, -1), 1, 0.2, "fraction", beta)
        else:
            value = envelope(losses.view(-1, 1), 0.2, 0, "fraction", beta)
        values.append(value.item())
        slopes.append(torch.autograd.grad(value, leaf)[0].item())
    return np.array(values), np.array(slopes)


@pytest.mark.parametrize("level", ["pixel", "image"])
def test_the_smoothed_derivative_is_continuous_where_the_hard_one_jumps(level):
    """Largest change of the derivative between neighbouring points, with 100 and with 800 points."""
    jumps = {beta: [np.abs(np.diff(sweep(beta, steps, level)[1])).max() for steps in (100, 800)] for beta in (0, 0.1)}
    kept = 41 if level == "pixel" else 10
    assert jumps[0] == pytest.approx([1 / kept] * 2, rel=1e-9)  # the whole weight at once, however small the step
    assert jumps[0.1][1] < jumps[0.1][0] / 6  # shrinks with the step
    assert jumps[0.1][0] < 0.2 / kept


@pytest.mark.parametrize("level", ["pixel", "image"])
def test_the_hard_derivative_is_that_of_finite_differences(level):
    values, slopes = sweep(0, 200, level)
    differences = np.diff(values) / 1e-3
    away = np.abs(np.diff(slopes)) == 0
    assert away.sum() >= 195
    np.testing.assert_allclose(differences[away], slopes[1:][away], atol=1e-9)


def test_gradient_of_the_smoothed_loss_is_the_normalised_weight():
    losses = torch.rand(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    gradient = torch.autograd.grad(envelope(losses, 0.5, 0.2, "fraction", 0.3), losses)[0]
    w = pixel_weights(losses.detach(), 0.2, "fraction", 0.3)
    w = w / w.sum(1, keepdim=True)
    v = image_weights((w * losses.detach()).sum(1), 0.5, 0.3)
    torch.testing.assert_close(gradient, (v / v.sum()).unsqueeze(1) * w)
    assert (gradient > 0).all()


@pytest.mark.parametrize(("mode", "drop"), [("fraction", 0.3), ("count", 2), ("std", 1)])
def test_gradient_of_hard_selection_in_float64(mode, drop):
    for shape in ((3, 3, 3, 4), (2, 3, 2, 2, 3)):
        logits, target = data(shape)
        loss = build_loss({"name": NAME, "drop_pixels": drop, "sigma_mode": mode})
        assert torch.autograd.gradcheck(lambda z, f=loss, y=target: f(z, y), logits)


# Wrong labels


def flipped_labels(contrast: float, share: float = 0.03):
    """Two-class images whose intensities are Gaussian with unit noise, the logits of the ideal classifier of single
    pixels, and labels of which exactly `share` are flipped at random."""
    rng = np.random.default_rng(0)
    smooth = np.stack([ndimage.gaussian_filter(image, 4) for image in rng.normal(size=(4, 100, 100))])
    truth = smooth > 0
    intensity = truth * contrast + rng.normal(size=truth.shape)
    logits = np.stack([np.zeros(truth.shape), contrast * intensity - contrast**2 / 2], 1)
    flipped = np.zeros(truth.shape, bool)
    for image in flipped:
        image.ravel()[rng.choice(image.size, round(share * image.size), replace=False)] = True
    return torch.from_numpy(logits), torch.from_numpy((truth ^ flipped).astype(np.int64)), flipped


@pytest.mark.parametrize(
    ("contrast", "drop", "precision", "recall"),
    [
        (6, 0.03, 0.994, 0.994),  # classes overlap in 0.1 % of pixels
        (4, 0.03, 0.899, 0.899),  # in 2.3 %: the ideal classifier's own mistakes look the same as wrong labels
        (4, 0.06, 0.494, 0.988),
        (2, 0.03, 0.448, 0.448),  # in 16 %: more than half of what is dropped is hard, not wrong
    ],
)
def test_dropped_pixels_and_flipped_labels(contrast, drop, precision, recall):
    """Precision and recall, as measured, of the dropped pixels as detections of the 3 % flipped labels, under the best
    possible pixel classifier. Mostly the flipped ones where the classes are well apart, and otherwise not."""
    logits, target, flipped = flipped_labels(contrast)
    losses = F.cross_entropy(logits, target, reduction="none").flatten(1)
    dropped = pixel_weights(losses, drop, "fraction", 0).reshape(target.shape).numpy() < 0.5
    hits = (dropped & flipped).sum()
    found = hits / dropped.sum(), hits / flipped.sum()
    assert found == pytest.approx((precision, recall), abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("contrast", [4, 2])
def test_dropped_pixels_of_a_network_that_learnt_from_the_wrong_labels(contrast):
    """A small U-Net sees what single pixels do not tell. Measured precision (= recall: as many are dropped as flipped) of
    the 3 % largest losses after training: 0.76 and 0.75 with cross-entropy, 0.91 and 0.90 with the envelope; pixels that
    agree with the true labels: 98.5 % and 99.4 %."""
    logits, target, flipped = flipped_labels(contrast)
    image = (logits[:, 1:] / contrast + contrast / 2).float()
    precision, agreement = {}, {}
    for name in ("cross_entropy", NAME):
        torch.manual_seed(0)
        network = build_model({"name": "unet", "width": 4}, 1, 2, 2)
        loss = build_loss({"name": name} | ({"keep_images": 1, "drop_pixels": 0.03} if name == NAME else {}))
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            loss(network(image), target).backward()
            optimizer.step()
        with torch.no_grad():
            output = network(image)
        each = F.cross_entropy(output, target, reduction="none").flatten(1)
        dropped = pixel_weights(each, 0.03, "fraction", 0).reshape(target.shape).numpy() < 0.5
        precision[name] = (dropped & flipped).sum() / dropped.sum()
        agreement[name] = (output.argmax(1).numpy() == (target.numpy() ^ flipped)).mean()
    assert precision[NAME] > 0.85 and precision[NAME] > precision["cross_entropy"] + 0.08
    assert agreement[NAME] > 0.99 and agreement[NAME] > agreement["cross_entropy"] + 0.005


# Recipes


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"keep_images": 0}, "keeps nothing"),
        ({"keep_images": 2}, "needs keep_images to be a number from 0 to 1, not 2"),
        ({"drop_pixels": 1}, "cannot drop the fraction 1 of the pixels"),
        ({"drop_pixels": -0.1}, "needs drop_pixels to be a number of at least 0"),
        ({"drop_pixels": 2.5, "sigma_mode": "count"}, "needs a whole number of drop_pixels, not 2.5"),
        ({"sigma_mode": "fractoin"}, "no sigma_mode 'fractoin'. Did you mean 'fraction'"),
        ({"beta": -1}, "needs beta to be a number of at least 0"),
    ],
)
def test_bad_recipes_are_explained(recipe, message):
    with pytest.raises(BadInput, match=message):
        build_loss({"name": NAME, **recipe})
