"""A run on Ray: sessions of Tune, one after the other, until the study wants nothing more."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from search.evaluation.answers import Baseline
from search.ray_engine.cluster import connected
from search.ray_engine.exchange import Exchange, open_exchange
from search.ray_engine.nodes import look_at_nodes, require_alike
from search.ray_engine.session import MAX_TRIALS, RungScheduler, Session, StudyCallback, StudySearcher
from search.ray_engine.worker import JOB, train_candidate
from search.study import SearchRun
from search.types import Study, stable_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySettings:
    """Where and how a run's trials are trained.

    Args:
        address: `local`, `auto`, or HOST:PORT.
        workers: Trials at the same time; None for as many as the cluster has room for.
        gpus_per_trial: Share of a GPU that each takes; 0 to train on processors.
        storage_path: By which checkpoints are exchanged: an absolute path or a URL; None for the run's folder.
        retries: Losses of its worker that a trial survives.
        max_trials: Trials in one session of Tune.
    """

    address: str = "local"
    workers: int | None = None
    gpus_per_trial: float = 0.0
    storage_path: str | None = None
    retries: int = 3
    max_trials: int = MAX_TRIALS


class RayRun:
    """Has a run's trainings done by Ray Tune; all other work is done by the search itself, here.

    Args:
        search: The run; its executor does what is measured, in a process of its own on this machine.
        settings: Where and how to train.
        start: Prepares each worker, importable by name.
    """

    def __init__(self, search: SearchRun, settings: RaySettings, start: Callable[[], None]) -> None:
        self._search, self._settings, self._start = search, settings, start

    def run(self) -> Study:
        """Search until the trials, the space or the time are spent; return the run as it then stands.

        Raises:
            InputError: If the cluster, a node or the data cannot be used.
        """
        settings, store = self._settings, self._search.store
        with connected(settings.address, settings.workers, gpus=settings.gpus_per_trial):
            exchange = _exchange(self._search.director.problem.name, store.folder.resolve(), settings.storage_path)
            try:
                self._run(exchange)
            finally:
                exchange.close()
        return store.study()

    def _run(self, exchange: Exchange) -> None:
        settings, search = self._settings, self._search
        nodes = look_at_nodes(search.evaluator, self._start, exchange)
        search.director.begin()
        is_at_end = False
        while not is_at_end:
            session = Session(
                search,
                exchange,
                at_once=None if settings.address == "local" else settings.workers,
                retries=settings.retries,
                device="cuda" if settings.gpus_per_trial else "cpu",
                last_rung=len(search.director.problem.proxy.rungs) - 1,
                max_trials=settings.max_trials,
            )
            session.advance()
            baseline = search.store.study().facts.get("baseline")
            if baseline is not None:
                require_alike(nodes, Baseline(**baseline))
            if not session.is_over:
                self._fit(session, exchange)
            is_at_end = session.is_at_end

    def _fit(self, session: Session, exchange: Exchange) -> None:
        """Let Tune work through a session."""
        settings = self._settings
        bound = tune.with_parameters(
            train_candidate, evaluator=self._search.evaluator, start=self._start, exchange=exchange
        )
        trainable = tune.with_resources(bound, {"cpu": 1, "gpu": settings.gpus_per_trial})
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(session),
                scheduler=RungScheduler(session),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=exchange.name,
                storage_path=exchange.storage,
                storage_filesystem=exchange.filesystem,
                callbacks=[StudyCallback(session)],
                failure_config=tune.FailureConfig(max_failures=settings.retries),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                verbose=0,
            ),
        ).fit()


def _trial_name(trial: TuneTrial) -> str:
    return f"{trial.config[JOB].number:05d}-{trial.trial_id}"


def _exchange(name: str, folder: Path, storage_path: str | None) -> Exchange:
    """Return the exchange of a run: in its own folder, or under a name that no other run with the storage path has."""
    if storage_path is None:
        return open_exchange(str(folder), "ray")
    return open_exchange(storage_path, f"{name}-{stable_hash([platform.node(), str(folder)])[:8]}")
