"""SegNet-Basic: the prototxt's table, and its forward pass from torch's own layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_variants import on_meta
from torch import nn

from lib.models import build_model
from lib.models.segnet_basic import local_response_norm


@pytest.mark.parametrize(("inputs", "outputs", "parameters"), [(3, 11, 1_416_587), (1, 4, 1_409_860)])
def test_parameter_counts_of_the_prototxt(inputs, outputs, parameters):
    model = on_meta({"name": "segnet_basic"}, inputs, outputs, 2)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_layers_in_order():
    model = on_meta({"name": "segnet_basic"}, 3, 11, 2).eval()
    order = []
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda m, _, y: order.append((type(m).__name__, y.shape[1], y.shape[2])))
    model(torch.rand(1, 3, 32, 32, device="meta"))
    expected = [(kind, 64, 32 >> k) for k in range(4) for kind in ("Conv2d", "BatchNorm2d", "ReLU")]
    expected += [(kind, 64, 32 >> k) for k in (3, 2, 1, 0) for kind in ("Conv2d", "BatchNorm2d")]
    assert order == [*expected, ("Conv2d", 11, 32)]


def test_initial_weights():
    torch.manual_seed(0)
    model = build_model({"name": "segnet_basic"}, 3, 11, 2)
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        assert not conv.bias.any()
        fan_in = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.06)
    assert all((m.bias == 0.001).all() for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("shape", [(2, 2, 37, 50), (1, 2, 17, 16, 18)])
def test_equals_a_plain_forward_pass(shape):
    torch.manual_seed(0)
    model = build_model({"name": "segnet_basic", "width": 4}, 2, 3, len(shape) - 2).eval()
    pool, unpool = (F.max_pool2d, F.max_unpool2d) if len(shape) == 4 else (F.max_pool3d, F.max_unpool3d)
    kinds = nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d
    *pairs, classifier = [layer for layer in model.modules() if isinstance(layer, kinds)]
    pairs = iter(zip(*[iter(pairs)] * 2, strict=True))
    x = 20 * torch.randn(shape)
    with torch.no_grad():
        y = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75)
        memory = []
        for _ in range(4):
            conv, norm = next(pairs)
            y = torch.relu(norm(conv(y)))
            size = y.shape[2:]
            y, indices = pool(y, 2, 2, return_indices=True)
            memory.append((indices, size))
        for conv, norm in pairs:
            indices, size = memory.pop()
            y = norm(conv(unpool(y.contiguous(), indices.contiguous(), 2, 2, output_size=size)))
        torch.testing.assert_close(model(x), classifier(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 4, 5), (1, 8, 3, 4, 5)])
def test_local_response_norm_equals_that_of_torch(shape):
    x = 100 * torch.randn(shape)
    torch.testing.assert_close(local_response_norm(x), F.local_response_norm(x, 5))
    if len(shape) == 4:
        torch.testing.assert_close(
            local_response_norm(x.to(memory_format=torch.channels_last)), F.local_response_norm(x, 5)
        )


def test_local_response_norm_by_hand():
    x = torch.tensor([100.0, 0.0, 200.0, 0.0, 0.0, 300.0]).view(1, 6, 1, 1)
    # Channel 0 sees 100² + 200²: 1 + 1e-4 · 50000 / 5 = 2; channel 2 the same; channel 5 sees 300² alone: 2.8.
    expected = [100 / 2**0.75, 0, 200 / 2**0.75, 0, 0, 300 / 2.8**0.75]
    torch.testing.assert_close(local_response_norm(x).flatten(), torch.tensor(expected))
