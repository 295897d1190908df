"""Architecture search for HydraFusionIR networks: the platform.

`load_experiment(path)` reads what is to be searched, `load_run(folder)` what a search found. Both load on first use:
importing this package loads neither torch nor pandas.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.experiment import Experiment, load_experiment
    from search.report import Run, load_run

__all__ = ["Experiment", "Run", "load_experiment", "load_run"]

_HOMES = {
    "Experiment": "search.experiment",
    "load_experiment": "search.experiment",
    "Run": "search.report",
    "load_run": "search.report",
}


def __getattr__(name: str) -> Any:
    """Load the public names on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
