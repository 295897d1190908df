"""The PReLU is torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hfir.blocks.prelu import PReLU


def both(x: Tensor, weight: Tensor) -> list[tuple[Tensor, ...]]:
    """Return output and gradients of ours and of torch's."""
    found: list[tuple[Tensor, ...]] = []
    for make in (PReLU, nn.PReLU):
        act, given = make(x.shape[1]), x.clone().requires_grad_()
        act.weight.data.copy_(weight)
        y = act(given)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        assert act.weight.grad is not None
        assert given.grad is not None
        found.append((y.detach(), given.grad, act.weight.grad))
    return found


@pytest.mark.parametrize("channels", [1, 3, 8, 20])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_output_and_gradients_are_torchs(channels: int, layout: torch.memory_format):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 9, 7)
    x[0, 0, 0, :3] = torch.tensor([0.0, -0.0, 1e-40])
    ours, theirs = both(x.contiguous(memory_format=layout), torch.randn(channels))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert torch.allclose(ours[2], theirs[2], rtol=1e-5)
    assert ours[1].stride() == theirs[1].stride()


def test_the_quick_gradient_is_taken_on_a_cpu_alone_and_only_where_something_learns():
    x, act = torch.randn(1, 4, 3, 3), PReLU(4)
    assert "_PReLU" in str(act(x).grad_fn)
    with torch.no_grad():
        assert act(x).grad_fn is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "_PReLU" not in str(act(x).grad_fn)


def test_what_needs_no_gradient_gets_none():
    act = PReLU(4)
    act.weight.requires_grad_(False)
    x = torch.randn(1, 4, 3, 3, requires_grad=True)
    act(x).sum().backward()
    assert x.grad is not None
    assert act.weight.grad is None
