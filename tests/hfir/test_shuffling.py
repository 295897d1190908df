"""Pixel shuffle by copies: the same numbers as torch's, forward and backward, wherever the tensor lies."""

import pytest
import torch
import torch.nn.functional as F

from hfir.blocks.shuffling import FEW, shuffle, unshuffle

LAYOUTS = [torch.channels_last, torch.contiguous_format]
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=["channels last", "channels first"])
each_size = pytest.mark.parametrize(
    ("channels", "factor"), [(1, 2), (3, 2), (3, 3), (3, 4), (FEW - 1, 2), (FEW, 2), (FEW + 1, 3)]
)


@each_layout
@each_size
def test_both_ways_are_torchs_with_their_gradients(image, layout, channels: int, factor: int):
    for ours, theirs, shape in (
        (shuffle, F.pixel_shuffle, (2, channels * factor**2, 5, 4)),
        (unshuffle, F.pixel_unshuffle, (2, channels, 5 * factor, 4 * factor)),
    ):
        x = image(*shape).contiguous(memory_format=layout)
        one, other = (x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
        made, wanted = ours(one, factor), theirs(other, factor)
        assert torch.equal(made, wanted)
        weights = torch.arange(wanted.numel(), dtype=torch.float32).reshape(wanted.shape)
        (made * weights).sum().backward()
        (wanted * weights).sum().backward()
        assert torch.equal(one.grad, other.grad)
        assert made.is_contiguous(memory_format=layout) or channels == 1  # of one channel, layouts are alike


def test_one_undoes_the_other(image):
    x = image(1, 12, 6, 5).contiguous(memory_format=torch.channels_last)
    assert torch.equal(unshuffle(shuffle(x, 2), 2), x)


def test_a_gradient_in_another_layout_is_taken(image):
    x = image(1, 12, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = image(1, 3, 12, 10)  # channels first
    shuffle(x, 2).backward(weights)
    assert torch.equal(x.grad, F.pixel_unshuffle(weights, 2))


def test_compilers_and_exports_meet_the_shuffle_they_know(image):
    x = image(1, 12, 6, 5).contiguous(memory_format=torch.channels_last)

    class Net(torch.nn.Module):
        def forward(self, x):
            return unshuffle(shuffle(x, 2), 2)

    graph = torch.export.export(Net(), (x,)).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert called == ["aten.pixel_shuffle.default", "aten.pixel_unshuffle.default"]
