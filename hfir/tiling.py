"""Restore images of any size in overlapping tiles, in little memory.

Neighbouring tiles share `overlap_px` input pixels. In the middle half of these they are blended by a raised cosine,
separably, with weights that sum to 1; the quarter next to a tile's cut edge, where the network saw padding instead
of the picture, is thrown away. Tiles start where the network's own grids start (`HFIRConfig.grid_px`), so strides,
windows and patches fall as they do in the whole image. What is left is the influence of what lies outside a tile:
nothing but rounding where the network sees no further than a quarter of the overlap, and a smooth transition else.

Parts of the result are handed out as soon as they are finished: beside them lives one tile, and what it shares with
those that are still to come.
"""

import logging
import math
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hfir.errors import TilingError
from hfir.model import HydraFusionIR

log = logging.getLogger(__name__)

MIN_TILE_PX = 32
"""Smaller tiles are refused: the network needs 16 pixels, and what it knows of a smaller tile is little."""
OVERLAP_PX = 32
_OUT_OF_MEMORY = ("defaultcpuallocator", "out of memory", "out_of_memory", "can't allocate memory")
"""What allocators write into a plain RuntimeError."""


class Span(NamedTuple):
    """The pixels `start..stop` of one axis."""

    start: int
    stop: int


class Window(NamedTuple):
    """The part of an input image that one tile reads."""

    rows: Span
    columns: Span


class AxisTile(NamedTuple):
    """One tile along one axis, in input pixels.

    Args:
        read: What the network sees.
        fade_in: Where it takes over from the tile before; empty at the start of the image.
        fade_out: Where the next one takes over; empty at the end of the image.
    """

    read: Span
    fade_in: Span
    fade_out: Span


class TileGrid(NamedTuple):
    """How an image is cut; every row tile is combined with every column tile."""

    rows: tuple[AxisTile, ...]
    columns: tuple[AxisTile, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)


class PassMemory(NamedTuple):
    """What one forward pass takes, measured by whoever knows the device."""

    fixed_mib: float
    """Whatever the size of the tile, weights included."""
    bytes_per_px: float
    """For each input pixel."""


Network = Callable[[Tensor], Tensor]
Read = Callable[[Window], Tensor]
"""Return a part of the input as `[1 c h w]` on the network's device."""
Write = Callable[[int, int, Tensor], None]
"""Take the row and column that a finished part of the output starts at, and the part, `[1 c h w]`, fp32 on the CPU."""
OnTile = Callable[[int, int], None]
"""Take the number of tiles done and of all."""


def restore_tiled(
    model: HydraFusionIR, image: Float[Tensor, "1 c h w"], *, tile_px: int, overlap_px: int = OVERLAP_PX
) -> Float[Tensor, "1 c hs ws"]:
    """Return the restored image, computed tile by tile; an image that fits into one tile is run whole.

    Args:
        model: In eval mode, on the image's device.
        image: In [0, 1].
        tile_px: Longest side of a tile, in input pixels.
        overlap_px: Input pixels that neighbours share.

    Returns:
        fp32 on the CPU, not clamped.

    Raises:
        TilingError: If tile and overlap do not fit together, or not even small tiles fit into memory.
    """
    height, width = image.shape[-2:]
    scale = model.config.upscale
    restored = torch.empty(1, image.shape[1], height * scale, width * scale)

    def read(window: Window) -> Tensor:
        return image[..., slice(*window.rows), slice(*window.columns)]

    def write(top: int, left: int, part: Tensor) -> None:
        restored[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part

    restore_parts(
        model,
        read,
        write,
        size=(height, width),
        scale=scale,
        tile_px=tile_px,
        overlap_px=overlap_px,
        alignment_px=model.config.grid_px,
    )
    return restored


def restore_parts(
    network: Network,
    read: Read,
    write: Write,
    *,
    size: tuple[int, int],
    scale: int,
    tile_px: int,
    overlap_px: int = OVERLAP_PX,
    alignment_px: int = 1,
    on_tile: OnTile | None = None,
) -> TileGrid:
    """Restore an image that is read in parts, and hand out parts of the result as they are finished.

    Where memory runs out, the tile is halved, which is logged as a warning, and the image begins again: `write` then
    gets places that it got before. In the end every pixel was written.

    Args:
        network: Turns `[1 c h w]` into `[1 c h·scale w·scale]`.
        read: Gives parts of the input.
        write: Takes parts of the output.
        size: Height and width of the input, >= 1.
        scale: Output side over input side.
        tile_px: Longest side of a tile, in input pixels.
        overlap_px: Input pixels that neighbours share.
        alignment_px: Tiles start at multiples of this, as far as the tile is large enough.
        on_tile: Told after each tile how many are done.

    Returns:
        The grid that went through.

    Raises:
        TilingError: If tile and overlap do not fit together, or not even small tiles fit into memory.
    """
    check_tile(tile_px, overlap_px)
    while True:
        grid = tile_grid(*size, tile_px=tile_px, overlap_px=overlap_px, alignment_px=alignment_px)
        try:
            with torch.inference_mode():
                _run_grid(network, read, write, grid, scale, on_tile)
            return grid
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
        # Outside the except block: the traceback holds the tensors that have to go.
        tile_px = _halved(min(tile_px, max(size)), overlap_px, reason)


def tile_grid(height: int, width: int, *, tile_px: int, overlap_px: int, alignment_px: int = 1) -> TileGrid:
    """Cut an image of `height` times `width` input pixels into overlapping tiles, alike in size but for the last.

    Raises:
        TilingError: If the tile is too small for the overlap.
    """
    check_tile(tile_px, overlap_px)
    rows = _axis_tiles(height, tile_px, overlap_px, alignment_px)
    return TileGrid(rows, _axis_tiles(width, tile_px, overlap_px, alignment_px))


def tile_side_px(memory: PassMemory, limit_mib: float, *, overlap_px: int = OVERLAP_PX) -> int:
    """Return the side of the largest square tile whose forward pass keeps to a limit.

    Args:
        memory: What a pass takes.
        limit_mib: What it may take.
        overlap_px: Input pixels that neighbours share; a tile has at least twice as many.

    Returns:
        A multiple of 16.

    Raises:
        TilingError: If not even the smallest tile keeps to the limit.
    """
    pixels = (limit_mib - memory.fixed_mib) * 2**20 / memory.bytes_per_px
    side = math.isqrt(max(0, int(pixels))) // 16 * 16
    smallest = _smallest_tile(overlap_px)
    if side < smallest:
        needed = memory.fixed_mib + smallest**2 * memory.bytes_per_px / 2**20
        raise TilingError(
            f"a memory limit of {limit_mib:g} MiB: a tile of {smallest} x {smallest} px takes about {needed:.0f} MiB. "
            "The limit must hold one such tile: raise it, or lower the overlap."
        )
    return side


def check_tile(tile_px: int, overlap_px: int) -> None:
    """Refuse a tile that is too small for its overlap.

    Raises:
        TilingError: If the overlap is negative, or the tile below twice the overlap or below `MIN_TILE_PX`.
    """
    if overlap_px < 0 or tile_px < _smallest_tile(overlap_px):
        raise TilingError(
            f"tile {tile_px} px with overlap {overlap_px} px: the overlap is at least 0, the tile at least twice "
            f"the overlap and at least {MIN_TILE_PX} px. Use a tile of {_smallest_tile(max(overlap_px, 0))} or more."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, on the CPU or on a device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _smallest_tile(overlap_px: int) -> int:
    return max(2 * overlap_px, MIN_TILE_PX)


def _halved(tile_px: int, overlap_px: int, reason: str) -> int:
    half = tile_px // 2
    if half < _smallest_tile(overlap_px):
        raise TilingError(
            f"out of memory with tiles of {tile_px} px ({reason}), and tiles of {half} px are too small for an overlap "
            f"of {overlap_px} px. Free memory, use a smaller network, or lower the overlap."
        )
    log.warning("out of memory with tiles of %d px, going on with %d px (%s)", tile_px, half, reason)
    return half


def _axis_tiles(length: int, tile_px: int, overlap_px: int, alignment_px: int) -> tuple[AxisTile, ...]:
    """Cut one axis; no two fades touch, so at any place at most two tiles share a pixel."""
    if length <= tile_px:
        return (AxisTile(Span(0, length), Span(0, 0), Span(length, length)),)
    room = tile_px - overlap_px
    while alignment_px > room:
        alignment_px = alignment_px // 2
    tiles = -(-(length - overlap_px) // (room // alignment_px * alignment_px))
    stride = _multiple_above(-(-(length - overlap_px) // tiles), alignment_px)
    seams = [_fade(i * stride, overlap_px, stride) for i in range(1, tiles)]
    starts = [i * stride for i in range(tiles - 1)]
    starts.append(_multiple_above(length - stride - overlap_px, alignment_px))  # no smaller than its neighbours
    stops = [start + stride + overlap_px for start in starts[:-1]] + [length]
    fades = [Span(0, 0), *seams, Span(length, length)]
    return tuple(AxisTile(Span(starts[i], stops[i]), fades[i], fades[i + 1]) for i in range(tiles))


def _fade(start: int, overlap_px: int, stride: int) -> Span:
    """Return the middle half of an overlap that begins at `start`."""
    width = min(overlap_px // 2, stride)
    begin = start + (overlap_px - width) // 2
    return Span(begin, begin + width)


def _multiple_above(value: int, of: int) -> int:
    return -(-value // of) * of


def _run_grid(network: Network, read: Read, write: Write, grid: TileGrid, scale: int, on_tile: OnTile | None) -> None:
    """Run every tile. What a tile shares with the next one, to the right or below, waits until that one is run."""
    done = count(1)
    above = torch.zeros(1, 1, 0, grid.columns[-1].read.stop * scale)
    for row in grid.rows:
        kept_rows, row_weights = _kept(row, scale), _weights(row, scale)[:, None]
        top, finished = row.fade_in.start * scale, (row.fade_out.start - row.fade_in.start) * scale
        left, below = torch.zeros(1, 1, 1, 0), []
        for column in grid.columns:
            tile = network(read(Window(row.read, column.read)))[..., kept_rows, _kept(column, scale)]
            tile = tile.to(device="cpu", dtype=torch.float32) * (row_weights * _weights(column, scale))
            tile[..., : left.shape[-1]] += left
            start, width = column.fade_in.start * scale, (column.fade_out.start - column.fade_in.start) * scale
            left, block = tile[..., width:].clone(), tile[..., :width]
            block[..., : above.shape[-2], :] += above[..., start : start + width]
            write(top, start, block[..., :finished, :])
            below.append(block[..., finished:, :].clone())
            if on_tile is not None:
                on_tile(next(done), grid.tiles)
        above = torch.cat(below, dim=-1)


def _kept(tile: AxisTile, scale: int) -> slice:
    """Return which output pixels of a tile count, seen from the tile."""
    return slice((tile.fade_in.start - tile.read.start) * scale, (tile.fade_out.stop - tile.read.start) * scale)


def _weights(tile: AxisTile, scale: int) -> Float[Tensor, " n"]:
    """Return the weights of the output pixels that count: a rise, ones, a fall."""
    rise = _rise((tile.fade_in.stop - tile.fade_in.start) * scale)
    fall = 1 - _rise((tile.fade_out.stop - tile.fade_out.start) * scale)
    return torch.cat([rise, torch.ones((tile.fade_out.start - tile.fade_in.stop) * scale), fall])


def _rise(length: int) -> Float[Tensor, " n"]:
    """Return a raised cosine from 0 to 1, sampled at the centres of `length` pixels."""
    return torch.sin((torch.arange(length) + 0.5) * (torch.pi / 2) / max(length, 1)).square()
