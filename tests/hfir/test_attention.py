"""Window attention against the same thing written out, pixel by pixel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hfir.blocks.attention import WAGFFN, WindowAttention, _relative_index

CHANNELS, HEADS = 6, 2
either = st.booleans()


def stirred_attention(window_size: int, *, shifted: bool) -> WindowAttention:
    attention = WindowAttention(CHANNELS, window_size, HEADS, shifted=shifted)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return attention


def window_of(place: int, size: int, *, shifted: bool) -> int:
    """Which window a row or column of the image belongs to; the first, if shifted, is half as wide."""
    return (place + size // 2) // size if shifted else place // size


def naive(attention: WindowAttention, x: Tensor, *, shifted: bool) -> Tensor:
    """Attend with a softmax written out: each pixel sees the real pixels of its window and nothing else."""
    size, (h, w) = attention.window_size, x.shape[2:]
    q, k, v = attention.qkv(x)[0].chunk(3)
    pixels = [(i, j) for i in range(h) for j in range(w)]
    out = torch.zeros(CHANNELS, h, w)
    depth = CHANNELS // HEADS
    for i, j in pixels:
        home = (window_of(i, size, shifted=shifted), window_of(j, size, shifted=shifted))
        seen = [
            (r, c)
            for r, c in pixels
            if (window_of(r, size, shifted=shifted), window_of(c, size, shifted=shifted)) == home
        ]
        for head in range(HEADS):
            part = slice(head * depth, (head + 1) * depth)
            scores = []
            for r, c in seen:
                offset = (i - r + size - 1) * (2 * size - 1) + (j - c + size - 1)
                dot = (q[part, i, j] * k[part, r, c]).sum() / depth**0.5
                scores.append(dot + attention.position_bias[offset, head])
            powers = torch.stack(scores).exp()
            for weight, (r, c) in zip(powers / powers.sum(), seen, strict=True):
                out[part, i, j] += weight * v[part, r, c]
    return attention.project(out[None])


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("h", "w"), [(8, 8), (5, 7), (4, 3), (1, 6), (1, 1)])
def test_attention_equals_a_softmax_written_out(image, h: int, w: int, shifted: bool):
    attention, x = stirred_attention(4, shifted=shifted), image(1, CHANNELS, h, w)
    with torch.no_grad():
        expected = naive(attention, x, shifted=shifted)
        torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-4)


def test_the_offsets_of_a_window_of_two_are_numbered_by_hand():
    # Pixels (0,0), (0,1), (1,0), (1,1). Offset query - key, plus 1 to start at 0, is (row, column) in 3x3,
    # numbered row * 3 + column. The first row: (1,1), (1,0), (0,1), (0,0).
    assert _relative_index(2).tolist() == [
        [4, 3, 1, 0],
        [5, 4, 2, 1],
        [7, 6, 4, 3],
        [8, 7, 5, 4],
    ]


def changed_by(attention: WindowAttention, x: Tensor, i: int, j: int) -> set[tuple[int, int]]:
    """Return the pixels of the output that change with one pixel of the input."""
    other = x.clone()
    other[..., i, j] += 3.0
    with torch.no_grad():
        differs = (attention(x) != attention(other)).any(dim=1)[0]
    return {(int(r), int(c)) for r, c in differs.nonzero()}


@given(st.integers(1, 13), st.integers(1, 13), either, st.data())
def test_a_pixel_changes_its_own_window_and_no_other(image, h: int, w: int, shifted: bool, data):
    i, j = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    rows, columns = (
        {r for r in range(n) if window_of(r, 4, shifted=shifted) == window_of(at, 4, shifted=shifted)}
        for n, at in ((h, i), (w, j))
    )
    attention = stirred_attention(4, shifted=shifted)
    own = {(r, c) for r in rows for c in columns}
    changed = changed_by(attention, image(1, CHANNELS, h, w), i, j)
    # A key that hardly counts may leave another pixel as it was; its own never.
    assert (i, j) in changed
    assert changed <= own


@pytest.mark.parametrize(("shifted", "side"), [(False, 4), (True, 2)])
def test_the_corner_reaches_its_window_and_does_not_wrap_around(image, shifted: bool, side: int):
    changed = changed_by(stirred_attention(4, shifted=shifted), image(1, CHANNELS, 12, 12), 0, 0)
    assert changed == {(r, c) for r in range(side) for c in range(side)}


@given(st.integers(1, 9), st.integers(1, 9), either)
def test_padding_never_leaks(image, h: int, w: int, shifted: bool):
    # Padding is written as zeros after qkv, so huge biases of k and v tell whether anyone looks at it:
    # with the same v at every real pixel, any weighted mean of real pixels is that v.
    attention = stirred_attention(4, shifted=shifted)
    with torch.no_grad():
        attention.qkv.weight[2 * CHANNELS :] = 0
        attention.qkv.bias[2 * CHANNELS :] = 100.0
        y = attention(image(1, CHANNELS, h, w))
        expected = attention.project(torch.full((1, CHANNELS, h, w), 100.0))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-3)


def test_shifted_windows_lie_elsewhere(image):
    plain, shifted = (stirred_attention(4, shifted=s) for s in (False, True))
    x = image(1, CHANNELS, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(plain(x), shifted(x), atol=1e-2)


@pytest.mark.parametrize("window_size", [4, 8, 12, 16])
def test_every_window_size_takes_any_image(image, window_size: int):
    block = WAGFFN(CHANNELS, window_size=window_size, num_heads=HEADS, expansion=2.0, scale=0.1, shifted=True)
    for h, w in [(1, 1), (3, 17), (window_size, window_size)]:
        with torch.no_grad():
            y = block(image(2, CHANNELS, h, w))
        assert y.shape == (2, CHANNELS, h, w)
        assert y.isfinite().all()


def test_bfloat16_attention_stays_finite(image):
    attention = stirred_attention(4, shifted=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention(image(1, CHANNELS, 7, 9)).isfinite().all()
