"""Candidates of a run as a folder for another device: ONNX files, a list of them, and one script that times them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hfir.config import HFIRConfig
from hfir.errors import ExportError
from hfir.export import export_model
from hfir.model import build_model
from search.evaluation.card import file_digest
from search.files import replace_file
from search.pareto import pareto_front
from search.store import note_fact, read_study
from search.types import InputError, Study, Trial, TrialState

MANIFEST = "bundle.json"
SCRIPT = "measure_here.py"
BUNDLED = "bundled"
"""The fact of a run that holds the digests of the files that were written of its candidates."""


@dataclass(frozen=True, slots=True)
class Bundled:
    """What a bundle holds.

    Args:
        folder: Where it lies.
        trials: Candidates in it.
        failed: Candidates that could not be written, and why.
    """

    folder: Path
    trials: tuple[int, ...]
    failed: dict[int, str]


def write_bundle(
    run: Path, out: Path, *, every: bool, onlooker: Callable[[int, int], None] = lambda done, of: None
) -> Bundled:
    """Write the front of a run, or every candidate that was measured, for timing on another device.

    Weights are random ones: how long a network takes does not depend on them.

    Args:
        run: The run's folder.
        out: The bundle's folder; made where it is missing. Files that are there already are written anew.
        every: All measured candidates instead of the front's members.
        onlooker: Told how many files are written, of how many.

    Raises:
        InputError: If the run has no such candidate.
        StoreError: If another process holds the run.
    """
    study = read_study(run)
    trials = _chosen(study, every=every)
    if not trials:
        raise InputError(f"{run}: no candidate is complete yet, so there is nothing to measure.\n  Let the run go on.")
    out.mkdir(parents=True, exist_ok=True)
    models, failed = [], {}
    for done, trial in enumerate(trials):
        onlooker(done, len(trials))
        try:
            path = _write(study, trial, out)
        except ExportError as error:
            failed[trial.number] = str(error)
            continue
        models.append({"trial": trial.number, "file": path.name, "sha256": file_digest(path)})
    manifest = {"schema": 1, "run": study.name, **_conditions(study), "models": models}
    replace_file(out / MANIFEST, lambda partial: partial.write_text(json.dumps(manifest, indent=2) + "\n"))
    shutil.copyfile(Path(__file__).with_name("device.py"), out / SCRIPT)
    known = study.facts.get(BUNDLED, {})
    digests = {str(m["trial"]): [*known.get(str(m["trial"]), []), m["sha256"]] for m in models}
    note_fact(run, BUNDLED, {**known, **digests})
    return Bundled(out, tuple(int(m["trial"]) for m in models), failed)


def _chosen(study: Study, *, every: bool) -> Sequence[Trial]:
    if not every:
        return pareto_front(study.trials, study.objectives).members
    rejected = (TrialState.DUPLICATE, TrialState.INFEASIBLE, TrialState.SCREENED)
    return [t for t in study.trials if t.config is not None and t.cost is not None and t.state not in rejected]


def _conditions(study: Study) -> dict[str, object]:
    budget, task = study.spec["budget"], study.spec["task"]
    width, height = budget["latency_ms"]["at"]
    return {"width": width, "height": height, "channels": task["channels"], "threads": budget["threads"]}


def _write(study: Study, trial: Trial, out: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(HFIRConfig.from_dict(dict(trial.config or {})))
    name = f"{study.name}-{trial.number}"
    return export_model(model, out, format="onnx", name=name, overwrite=True).path
