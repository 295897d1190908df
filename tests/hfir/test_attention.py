"""Window attention against the same thing written out, pixel by pixel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hfir.blocks.attention import WAGFFN, GlobalTokens, TransposedAttention, WindowAttention, _relative_index

CHANNELS, HEADS = 6, 2
either = st.booleans()


def stirred_attention(window_size: int, *, shifted: bool, overlap: float = 0.0, num_tokens: int = 0) -> WindowAttention:
    attention = WindowAttention(CHANNELS, window_size, HEADS, shifted=shifted, overlap=overlap, num_tokens=num_tokens)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return attention


def window_of(place: int, size: int, *, shifted: bool) -> int:
    """Which window a row or column of the image belongs to; the first, if shifted, is half as wide."""
    return (place + size // 2) // size if shifted else place // size


def seen_from(place: int, side: int, size: int, border: int, *, shifted: bool) -> range:
    """Which rows or columns of the image a place sees: those of its window, and `border` more at each side."""
    start = window_of(place, size, shifted=shifted) * size - (size // 2 if shifted else 0)
    return range(max(0, start - border), min(side, start + size + border))


def naive(attention: WindowAttention, x: Tensor, *, shifted: bool) -> Tensor:
    """Attend with a softmax written out: each pixel sees the real pixels of its window and nothing else."""
    size, border, (h, w) = attention.window_size, attention.border, x.shape[2:]
    q, k, v = attention.qkv(x)[0].chunk(3)
    summaries = None if attention.tokens is None else attention.tokens(x)[0].T[None, :, :, None]
    _, token_k, token_v = (None,) * 3 if summaries is None else attention.qkv(summaries)[0, :, :, 0].chunk(3)
    pixels = [(i, j) for i in range(h) for j in range(w)]
    out = torch.zeros(CHANNELS, h, w)
    depth = CHANNELS // HEADS
    for i, j in pixels:
        rows, columns = (seen_from(at, side, size, border, shifted=shifted) for at, side in ((i, h), (j, w)))
        seen = [(r, c) for r in rows for c in columns]
        for head in range(HEADS):
            part = slice(head * depth, (head + 1) * depth)
            scores = []
            for r, c in seen:
                reach = size + border - 1
                offset = (i - r + reach) * (2 * reach + 1) + (j - c + reach)
                dot = (q[part, i, j] * k[part, r, c]).sum() / depth**0.5
                scores.append(dot + attention.position_bias[offset, head])
            values = [v[part, r, c] for r, c in seen]
            for t in range(0 if summaries is None else summaries.shape[2]):
                scores.append((q[part, i, j] * token_k[part, t]).sum() / depth**0.5 + attention.tokens.bias[head, t])
                values.append(attention.tokens.scale[part] * token_v[part, t])
            powers = torch.stack(scores).exp()
            for weight, value in zip(powers / powers.sum(), values, strict=True):
                out[part, i, j] += weight * value
    return attention.project(out[None])


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("overlap", "num_tokens"), [(0.0, 0), (0.5, 0), (0.0, 4), (0.5, 4)])
@pytest.mark.parametrize(("h", "w"), [(8, 12), (5, 7), (4, 3), (1, 6), (1, 1)])
def test_attention_equals_a_softmax_written_out(image, h: int, w: int, shifted: bool, overlap: float, num_tokens: int):
    attention = stirred_attention(4, shifted=shifted, overlap=overlap, num_tokens=num_tokens)
    x = image(1, CHANNELS, h, w)
    with torch.no_grad():
        expected = naive(attention, x, shifted=shifted)
        torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-4)


def test_the_offsets_of_a_window_of_two_are_numbered_by_hand():
    # Pixels (0,0), (0,1), (1,0), (1,1). Offset query - key, plus 1 to start at 0, is (row, column) in 3x3,
    # numbered row * 3 + column. The first row: (1,1), (1,0), (0,1), (0,0).
    assert _relative_index(2, 0).tolist() == [
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


@given(st.integers(1, 9), st.integers(1, 9), either, st.sampled_from([0.0, 0.5]))
def test_padding_never_leaks(image, h: int, w: int, shifted: bool, overlap: float):
    # Padding is written as zeros after qkv, so huge biases of k and v tell whether anyone looks at it:
    # with the same v at every real pixel, any weighted mean of real pixels is that v.
    attention = stirred_attention(4, shifted=shifted, overlap=overlap)
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


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("window_size", [4, 8, 12, 16])
def test_every_window_size_takes_any_image(image, window_size: int, overlap: float):
    attention = stirred_attention(window_size, shifted=True, overlap=overlap, num_tokens=8)
    block = WAGFFN(CHANNELS, attention, expansion=2.0, scale=0.1)
    for h, w in [(1, 1), (3, 17), (window_size, window_size)]:
        with torch.no_grad():
            y = block(image(2, CHANNELS, h, w))
        assert y.shape == (2, CHANNELS, h, w)
        assert y.isfinite().all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_attention_stays_finite(image, half: torch.dtype):
    attention = stirred_attention(4, shifted=True, overlap=0.5, num_tokens=4)
    with torch.no_grad(), torch.autocast("cpu", dtype=half):
        assert attention(image(1, CHANNELS, 7, 9)).isfinite().all()


def test_tokens_start_as_means_that_change_nothing_but_the_share_of_attention(image):
    tokens, x = GlobalTokens(CHANNELS, 4, HEADS), image(2, CHANNELS, 5, 9)
    with torch.no_grad():
        tokens.question.weight.zero_()
        torch.testing.assert_close(tokens(x), x.mean(dim=(2, 3))[:, None].expand(2, 4, CHANNELS))
    assert not tokens.scale.any()


def test_tokens_carry_what_is_far_away(image):
    near, far = (stirred_attention(4, shifted=False, num_tokens=n) for n in (0, 4))
    assert (11, 11) not in changed_by(near, image(1, CHANNELS, 12, 12), 0, 0)
    assert (11, 11) in changed_by(far, image(1, CHANNELS, 12, 12), 0, 0)


def test_attention_between_channels_equals_the_formula(image):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        attention, x = TransposedAttention(CHANNELS, HEADS), image(2, CHANNELS, 4, 7)
    with torch.no_grad():
        attention.temperature.copy_(torch.tensor([2.0, 0.5])[:, None, None])
        parts = attention.qkv(x).flatten(2).chunk(3, dim=1)
        out = []
        for q, k, v, sharp in zip(*(p.chunk(HEADS, dim=1) for p in parts), (2.0, 0.5), strict=True):
            cosines = torch.stack([torch.cosine_similarity(q[:, [i]], k, dim=2) for i in range(q.shape[1])], dim=1)
            out.append(torch.softmax(cosines * sharp, dim=2) @ v)
        expected = attention.project(torch.cat(out, dim=1).view_as(x))
        torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_attention_between_channels_costs_linearly_in_the_pixels():
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    with torch.device("meta"):
        for side in (16, 32):
            with FlopCounterMode(display=False) as counter:
                TransposedAttention(CHANNELS, HEADS)(torch.zeros(1, CHANNELS, side, side))
            counts.append(counter.get_total_flops())
    assert counts[1] == 4 * counts[0]
