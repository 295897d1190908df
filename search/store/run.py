"""A run's records, as the driver writes them and as anybody reads them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from search.counts import count
from search.files import shown as printable
from search.store.consent import followed_pointer, remember
from search.store.holding import Lease, hold, is_fresh, lease_of
from search.store.index import TrialIndex
from search.store.journal import JOURNAL, Journal, no_garbage_sought, open_journal, read_journal
from search.store.places import (
    POINTER,
    Place,
    checked_url,
    open_database,
    read_pointer,
    reading,
    reading_study,
    shown,
    sqlite_file,
    unreachable,
    write_pointer,
)
from search.store.records import (
    COST,
    FACT,
    MEASUREMENT,
    OPTUNA_STATE,
    OUTCOME,
    PRIOR,
    PROPOSAL,
    SCORES,
    facts_of,
    is_recorded,
    study_of,
    trial_of,
)
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
    to_json,
)

SCHEMA = 1
_FREE = ("trials", "time", "steps", "patience", "replicates", "enqueue")
_NO_IDENTITY = ("execution", "name", "references", *(f"search.{key}" for key in _FREE))
"""What may change when a run is taken up."""
_BEGUN = re.compile(rb'"datetime_start":\s*"([0-9T:.+-]+)"')

optuna.logging.set_verbosity(optuna.logging.WARNING)


class RunStore:
    """The driver's hold on a run's records.

    Args:
        folder: Of the run; made if it is not there.
        name: Of the study.
        objectives: Names in `OBJECTIVES`.
        identity: Hash of all that decides what a trial means, but for the photographs: the run records those by their
            content, and `accept_data_folders` is called once they were compared.
        spec: The experiment as resolved.
        earlier_identity: The hash that earlier versions recorded for this experiment; the folders of the photographs
            are part of it.
        storage: Where the records are instead of the journal in the folder: the URL of a database, which the folder
            then remembers, or one of Optuna's, e.g. `optuna.storages.InMemoryStorage()` for a run that leaves nothing
            behind.

    Raises:
        InputError: If the folder or the database holds another run, or the URL cannot be used.
        StoreError: If the journal is damaged before its last line, the database cannot be reached, or another driver
            is at work on the study.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        objectives: tuple[str, ...],
        identity: str,
        spec: Mapping[str, Any],
        earlier_identity: str | None = None,
        storage: str | BaseStorage | None = None,
    ) -> None:
        self.folder, self.name, self.objectives = folder, name, objectives
        self._identities = (identity, earlier_identity)
        self._journal: Journal | None = None
        self._place = None if isinstance(storage, BaseStorage) else self._placed(storage)
        self._lease: Lease | None = None
        self._closing = ExitStack()
        with self._in_words(), no_garbage_sought():
            self._storage = storage if isinstance(storage, BaseStorage) else self._opened()
            try:
                if not isinstance(storage, BaseStorage):
                    self.name = self._recorded_name()
                self._take_up(spec)
            except BaseException:
                self.close()
                raise

    def _opened(self) -> BaseStorage:
        if self._place is None:
            if not (self.folder / JOURNAL).is_file():
                self._refuse_lost_records(f"{printable(self.folder / JOURNAL)} is not there")
            storage, self._journal = open_journal(self.folder / JOURNAL)
        else:
            file = sqlite_file(self._place.url)
            if file is not None and not file.is_file():
                self._refuse_lost_records(f"{printable(file)} is not there")
            storage, database = open_database(self._place.url, create=True)
            self._closing.callback(database.engine.dispose)
        return storage

    def _placed(self, url: str | None) -> Place | None:
        """Return the database that is asked for, or that the folder points to; None for the journal."""
        if url is None:
            return followed_pointer(self.folder)
        known = read_pointer(self.folder)
        place = Place(url=checked_url(url), study=self.name if known is None else known.study)
        if known is not None and known.url != place.url:
            raise InputError(
                f"{self.folder}: the records of this run lie in {shown(known.url)}, not in {shown(place.url)}.\n"
                "  Leave --storage out to go on, or give another folder with --out."
            )
        if (self.folder / JOURNAL).is_file():
            raise InputError(
                f"{self.folder}: this run has its records here, in {JOURNAL}.\n"
                "  Leave --storage out to go on, or give another folder with --out."
            )
        remember(place.url)
        return place

    def _recorded_name(self) -> str:
        """Return the name that the folder's run was started under, which an experiment may change later."""
        names = optuna.get_all_study_names(self._storage)
        if self._place is None:
            if not names:
                self._refuse_lost_records(f"{printable(self.folder / JOURNAL)} is empty")
            return names[0] if len(names) == 1 else self.name
        if read_pointer(self.folder) is not None and self._place.study not in names:
            self._refuse_lost_records(f"{shown(self._place.url)} holds no study {self._place.study}")
        return self._place.study

    def _refuse_lost_records(self, what: str) -> None:
        """Refuse to start again in the folder of a run whose records are gone; return where it is no such folder.

        Raises:
            InputError: If files of a run are there.
        """
        traces = [name for name in (POINTER, "trials.csv", "checkpoints") if (self.folder / name).exists()]
        if traces:
            raise InputError(
                f"{printable(self.folder)}: the records of this run are missing: {what}, though the folder holds "
                f"{', '.join(traces)}.\n"
                "  Without its records a run cannot be resumed; starting it again would overwrite its checkpoints.\n"
                "  Restore the records, or start in a new folder with --out."
            )

    def _take_up(self, spec: Mapping[str, Any]) -> None:
        self.optuna = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            directions=[_direction(objective) for objective in self.objectives],
            load_if_exists=True,
        )
        self._study_id = self._storage.get_study_id_from_name(self.name)
        if self._place is not None:
            self._take_up_in(self._place)
        self._claim(spec)
        self._read_all()

    def _take_up_in(self, place: Place) -> None:
        """Make sure that a study in a database is this folder's, and nobody else's now."""
        candidates = len(self.optuna.get_trials(deepcopy=False))
        if candidates and read_pointer(self.folder) is None:
            raise InputError(
                f"{shown(place.url)} holds a study {place.study} already, with {count(candidates, 'candidate')}, "
                f"whose checkpoints are not in {self.folder}.\n"
                "  Give the folder that it was begun in with --out, or give the experiment another name."
            )
        self._lease = Lease(self.optuna, self.folder)
        self._lease.acquire()
        self._closing.callback(self._lease.release)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_pointer(self.folder, place)

    def close(self) -> None:
        """Give a database back; a journal needs nothing. Nothing is lost where this is not called."""
        with self._in_words():
            self._closing.close()

    def _claim(self, spec: Mapping[str, Any]) -> None:
        known = self.optuna.user_attrs
        identity = known.get("identity", self._identities[0])
        if identity not in self._identities:
            changed = ", ".join(_differences(known["spec"], spec)) or "the package's version"
            raise InputError(
                f"{printable(self.folder)} holds a run of another experiment: {changed} differ.\n"
                "  A run's trials compare only under one space, task, budget, proxy and seed. Give another folder with "
                f"--out; --warm-start {printable(self.folder)} lets the new run start from what this one found."
            )
        with warnings.catch_warnings():  # optuna 5.0 still calls metric names experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna.set_metric_names(list(self.objectives))
        self._data = _data_folders(spec)
        kept = _with_data_folders(spec, _data_folders(known.get("spec", spec)))
        for key, value in {"schema": SCHEMA, "identity": identity, "spec": kept}.items():
            if known.get(key) != value:
                self.optuna.set_user_attr(key, value)

    def accept_data_folders(self) -> None:
        """Record the folders that this session reads photographs from; call it once their content was compared."""
        spec = _with_data_folders(self._spec, self._data)
        if spec != self._spec:
            with self.together():
                self.optuna.set_user_attr("spec", spec)
            self._spec = spec

    def _read_all(self) -> None:
        """Read every record; from here on each is read again only after it was changed."""
        study = study_of(self.folder, self.optuna)
        self._spec, self._facts = study.spec, dict(study.facts)
        self.index = TrialIndex(study.trials)

    def study(self) -> Study:
        """Return the run as it stands."""
        return Study(
            name=self.name,
            folder=self.folder,
            objectives=self.objectives,
            spec=self._spec,
            facts=self.facts,
            trials=self.index.trials,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the run as a whole."""
        return dict(self._facts)

    @contextmanager
    def together(self, *, durable: bool = True) -> Iterator[None]:
        """Write what is recorded within the block at its end, all at once where the storage can.

        Args:
            durable: Against power failure, too; not worth the wait for what would be recorded again in the same way.

        Raises:
            StoreError: If it cannot be written; the store is of no use any more, the records are as they were.
        """
        if self._lease is not None:
            self._lease.check()
        with self._in_words(), nullcontext() if self._journal is None else self._journal.together(durable=durable):
            yield

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Say what is wrong where a record cannot be written or read."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.folder / JOURNAL}: the record cannot be written ({error.strerror or error}).\n"
                "  Everything recorded so far is kept. Free disk space, then rerun the same command to resume."
            ) from error
        except optuna.exceptions.StorageInternalError as error:
            raise unreachable("the store" if self._place is None else self._place.url, error) from error

    def note(self, key: str, value: Any, *, trial: int | None = None) -> None:
        """Keep a fact about the run as a whole; with `trial`, about one of its trials.

        Args:
            key: Name of the fact.
            value: Plain JSON.
            trial: Number of the trial; the facts of that name are then a mapping by number, as text.
        """
        with self.together():
            self.optuna.set_user_attr(f"{FACT}{key}" if trial is None else f"{FACT}{key}:{trial}", value)
            self._facts = facts_of(self._storage.get_study_user_attrs(self._study_id))
            if trial is not None:
                self._read_again(trial)  # what is known of it may overrule its state
            elif key in ("withdrawn", "remeasured"):
                self._read_all()

    def forget(self, key: str) -> None:
        """Take back what is known of single trials under a name; the records keep that it was."""
        with self.together():
            for trial in self._facts.get(key, {}):
                self.note(key, None, trial=int(trial))

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
        with self.together():
            trial.set_user_attr(PROPOSAL, proposal)
            self._read_again(trial.number)
        return trial.number

    def add_prior(self, point: Genotype, choices: Mapping[str, BaseDistribution], values: list[float]) -> None:
        """Let the sampler know a complete candidate of an earlier run, once; it is no trial of this one.

        Args:
            point: Of this run's space.
            choices: Optuna's description of each of its parameters; one with a single choice is left out.
            values: Of the run's objectives.
        """
        if any(t.user_attrs.get(PRIOR) == point.key for t in self.optuna.get_trials(deepcopy=False)):
            return
        several = {name: choice for name, choice in choices.items() if not choice.single()}
        prior = optuna.trial.create_trial(
            params={name: point[name] for name in several},
            distributions=several,
            values=values,
            user_attrs={PRIOR: point.key},
        )
        with self.together():
            self.optuna.add_trial(prior)

    def record_cost(
        self, number: int, cost: Cost, margins: Mapping[str, float], scores: Mapping[str, float] | None = None
    ) -> None:
        """Keep what a candidate costs, and its margins as Optuna's constraints (feasible where all are <= 0).

        Args:
            number: The trial's.
            cost: As far as it was measured.
            margins: For each limit that was checked, `value / limit - 1`.
            scores: What the untrained network says of itself, by the score's name.
        """
        trial_id = self._trial_id(number)
        with self.together():
            for name, margin in margins.items():
                self._storage.set_trial_system_attr(trial_id, f"constraints:{name}", margin)
            if scores:
                self._storage.set_trial_user_attr(trial_id, SCORES, dict(scores))
            self._storage.set_trial_user_attr(trial_id, COST, to_json(cost))
            self._read_again(number)

    def record_measurement(self, trial: Trial, measurement: Measurement) -> None:
        """Keep what a rung showed."""
        key = f"{MEASUREMENT}{len(trial.measurements)}"
        with self.together():
            self._storage.set_trial_user_attr(self._trial_id(trial.number), key, to_json(measurement))
            self._read_again(trial.number)

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
        outcome = {"state": state.value, "reason": reason, "failure": failure}
        with self.together():
            if constraint is not None:
                self._storage.set_trial_system_attr(trial_id, f"constraints:{constraint}", 1.0)
            self._storage.set_trial_user_attr(trial_id, OUTCOME, outcome)
            self.optuna.tell(number, values=values, state=OPTUNA_STATE[state])
            self._read_again(number)

    def close_lost_proposals(self) -> int:
        """Tell off what an earlier driver had asked for but not recorded; return how many.

        A candidate whose end was recorded but not told is told now.
        """
        with self.together():
            begun = self.optuna.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
            lost = [frozen.number for frozen in begun if not is_recorded(frozen)]
            for number in lost:
                self.optuna.tell(number, state=optuna.trial.TrialState.FAIL)
            for trial in (trial_of(frozen, {}) for frozen in begun if OUTCOME in frozen.user_attrs):
                values = (
                    [trial.value(o) or 0.0 for o in self.objectives] if trial.state is TrialState.COMPLETE else None
                )
                self.optuna.tell(trial.number, values=values, state=OPTUNA_STATE[trial.state])
        return len(lost)

    def _read_again(self, number: int) -> None:
        self.index.put(trial_of(self._storage.get_trial(self._trial_id(number)), self._facts))

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def has_records(folder: Path) -> bool:
    """Say whether a folder is that of a run, wherever its records are."""
    return any((folder / name).is_file() for name in (JOURNAL, POINTER))


def read_study(folder: Path) -> Study:
    """Read a run without touching it; works while the run goes on.

    Raises:
        InputError: If the folder holds no run, or none yet.
        StoreError: If the journal is damaged before its last line, or the database cannot be reached.
    """
    with no_garbage_sought(), opened(folder) as study:
        return study_of(folder, study)


@contextmanager
def opened(folder: Path) -> Iterator[optuna.Study]:
    """Open a run as Optuna's study, to read; wherever its records lie. Raises what `read_study` does."""
    place = followed_pointer(folder)
    if place is None:
        yield _journal_study(folder)
    else:
        with reading_study(place) as study:
            yield study


@contextmanager
def opened_storage(folder: Path) -> Iterator[BaseStorage]:
    """Open the storage that holds a run, to read. Raises what `read_study` does."""
    place = followed_pointer(folder)
    if place is None:
        yield _read_journal_of(folder)
    else:
        with reading(place) as storage:
            yield storage


def _read_journal_of(folder: Path) -> BaseStorage:
    path = folder / JOURNAL
    if not path.is_file():
        raise InputError(
            f"{folder}: holds no run ({JOURNAL} is not there).\n"
            "  Give the folder that `hfir-search run` wrote, e.g. results/efficient."
        )
    return read_journal(path)


def _journal_study(folder: Path) -> optuna.Study:
    storage = _read_journal_of(folder)
    summaries = optuna.get_all_study_names(storage)
    if not summaries:
        raise InputError(f"{folder}: holds no run yet ({JOURNAL} is empty).\n  Start it, or look again in a moment.")
    if len(summaries) != 1:
        raise StoreError(f"{folder / JOURNAL}: holds {len(summaries)} studies, not one. hfir-search did not write it.")
    return optuna.load_study(study_name=summaries[0], storage=storage)


def note_fact(folder: Path, key: str, value: Any) -> None:
    """Keep a fact about a finished or a paused run as a whole.

    Raises:
        StoreError: If another process holds the run, or its records are damaged or cannot be reached.
    """
    place = followed_pointer(folder)
    with hold(folder):
        if place is None:
            storage, _ = open_journal(folder / JOURNAL)
            [name] = optuna.get_all_study_names(storage)
            optuna.load_study(study_name=name, storage=storage).set_user_attr(f"{FACT}{key}", value)
            return
        with reading_study(place) as study:
            if is_fresh(lease_of(study), held=folder):
                raise StoreError(f"{folder}: another hfir-search is at work on this run.\n  Wait for it, or stop it.")
            study.set_user_attr(f"{FACT}{key}", value)


def times_of(folder: Path) -> tuple[datetime, datetime] | None:
    """Return when a run proposed its first candidate and when it last wrote, in UTC; None before the first one."""
    place = followed_pointer(folder)
    if place is not None:
        with reading_study(place) as study:
            return _times_in(study)
    path = folder / JOURNAL
    begun = _BEGUN.search(path.read_bytes()) if path.is_file() else None
    if begun is None:
        return None
    first = datetime.fromisoformat(begun[1].decode())
    return first.astimezone(UTC), datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)


def _times_in(study: optuna.Study) -> tuple[datetime, datetime] | None:
    trials = study.get_trials(deepcopy=False)
    times = [t for trial in trials for t in (trial.datetime_start, trial.datetime_complete) if t is not None]
    return (min(times).astimezone(UTC), max(times).astimezone(UTC)) if times else None


def _data_folders(spec: Mapping[str, Any]) -> Any:
    return spec.get("task", {}).get("data")


def _with_data_folders(spec: Mapping[str, Any], data: Any) -> dict[str, Any]:
    return dict(spec) if data is None else {**spec, "task": {**spec["task"], "data": data}}


def _direction(objective: str) -> StudyDirection:
    return StudyDirection.MAXIMIZE if OBJECTIVES[objective].maximise else StudyDirection.MINIMIZE


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
