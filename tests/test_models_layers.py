"""Deterministic resampling equals that of torch, with its gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lib.models.layers import max_unpool, resize_by_matrices, upsample_linear


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [(8, 6), (9, 7), (2, 2), (8, 6, 4), (9, 7, 5)])
def test_max_unpool_is_bit_equal_to_torch(size, channels_last, request):
    dims = len(size)
    pool, unpool = {2: (F.max_pool2d, F.max_unpool2d), 3: (F.max_pool3d, F.max_unpool3d)}[dims]
    x = torch.randn(2, 3, *size).relu()  # zeros: ties inside windows
    if channels_last:
        x = x.to(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[dims])
    _, indices = pool(x, 2, 2, return_indices=True)
    ours = torch.randn(indices.shape, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    expected = unpool(theirs, indices, 2, 2, output_size=size)
    upstream = torch.randn(2, 3, *size)
    expected.backward(upstream)

    request.getfixturevalue("deterministic")
    result = max_unpool(ours, indices, size)
    result.backward(upstream)
    assert torch.equal(result, expected)
    assert torch.equal(ours.grad, theirs.grad)


def test_torch_unpooling_still_raises_in_deterministic_mode(deterministic):
    """The reason for our own; once this fails, torch's may come back."""
    y, indices = F.max_pool2d(torch.rand(1, 1, 4, 4), 2, 2, return_indices=True)
    with pytest.raises(RuntimeError, match="deterministic"):
        F.max_unpool2d(y, indices, 2, 2)


@pytest.mark.parametrize("resize", [resize_by_matrices, upsample_linear])
@pytest.mark.parametrize(
    ("old", "new"),
    [((4, 5), (8, 10)), ((4, 5), (9, 11)), ((1, 3), (2, 7)), ((3, 2, 4), (6, 5, 9)), ((5, 1, 2), (10, 3, 4))],
)
def test_linear_upsampling_equals_interpolate_with_its_gradient(old, new, resize):
    ours = torch.randn(2, 3, *old, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    expected = F.interpolate(theirs, size=new, mode={2: "bilinear", 3: "trilinear"}[len(old)], align_corners=False)
    upstream = torch.randn(expected.shape)
    expected.backward(upstream)
    result = resize(ours, new)
    result.backward(upstream)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=2e-6)


def test_linear_upsampling_by_hand():
    row = torch.tensor([[[[0.0, 4.0]]]])
    expected = torch.tensor([[[[0.0, 1.0, 3.0, 4.0]] * 2]])
    assert torch.equal(resize_by_matrices(row, (2, 4)), expected)
    assert torch.equal(upsample_linear(row, (2, 4)), expected)
