"""Depth-wise convolutions: the same function and the same gradients as torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hfir.blocks import conv
from hfir.blocks.conv import Depthwise, depthwise

both_layouts = pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])


def made(channels: int, sides: tuple[int, int], kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, a kernel and a bias."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *sides, generator=generator)
    return x, torch.randn(channels, 1, kernel, kernel, generator=generator), torch.randn(channels, generator=generator)


def gradients(function, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = function(*leaves)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves)]


@both_layouts
@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 13])
@pytest.mark.parametrize("sides", [(12, 17), (3, 2)])
@pytest.mark.parametrize("padded", [True, False])
def test_values_and_gradients_are_those_of_a_plain_convolution(kernel: int, sides, padded: bool, layout):
    if not padded:
        sides = (sides[0] + kernel - 1, sides[1] + kernel - 1)
    padding = kernel // 2 if padded else 0
    x, weight, bias = made(5, sides, kernel)
    x = x.contiguous(memory_format=layout)
    ours = gradients(lambda x, w, b: depthwise(x, w, b, padding=padding), x, weight, bias)
    plain = gradients(lambda x, w, b: F.conv2d(x, w, b, padding=padding, groups=5), x, weight, bias)
    for own, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_a_wide_kernel_learns_by_columns_and_a_narrow_one_does_not(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    own = conv._gradient

    def noted(grad, x, weight, padding, of):
        seen.extend([weight.shape[3]] if of else [])
        return own(grad, x, weight, padding, of)

    monkeypatch.setattr(conv, "_gradient", noted)
    for kernel in (3, 7):
        Depthwise(4, kernel)(torch.randn(1, 4, 9, 9)).sum().backward()
    assert seen == [3, 3, 1]


def test_what_does_not_learn_is_torchs_own_convolution():
    layer = Depthwise(4, 7)
    with torch.no_grad():
        assert layer(torch.randn(1, 4, 9, 9)).grad_fn is None
    layer.requires_grad_(False)
    y = layer(torch.randn(1, 4, 9, 9, requires_grad=True))
    assert "Convolution" in type(y.grad_fn).__name__
    y = Depthwise(4, 7).double()(torch.randn(1, 4, 9, 9).double())
    assert "Convolution" in type(y.grad_fn).__name__
