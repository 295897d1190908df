"""Padding by the border: the same function however it is written."""

import pytest
import torch
import torch.nn.functional as F

from hfir.blocks.padding import repeat_border


@pytest.mark.parametrize("sides", [(2, 2, 2, 2), (0, 1, 0, 3), (4, 0, 1, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 2, 1, 1)])
def test_values_and_gradients_are_those_of_torchs_padding(image, monkeypatch: pytest.MonkeyPatch, sides, shape):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    ours, torchs = (image(*shape).requires_grad_() for _ in range(2))
    by_parts, whole = repeat_border(ours, sides), F.pad(torchs, sides, mode="replicate")
    assert torch.equal(by_parts, whole)
    for y in (by_parts, whole):
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    torch.testing.assert_close(ours.grad, torchs.grad)
