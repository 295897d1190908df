"""A run on disk: Optuna's journal as the single source of truth, written by the driver alone.

Every figure of a trial stands in its attributes, so optuna-dashboard opens a run as it is and any table or figure can
be drawn again from the store. Beside the journal lie files that are derived from it, and checkpoints.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.types import (
    OBJECTIVES,
    Cost,
    Genotype,
    InputError,
    Measurement,
    StoreError,
    Study,
    Trial,
    TrialState,
    cost_from_json,
    measurement_from_json,
    replicate_from_json,
    to_json,
)

JOURNAL = "study.journal"
LOCK = "run.lock"
HOLD_TIMEOUT_S = 0.3
"""How long a driver tries for its folder: `is_held` takes the lock for an instant, and must not turn one away."""
SCHEMA = 1
_FREE = ("trials", "time", "steps", "patience", "replicates", "enqueue")
_NO_IDENTITY = ("execution", "name", "references", *(f"search.{key}" for key in _FREE))
"""What may change when a run is taken up."""
_BEGUN = re.compile(rb'"datetime_start":\s*"([0-9T:.+-]+)"')
_PROPOSAL, _COST, _MEASUREMENTS, _OUTCOME = "proposal", "cost", "measurements", "outcome"
_PRIOR = "prior"
SETBACKS, REPLICATES = "setbacks", "replicates"
"""Facts that belong to a trial are called `setbacks:7`, `replicates:7`: Optuna closes a trial that was told."""

OPTUNA_STATE = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
    TrialState.STOPPED: optuna.trial.TrialState.PRUNED,
    TrialState.INFEASIBLE: optuna.trial.TrialState.PRUNED,
    TrialState.DUPLICATE: optuna.trial.TrialState.PRUNED,
}
"""What the sampler is told. A rejection is PRUNED with its constraints: TPE learns nothing from FAIL."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class RunStore:
    """The driver's hold on a run's folder.

    Args:
        folder: Of the run; made if it is not there.
        name: Of the study.
        objectives: Names in `OBJECTIVES`.
        identity: Hash of all that decides what a trial means.
        spec: The experiment as resolved.
        storage: Where the records go instead of the journal in the folder, e.g. `optuna.storages.InMemoryStorage()`
            for a run that leaves nothing behind.

    Raises:
        InputError: If the folder holds a run of another identity.
        StoreError: If the journal is damaged before its last line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        objectives: tuple[str, ...],
        identity: str,
        spec: Mapping[str, Any],
        storage: BaseStorage | None = None,
    ) -> None:
        self.folder, self.name, self.objectives = folder, name, objectives
        self._storage = _open_to_write(folder) if storage is None else storage
        self.optuna = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=[_direction(objective) for objective in objectives],
            load_if_exists=True,
        )
        self._study_id = self._storage.get_study_id_from_name(name)
        self._claim(identity, spec)

    def _claim(self, identity: str, spec: Mapping[str, Any]) -> None:
        known = self.optuna.user_attrs
        if "identity" in known and known["identity"] != identity:
            changed = ", ".join(_differences(known["spec"], spec)) or "the package's version"
            raise InputError(
                f"{self.folder} holds a run of another experiment: {changed} differ.\n"
                "  A run's trials compare only under one space, task, budget, proxy and seed. "
                "Give another folder with --out, or delete this one."
            )
        with warnings.catch_warnings():  # optuna 5.0 still calls metric names experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna.set_metric_names(list(self.objectives))
        for key, value in {"schema": SCHEMA, "identity": identity, "spec": dict(spec)}.items():
            if known.get(key) != value:
                self.optuna.set_user_attr(key, value)

    def note(self, key: str, value: Any) -> None:
        """Keep a fact about the run as a whole."""
        self.optuna.set_user_attr(f"fact:{key}", value)

    def record_proposal(
        self,
        trial: optuna.Trial,
        *,
        genotype: Genotype,
        seed: int,
        generation: int,
        config: Mapping[str, Any] | None,
    ) -> int:
        """Keep what was proposed; from here on the candidate is part of the study. Return its number."""
        proposal = {
            "genotype": dict(genotype.values),
            "key": genotype.key,
            "seed": seed,
            "generation": generation,
            "config": config,
        }
        trial.set_user_attr(_PROPOSAL, proposal)
        return trial.number

    def add_prior(self, point: Genotype, choices: Mapping[str, BaseDistribution], values: list[float]) -> None:
        """Let the sampler know a complete candidate of an earlier run, once; it is no trial of this one.

        Args:
            point: Of this run's space.
            choices: Optuna's description of each of its parameters; one with a single choice is left out.
            values: Of the run's objectives.
        """
        key = point.key
        if any(t.user_attrs.get(_PRIOR) == key for t in self.optuna.get_trials(deepcopy=False)):
            return
        open_ = {name: at for name, at in choices.items() if not at.single()}
        params = {name: point[name] for name in open_}
        attributes = {_PRIOR: key}
        self.optuna.add_trial(
            optuna.trial.create_trial(params=params, distributions=open_, values=values, user_attrs=attributes)
        )

    def record_cost(self, number: int, cost: Cost, margins: Mapping[str, float]) -> None:
        """Keep what a candidate costs, and its margins as Optuna's constraints (feasible where all are <= 0)."""
        trial_id = self._trial_id(number)
        for name, margin in margins.items():
            self._storage.set_trial_system_attr(trial_id, f"constraints:{name}", margin)
        self._storage.set_trial_user_attr(trial_id, _COST, to_json(cost))

    def record_measurement(self, trial: Trial, measurement: Measurement) -> None:
        """Keep what a rung showed."""
        known = [to_json(m) for m in (*trial.measurements, measurement)]
        self._storage.set_trial_user_attr(self._trial_id(trial.number), _MEASUREMENTS, known)

    def finish(
        self,
        number: int,
        state: TrialState,
        *,
        values: list[float] | None = None,
        reason: str = "",
        failure: str = "",
        constraint: str | None = None,
    ) -> None:
        """Tell the study how a candidate ended.

        Args:
            number: The trial's.
            state: Its final state.
            values: The objectives' values; of a COMPLETE trial only.
            reason: Why, in one line.
            failure: The traceback of a FAILED trial.
            constraint: Name of a rule of the network that it breaks, told to the sampler as a violation.
        """
        trial_id = self._trial_id(number)
        if constraint is not None:
            self._storage.set_trial_system_attr(trial_id, f"constraints:{constraint}", 1.0)
        outcome = {"state": state.value, "reason": reason, "failure": failure}
        self._storage.set_trial_user_attr(trial_id, _OUTCOME, outcome)
        self.optuna.tell(number, values=values, state=OPTUNA_STATE[state])

    def close_lost_proposals(self) -> int:
        """Tell off what an earlier driver had asked for but not recorded; return how many.

        A candidate whose end was recorded but not told is told now.
        """
        lost = 0
        for frozen in self.optuna.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if _PROPOSAL not in frozen.user_attrs:
                self.optuna.tell(frozen.number, state=optuna.trial.TrialState.FAIL)
                lost += 1
            elif _OUTCOME in frozen.user_attrs:
                trial = _trial(frozen)
                state = TrialState(frozen.user_attrs[_OUTCOME]["state"])
                values = [trial.value(o) or 0.0 for o in self.objectives]
                complete = state is TrialState.COMPLETE
                self.optuna.tell(frozen.number, values=values if complete else None, state=OPTUNA_STATE[state])
        return lost

    def study(self) -> Study:
        """Return the run as it stands."""
        return _study(self.folder, self.optuna)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def read_study(folder: Path) -> Study:
    """Read a run without touching it; works while the run goes on.

    Raises:
        InputError: If the folder holds no run, or none yet.
        StoreError: If the journal is damaged before its last line.
    """
    path = folder / JOURNAL
    if not path.is_file():
        raise InputError(
            f"{folder}: holds no run ({JOURNAL} is not there).\n"
            "  Give the folder that `hfir-search run` wrote, e.g. results/efficient."
        )
    storage = _open(path)
    summaries = optuna.get_all_study_names(storage)
    if not summaries:
        raise InputError(f"{folder}: holds no run yet ({JOURNAL} is empty).\n  Start it, or look again in a moment.")
    if len(summaries) != 1:
        raise StoreError(f"{path}: holds {len(summaries)} studies, not one. It was not written by hfir-search.")
    return _study(folder, optuna.load_study(study_name=summaries[0], storage=storage))


def note_fact(folder: Path, key: str, value: Any) -> None:
    """Keep a fact about a finished or a paused run as a whole.

    Raises:
        StoreError: If another process holds the run, or its journal is damaged.
    """
    with hold(folder):
        repair_journal(folder / JOURNAL)
        storage = _open(folder / JOURNAL)
        [name] = optuna.get_all_study_names(storage)
        optuna.load_study(study_name=name, storage=storage).set_user_attr(f"fact:{key}", value)


def repair_journal(path: Path) -> None:
    """Drop a torn last line (a driver that was killed, a full disk), before anything is appended behind it."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    torn = content[len(whole) :]
    if torn and _is_json(torn):
        path.write_bytes(content + b"\n")
    elif torn:
        with path.open("r+b") as file:
            file.truncate(len(whole))


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a run's folder: a second driver on it is refused. The lock goes with the process, however it ends.

    Raises:
        StoreError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=HOLD_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"{folder}: another hfir-search is running in this folder.\n"
            "  Wait for it, stop it, or give another folder with --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool | None:
    """Say whether a driver holds a run's folder; None where its lock cannot be looked at (a folder of another user)."""
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return None
    lock.release()
    return False


def times_of(folder: Path) -> tuple[datetime, datetime] | None:
    """Return when a run proposed its first candidate and when it last wrote, in UTC; None before the first one."""
    path = folder / JOURNAL
    begun = _BEGUN.search(path.read_bytes()) if path.is_file() else None
    if begun is None:
        return None
    first = datetime.fromisoformat(begun[1].decode())
    return first.astimezone(UTC), datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)


def _open_to_write(folder: Path) -> JournalStorage:
    """Open the journal of a run's folder, made if it is not there, mended if its end is torn."""
    folder.mkdir(parents=True, exist_ok=True)
    repair_journal(folder / JOURNAL)
    (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)  # left by a driver that was killed while writing
    return _open(folder / JOURNAL)


def _open(path: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:  # what optuna's replay trips over
        raise StoreError(
            f"{path}: the journal is damaged ({error}).\n  Restore it from a copy, or start in another folder."
        ) from error


def _direction(objective: str) -> StudyDirection:
    return StudyDirection.MAXIMIZE if OBJECTIVES[objective].maximise else StudyDirection.MINIMIZE


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _study(folder: Path, study: optuna.Study) -> Study:
    attributes = study.user_attrs
    spec = attributes.get("spec", {})
    facts = {key.removeprefix("fact:"): v for key, v in attributes.items() if key.startswith("fact:")}
    trials = [_trial(t) for t in study.get_trials(deepcopy=False) if _PROPOSAL in t.user_attrs]
    withdrawn, remeasured = facts.get("withdrawn", {}), facts.get("remeasured", {})
    trials = [with_notes(_remeasured(t, remeasured.get(str(t.number))), facts) for t in trials]
    return Study(
        name=study.study_name,
        folder=folder,
        objectives=tuple(spec.get("objectives", ())),
        spec=spec,
        facts=facts,
        trials=tuple(_overruled(t, withdrawn.get(str(t.number))) for t in trials),
    )


def with_notes(trial: Trial, facts: Mapping[str, Any]) -> Trial:
    """Return the trial with what stands beside it: further seeds, and jobs that were lost."""
    replicates, setbacks = (facts.get(f"{name}:{trial.number}", ()) for name in (REPLICATES, SETBACKS))
    if not replicates and not setbacks:
        return trial
    return replace(trial, replicates=tuple(map(replicate_from_json, replicates)), setbacks=tuple(setbacks))


def _remeasured(trial: Trial, cost: Mapping[str, Any] | None) -> Trial:
    """Return the trial with what it costs on the machine that its run has moved to."""
    return trial if cost is None else replace(trial, cost=cost_from_json(cost))


def _overruled(trial: Trial, reason: str | None) -> Trial:
    """Return the trial as INFEASIBLE where it missed its budget when it was measured again."""
    return trial if reason is None else replace(trial, state=TrialState.INFEASIBLE, reason=reason)


def _trial(frozen: FrozenTrial) -> Trial:
    attributes = frozen.user_attrs
    proposal, outcome = attributes[_PROPOSAL], attributes.get(_OUTCOME, {})
    return Trial(
        number=frozen.number,
        state=TrialState(outcome.get("state", TrialState.RUNNING)),
        genotype=Genotype(proposal["genotype"]),
        key=proposal["key"],
        seed=proposal["seed"],
        generation=proposal["generation"],
        config=proposal["config"],
        cost=cost_from_json(attributes[_COST]) if _COST in attributes else None,
        measurements=tuple(measurement_from_json(m) for m in attributes.get(_MEASUREMENTS, ())),
        reason=outcome.get("reason", ""),
        failure=outcome.get("failure", ""),
    )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of what differs, what is no part of a run's identity aside."""
    names: list[str] = []
    for key in sorted({*old, *new}):
        path = f"{prefix}{key}"
        a, b = old.get(key), new.get(key)
        if a == b or path in _NO_IDENTITY:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += _differences(a, b, f"{path}.")
        else:
            names.append(path)
    return names
