"""Tiles: that they cover, blend without a seam, keep to memory, and say so when they shrink."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hfir import (
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    MoEConfig,
    TilingError,
    WindowAttentionConfig,
    build_model,
    restore_tiled,
)
from hfir.blocks.image import BicubicBase
from hfir.blocks.naf import ChannelAttention
from hfir.tiling import (
    PassMemory,
    TileGrid,
    check_tile,
    is_out_of_memory,
    restore_parts,
    tile_grid,
    tile_side_px,
)


def enlarge(x, scale=2):
    """Nearest enlargement: looks at nothing but the pixel itself."""
    return F.interpolate(x, scale_factor=scale, mode="nearest")


def run(network, x, *, scale, tile_px, overlap_px=32, alignment_px=1, on_tile=None):
    """Restore `x` and return the result, which starts as NaN, and the grid."""
    h, w = x.shape[-2:]
    y = torch.full((1, x.shape[1], h * scale, w * scale), math.nan)

    def write(top, left, part):
        y[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part

    def read(window):
        return x[..., window.rows.start : window.rows.stop, window.columns.start : window.columns.stop]

    options = {"scale": scale, "tile_px": tile_px, "overlap_px": overlap_px, "alignment_px": alignment_px}
    grid = restore_parts(network, read, write, size=(h, w), on_tile=on_tile, **options)
    return y, grid


@given(
    length=st.integers(1, 700),
    overlap_px=st.integers(0, 40),
    room=st.integers(0, 200),
    alignment_px=st.sampled_from([1, 4, 8, 24, 48, 512]),
)
def test_tiles_of_an_axis_cover_it_in_order_and_keep_to_their_size(length, overlap_px, room, alignment_px):
    tile_px = max(2 * overlap_px, 32) + room
    grid = tile_grid(length, 8, tile_px=tile_px, overlap_px=overlap_px, alignment_px=alignment_px)
    place = 0
    for tile in grid.rows:
        assert 0 <= tile.read.start <= tile.fade_in.start <= tile.fade_in.stop <= tile.fade_out.start
        assert tile.fade_out.stop <= tile.read.stop <= length
        assert tile.read.stop - tile.read.start <= tile_px
        assert tile.fade_in.start == place  # what the tile before left off
        place = tile.fade_out.start
    assert place == length
    assert all(a.fade_out == b.fade_in for a, b in zip(grid.rows[:-1], grid.rows[1:], strict=True))


@given(length=st.integers(200, 900), alignment_px=st.sampled_from([4, 8, 16]))
def test_tiles_start_on_the_networks_grid_and_are_alike(length, alignment_px):
    rows = tile_grid(length, 8, tile_px=128, overlap_px=32, alignment_px=alignment_px).rows
    assert all(tile.read.start % alignment_px == 0 for tile in rows)
    sizes = [tile.read.stop - tile.read.start for tile in rows]
    assert max(sizes) - min(sizes) <= alignment_px


@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    scale=st.integers(1, 3),
    overlap_px=st.sampled_from([0, 1, 7, 16]),
    seed=st.integers(0, 99),
)
def test_weights_sum_to_one_everywhere_at_any_size(height, width, scale, overlap_px, seed):
    x = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(seed))
    y, _ = run(lambda t: enlarge(t, scale), x, scale=scale, tile_px=40, overlap_px=overlap_px)
    torch.testing.assert_close(y, enlarge(x, scale), rtol=0, atol=1e-6)


def test_an_image_that_fits_is_run_whole_and_unblended(image):
    seen = []

    def network(t):
        seen.append(tuple(t.shape))
        return enlarge(t)

    x = image(1, 3, 50, 64)
    y, grid = run(network, x, scale=2, tile_px=64)
    assert seen == [(1, 3, 50, 64)]
    assert grid.tiles == 1
    assert torch.equal(y, enlarge(x))


def test_what_the_cut_edge_spoils_is_thrown_away(image):
    conv = nn.Conv2d(3, 3, 15, padding=7)  # sees 7 px: zeros where the tile was cut
    x = image(1, 3, 150, 170)
    y, grid = run(conv, x, scale=1, tile_px=96, overlap_px=32)
    assert grid.tiles == 6
    with torch.no_grad():
        torch.testing.assert_close(y, conv(x), rtol=0, atol=1e-6)


def test_two_levels_of_brightness_meet_without_a_step():
    """A network that adds another level in each tile is the worst case: its steps become ramps."""
    levels = iter([0.0, 1.0])
    y, _ = run(lambda t: t + next(levels), torch.zeros(1, 1, 20, 120), scale=1, tile_px=96, overlap_px=32)
    steps = y[0, 0, 0].diff()
    assert y[0, 0, 0, 0] == 0
    assert y[0, 0, 0, -1] == 1
    assert 0 < steps.max() < 0.11  # a raised cosine over 16 px rises by at most pi/2/16 = 0.098 a pixel
    assert steps.min() >= 0


def without_global_path(model: nn.Module) -> None:
    """Let channel attention forget the mean over the image: it then scales every channel by 1."""
    for module in model.modules():
        if isinstance(module, ChannelAttention):
            nn.init.zeros_(module.conv.weight)
            nn.init.ones_(module.conv.bias)


NETWORKS = {
    "two levels": HFIRConfig(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
    "patch DFT": HFIRConfig(
        width=8, frequency_split=FrequencySplitConfig(), refiner=DFTRefinerConfig(depth=1), upscale=3
    ),
    "shifted windows": HFIRConfig(
        width=8,
        encoder_blocks=(2,),
        bottleneck_blocks=0,
        upscale=1,
        attention=WindowAttentionConfig(window_size=12, stages=("enc1",)),
    ),
}


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_a_network_without_a_global_path_shows_no_seam(config, built, image):
    model = built(config, stirred=0.05)
    without_global_path(model)
    x = F.interpolate(image(1, 3, 20, 26), size=(150, 201), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        whole = model(x)
    tiled = restore_tiled(model, x, tile_px=96)
    assert tiled.shape == whole.shape
    base = BicubicBase(model.config.in_channels, model.config.upscale)(x)
    assert (whole - base).abs().max() > 0.05  # the network does something
    assert (tiled - whole).abs().max() < 2 / 255


def test_the_alignment_is_the_period_of_all_grids():
    attention = WindowAttentionConfig(window_size=12, stages=("enc1", "mid"))
    levels = {"encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1)}
    assert HFIRConfig().grid_px == 1
    assert HFIRConfig(**levels).grid_px == 4
    assert HFIRConfig(attention=attention, **levels).grid_px == 48
    refined = HFIRConfig(frequency_split=FrequencySplitConfig(), refiner=DFTRefinerConfig())
    assert refined.grid_px == 8
    routed = MoEConfig(routing="window", stages=("enc1", "dec2"))
    assert HFIRConfig(experts=routed, encoder_blocks=(1, 1), decoder_blocks=(1, 1)).grid_px == 32


def test_progress_counts_every_tile(image):
    told = []
    _, grid = run(lambda t: t, image(1, 1, 90, 130), scale=1, tile_px=64, on_tile=lambda *n: told.append(n))
    assert told == [(i + 1, grid.tiles) for i in range(grid.tiles)]
    assert grid.tiles > 4


class Narrow:
    """A network on a device that holds tiles up to a side only."""

    def __init__(self, limit_px: int, error: Exception) -> None:
        self.limit_px, self.error, self.sides = limit_px, error, []

    def __call__(self, x):
        self.sides.append(max(x.shape[-2:]))
        if self.sides[-1] > self.limit_px:
            raise self.error
        return enlarge(x)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_running_out_of_memory_halves_the_tile_and_says_so(error, image, caplog: pytest.LogCaptureFixture):
    network = Narrow(80, error)
    x = image(1, 3, 100, 300)
    with caplog.at_level(logging.WARNING, logger="hfir.tiling"):
        y, grid = run(network, x, scale=2, tile_px=4096, overlap_px=16)
    torch.testing.assert_close(y, enlarge(x), rtol=0, atol=1e-6)
    assert max(network.sides[2:]) <= 75
    assert [r.getMessage().split(" (")[0] for r in caplog.records] == [
        "out of memory with tiles of 300 px, going on with 150 px",
        "out of memory with tiles of 150 px, going on with 75 px",
    ]
    assert isinstance(grid, TileGrid)


def test_the_smallest_tile_that_does_not_fit_ends_it(image):
    with pytest.raises(TilingError, match=r"out of memory with tiles of 50 px .*no luck.*Free memory"):
        run(Narrow(8, RuntimeError("out of memory: no luck")), image(1, 1, 100, 50), scale=2, tile_px=50, overlap_px=16)


def test_other_errors_are_not_taken_for_a_lack_of_memory(image):
    fault = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not is_out_of_memory(fault)
    with pytest.raises(RuntimeError, match="mat1"):
        run(Narrow(8, fault), image(1, 1, 100, 50), scale=2, tile_px=64)


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(63, 32), (31, 0), (64, -1)])
def test_a_tile_below_twice_its_overlap_is_refused(tile_px, overlap_px):
    with pytest.raises(TilingError, match=f"tile {tile_px} px with overlap {overlap_px} px"):
        check_tile(tile_px, overlap_px)


def test_the_side_follows_from_the_memory_of_a_pass():
    memory = PassMemory(fixed_mib=2.0, bytes_per_px=1024.0)
    # (66 - 2) MiB hold 65,536 px of 1,024 bytes: 256 x 256
    assert tile_side_px(memory, 66.0) == 256
    assert tile_side_px(memory, 65.9) == 240
    with pytest.raises(TilingError, match=r"limit of 5 MiB: a tile of 64 x 64 px takes about 6 MiB"):
        tile_side_px(memory, 5.0)


def test_the_network_is_called_without_gradients(image):
    model = build_model(HFIRConfig(width=4)).eval()
    assert not restore_tiled(model, image(1, 3, 9, 40), tile_px=32, overlap_px=16).requires_grad
