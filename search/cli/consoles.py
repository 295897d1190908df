"""Where commands print: results on standard output, the rest on standard error. Text is printed as it is.

Names of files and networks may hold brackets and colons: nothing that is printed is taken for markup or an emoji. What
the output's encoding lacks (bytes of a name that is not UTF-8, a dash where it is Latin-1) is printed as an escape.
"""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO

from rich.console import Console

from search.files import ESCAPED

WIDE = 120
"""Columns of text where there is no terminal to say how wide it is."""


def output_console() -> Console:
    """Return the console for results: as wide as the terminal, or wide enough for the tables."""
    console = _plain(sys.stdout)
    return console if console.is_terminal else _plain(sys.stdout, width=WIDE)


def error_console(*, quiet: bool = False) -> Console:
    """Return the console for everything else: progress, notes, warnings."""
    return _plain(sys.stderr, stderr=True, quiet=quiet)


def _plain(stream: TextIO, **options: Any) -> Console:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=ESCAPED)
    return Console(markup=False, emoji=False, highlight=False, **options)
