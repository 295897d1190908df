"""Which calibration holds for an experiment: its own, made by `hfir-search calibrate`, or one that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.experiment.loading import Experiment, spaces_folder
from search.prediction import FILE, Predictor, read_predictor
from search.types import InputError

FOLDER = "calibrations"
"""Within the folder of the spaces that ship."""


def calibration_folder(experiment: Experiment) -> Path:
    """Return where `calibrate` writes if nothing is said: `results/<name>-calibration` under the current folder."""
    return Path("results") / f"{experiment.name}-calibration"


def find_calibration(experiment: Experiment) -> tuple[Path, Predictor] | None:
    """Return the predictor of a calibration of the same space, task and training, and where it lies; or None.

    Looked for are the one that the file names, that of `calibrate` in its usual folder, and those that ship. The
    photographs may be others. One that cannot be read is passed over here: naming it is what makes that a fault.
    """
    named = [] if experiment.proxy.predictor is None else [Path(experiment.proxy.predictor)]
    usual = calibration_folder(experiment) / FILE
    for path in (*named, usual, *sorted((spaces_folder() / FOLDER).glob("*.json"))):
        try:
            predictor = read_predictor(path)
        except InputError:
            continue
        if _is_of(predictor, experiment):
            return path, predictor
    return None


def calibration_words(experiment: Experiment) -> str:
    """Say in one or two sentences what is known of how the early rungs order networks."""
    found = find_calibration(experiment)
    if found is None:
        return (
            "Not calibrated: how well the early rungs order the networks of this space is not known. "
            "`hfir-search calibrate` finds out, in about the time of a run."
        )
    path, predictor = found
    early = experiment.proxy.rungs[:-1]
    taus = ", ".join(f"{step}: {_tau(predictor, step)}" for step in early) or "not asked for, with one rung"
    against = f"the order at {predictor.rungs[-1]} steps"
    alone = {"parameters": predictor.facts["tau_of_params"][0], "MACs": predictor.facts["tau_of_macs"][0]}
    best = max(alone, key=alone.__getitem__)
    return (
        f"Calibrated: Kendall's tau of the early rungs with {against} is {taus}; of {best} alone "
        f"{alone[best]:.2f}, between seeds {predictor.facts['tau_between_seeds'][0]:.2f} "
        f"({path.parent.name}/{path.name})."
    )


def _tau(predictor: Predictor, step: int) -> str:
    known: dict[str, Any] = predictor.facts["tau_of_value"]
    return f"{known[str(step)][0]:.2f}" if str(step) in known else "not looked at"


def _is_of(predictor: Predictor, experiment: Experiment) -> bool:
    task = {k: v for k, v in experiment.spec["task"].items() if k != "data"}
    return (
        predictor.space == experiment.space.hash
        and dict(predictor.task) == task
        and all(getattr(experiment.proxy, k) == v for k, v in predictor.proxy.items())
    )
