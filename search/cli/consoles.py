"""Where commands print: results on standard output, the rest on standard error. Text is printed as it is.

Names of files and networks may hold brackets and colons: nothing that is printed is taken for markup or an emoji.
"""

from __future__ import annotations

from functools import partial

from rich.console import Console

WIDE = 120
"""Columns of text where there is no terminal to say how wide it is."""

_plain = partial(Console, markup=False, emoji=False, highlight=False)


def output_console() -> Console:
    """Return the console for results: as wide as the terminal, or wide enough for the tables."""
    console = _plain()
    return console if console.is_terminal else _plain(width=WIDE)


def error_console(*, quiet: bool = False) -> Console:
    """Return the console for everything else: progress, notes, warnings."""
    return _plain(stderr=True, quiet=quiet)
