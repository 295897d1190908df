"""The tables by their names."""

from __future__ import annotations

import difflib

from search.tabular.nb201 import DATA_SETS, load_nb201
from search.tabular.ours import NAME, load_ours
from search.tabular.table import Table
from search.types import InputError

TABLES = (NAME, *DATA_SETS)
"""Names that `load_table` knows."""


def load_table(name: str) -> Table:
    """Read a table by its name.

    Raises:
        InputError: If there is none of this name, or its package is not installed.
    """
    if name == NAME:
        return load_ours()
    if name in DATA_SETS:
        return load_nb201(name)
    near = difflib.get_close_matches(name, TABLES, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise InputError(f"there is no table {name}.\n  {hint}Known are {', '.join(TABLES)}.")
