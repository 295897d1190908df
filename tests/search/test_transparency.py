"""Pictures with transparent pixels: what is hidden never shows, what is visible keeps its levels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hfir import HFIRConfig, build_model, fuse
from search.inference.networks import Restorer
from search.inference.pictures import Picture
from search.inference.restoring import restore_picture
from search.inference.transparency import fill_hidden
from search.tasks.resize import imresize

BACKGROUNDS = {"white": 1.0, "black": 0.0, "grey": 0.5}
Build = Callable[..., Restorer]


@pytest.fixture(scope="module")
def bicubic() -> Build:
    """Networks that enlarge bicubically, or at scale 1 give the picture back."""

    def build(*, upscale: int = 2, channels: int = 3, tile_px: int | None = None) -> Restorer:
        with torch.random.fork_rng(devices=[]):
            model = fuse(build_model(HFIRConfig(width=4, upscale=upscale, in_channels=channels))).eval()
        for parameter in model.head.parameters():
            nn.init.zeros_(parameter)
        return Restorer(model=model.requires_grad_(False), device=torch.device("cpu"), tile_px=tile_px, overlap_px=16)

    return build


def disc(side: int, radius: float, *, samples: int = 4) -> npt.NDArray[np.float64]:
    """Return the share of each pixel that a disc covers, `[h w 1]`."""
    places = (np.arange(side * samples) + 0.5) / samples - side / 2
    inside = (np.hypot(places[:, None], places) < radius).astype(float)
    return inside.reshape(side, samples, side, samples).mean(axis=(1, 3))[..., None]


def sprite(*, bits: int = 8, channels: int = 3, value: float = 1.0, side: int = 48) -> Picture:
    """Return a disc of one colour as programs write it: RGB is 0 where alpha is 0."""
    peak, dtype = 2**bits - 1, np.uint8 if bits == 8 else np.uint16
    alpha = np.round(disc(side, side * 0.35) * peak).astype(dtype)
    colour = np.where(alpha > 0, np.round(value * peak), 0).astype(dtype)
    return Picture(np.repeat(colour, channels, axis=-1), alpha)


def composited(picture: Picture, background: float) -> npt.NDArray[np.float64]:
    """Return a picture over a background, in levels of 8 bits."""
    assert picture.alpha is not None
    peak = np.iinfo(picture.colour.dtype).max
    alpha = picture.alpha / peak
    return 255 * (picture.colour / peak * alpha + background * (1 - alpha))


def premultiplied(picture: Picture, background: float, scale: int) -> npt.NDArray[np.float64]:
    """Return what bicubic enlargement of colour times alpha gives over a background, in levels of 8 bits."""
    assert picture.alpha is not None
    peak = np.iinfo(picture.colour.dtype).max
    alpha = picture.alpha / peak
    height, width = (scale * side for side in alpha.shape[:2])
    colour, alpha = (imresize(levels, height, width).clip(0, 1) for levels in (picture.colour / peak * alpha, alpha))
    return 255 * (colour + background * (1 - alpha))


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("tile_px", [None, 40])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("of_picture", "of_network"), [(3, 3), (1, 3), (3, 1), (1, 1)])
def test_a_white_sprite_has_no_dark_ring_over_any_background(
    bicubic: Build, background: str, tile_px: int | None, bits: int, of_picture: int, of_network: int
):
    before = sprite(bits=bits, channels=of_picture)
    after, grid = restore_picture(bicubic(channels=of_network, tile_px=tile_px), before, bits=bits)
    assert (grid.tiles > 1) is (tile_px is not None)
    expected = premultiplied(before, BACKGROUNDS[background], 2)
    assert np.abs(composited(after, BACKGROUNDS[background]) - expected).max() <= 1


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_coloured_sprite_is_as_near_to_the_truth_as_premultiplied_bicubic(bicubic: Build, background: str):
    """The truth: half of it red and half of it blue, at twice the size; the sprite is its mean over 2x2 pixels."""
    shade = np.where(np.arange(96)[None, :, None] < 48, [1.0, 0.0, 0.0], [0.0, 0.2, 1.0]) * np.ones((96, 1, 1))
    alpha = disc(96, 33)

    def halve(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return image.reshape(48, 2, 48, 2, -1).mean(axis=(1, 3))

    covered = halve(alpha)
    colour = np.divide(halve(shade * alpha), covered, where=covered > 0, out=np.zeros((48, 48, 3)))
    small = Picture(np.round(255 * colour).astype(np.uint8), np.round(255 * covered).astype(np.uint8))
    behind = BACKGROUNDS[background]
    truth = 255 * (shade * alpha + behind * (1 - alpha))
    after, _ = restore_picture(bicubic(), small, bits=8)
    ours, theirs = (
        float(np.sqrt(np.square(image - truth).mean()))
        for image in (composited(after, behind), premultiplied(small, behind, 2))
    )
    assert ours <= 1.01 * theirs


@pytest.mark.parametrize("bits", [8, 16])
def test_visible_pixels_keep_their_levels_and_hidden_ones_take_their_neighbours(bicubic: Build, bits: int):
    before = sprite(bits=bits, value=0.6)
    after, _ = restore_picture(bicubic(upscale=1), before, bits=bits)
    assert before.alpha is not None
    assert after.alpha is not None
    assert np.array_equal(after.alpha, before.alpha)
    assert np.unique(before.colour).size == 2
    assert np.unique(after.colour).tolist() == [round(0.6 * (2**bits - 1))]


def test_what_hides_nothing_or_everything_is_left_as_it_is():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    for alpha in (np.full((9, 7, 1), 255, np.uint8), np.ones((9, 7, 1), np.uint8), np.zeros((9, 7, 1), np.uint8)):
        assert fill_hidden(colour, alpha) is colour


def test_the_hidden_colour_has_no_say_in_the_result():
    alpha = np.where(disc(131, 40) > 0, 255, 0).astype(np.uint8)
    visible = np.random.default_rng(0).integers(0, 256, (131, 131, 3)).astype(np.uint8)
    one, other = (np.where(alpha > 0, visible, hidden).astype(np.uint8) for hidden in (0, 255))
    assert np.array_equal(fill_hidden(one, alpha), fill_hidden(other, alpha))


@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 99), share=st.floats(0, 1))
def test_a_fill_lies_between_the_visible_levels(height: int, width: int, seed: int, share: float):
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 2**16, (height, width, 1)).astype(np.uint16)
    alpha = np.where(rng.random((height, width, 1)) < share, rng.integers(1, 2**16, (height, width, 1)), 0)
    alpha = alpha.astype(np.uint16)
    filled, visible = fill_hidden(colour, alpha), alpha > 0
    assert np.array_equal(filled[visible], colour[visible])
    if visible.any():
        assert colour[visible].min() <= filled.min()
        assert filled.max() <= colour[visible].max()
