"""A run's trained candidates in MLflow, one MLflow run each, for those who keep their experiments there.

A mirror, never the record: the journal in the run's folder stays the truth, and a server that fails costs a warning.
MLflow is optional, and loaded only when used.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from search.types import InputError, Study, Trial, TrialState, stable_hash

FINISHED = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)
"""What is logged: candidates that cost one of `search.trials`, once nothing more happens to them."""
COSTS = ("latency_ms", "macs_g", "params_m", "peak_mem_mib")
PAGE = 1000
"""MLflow runs that are read at a time."""
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Unless set otherwise: a silent server holds the search up for seconds, not minutes, and nobody else is told of it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A run that MLflow has already."""

    run_id: str
    whole: bool
    """False where the driver died before it had written everything."""


class MLflowLog:
    """Logs trials to an MLflow tracking server, each once, however often the search is taken up again.

    An MLflow experiment has the run's name. A trial is known again by its key, its number and the run's folder, so a
    folder that was moved is logged anew.

    Args:
        uri: `http://…`, `sqlite:///file.db`: whatever MLflow takes.

    Raises:
        InputError: If MLflow cannot be imported.
    """

    def __init__(self, uri: str) -> None:
        require_mlflow(uri)
        self._uri = uri
        self._client: Any = None
        self._experiment = ""
        self._seen: dict[str, _Seen] = {}
        self._failed = False

    def log(self, study: Study) -> None:
        """Log what is finished and not there yet; the first failure is told, and ends it until the next start."""
        if self._failed:
            return
        try:
            if self._client is None:
                self._connect(study)
            for trial in study.in_state(*FINISHED):
                self._log_trial(study, trial)
        except Exception as error:  # whatever a server, a database or the network between may raise: the run goes on
            self._failed = True
            log.warning(
                "study=%s mlflow_failed=%r The run goes on without it; start it again to log what is missing.",
                study.name,
                _told(error, self._uri),
            )

    def _connect(self, study: Study) -> None:
        self._client = client_of(self._uri)
        found = self._client.get_experiment_by_name(study.name)
        self._experiment = self._client.create_experiment(study.name) if found is None else found.experiment_id
        for run in self._runs():
            if "hfir_trial_id" in run.data.tags:
                self._seen[run.data.tags["hfir_trial_id"]] = _Seen(run.info.run_id, run.info.status != "RUNNING")

    def _runs(self) -> Iterator[Any]:
        """Yield all runs of the experiment that are not deleted."""
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _log_trial(self, study: Study, trial: Trial) -> None:
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

        identity = _identity(study, trial)
        seen = self._seen.get(identity)
        if seen is not None and seen.whole:
            return
        run_id = self._create(study, trial, identity) if seen is None else seen.run_id
        self._seen[identity] = _Seen(run_id, False)
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value, step in metrics_of(trial)]
        self._client.log_batch(run_id, metrics=metrics, params=[Param(*pair) for pair in params_of(trial).items()])
        self._client.set_terminated(run_id, "FAILED" if trial.state is TrialState.FAILED else "FINISHED")
        self._seen[identity] = _Seen(run_id, True)

    def _create(self, study: Study, trial: Trial, identity: str) -> str:
        name = f"{study.name} trial-{trial.number:04d}"
        tags = tags_of(study, trial) | {"hfir_trial_id": identity}
        return self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id


def require_mlflow(uri: str) -> None:
    """Load what MLflow needs for a tracking URI, so that a missing package is noticed before anything is spent.

    Raises:
        InputError: If something cannot be imported. Any other fault is left to `MLflowLog.log`, which tells it.
    """
    try:
        client_of(uri)
    except ImportError as error:
        raise InputError(
            f"--mlflow {_shown(uri)}: something that it needs cannot be imported ({error}).\n"
            "  Install it: pip install 'hfir-search[mlflow]'."
        ) from error
    except Exception as error:  # a database that is locked now must not keep a search from going on
        log.debug("mlflow uri=%s %r", _shown(uri), error)


def client_of(uri: str) -> Any:
    """Return MLflow's client for a tracking URI; nothing global is set but `ENVIRONMENT`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    return MlflowClient(tracking_uri=uri)


def params_of(trial: Trial) -> dict[str, str]:
    """Return the genotype as MLflow's params, names as in experiment files."""
    return {name: str(value) for name, value in trial.genotype.values.items()}


def metrics_of(trial: Trial) -> list[tuple[str, float, int]]:
    """Return names with their units, values and training steps; costs stand at the last step."""
    metrics = [
        (name, float(getattr(m, name)), m.step) for m in trial.measurements for name in ("psnr_db", "ssim", "loss")
    ]
    metrics += [("training_s", m.elapsed_s, m.step) for m in trial.measurements]
    step = 0 if trial.last is None else trial.last.step
    costs = [(name, trial.value(name)) for name in COSTS]
    return metrics + [(name, value, step) for name, value in costs if value is not None]


def tags_of(study: Study, trial: Trial) -> dict[str, str]:
    """Return what is to be searched for: state, key, the run's name and a link to its folder."""
    tags = {
        "hfir_run": study.name,
        "hfir_run_folder": study.folder.resolve().as_uri(),
        "hfir_trial": str(trial.number),
        "hfir_trial_key": trial.key,
        "hfir_state": str(trial.state),
    }
    return tags | ({"hfir_reason": trial.reason} if trial.reason else {})


def _identity(study: Study, trial: Trial) -> str:
    return stable_hash([study.name, str(study.folder.resolve()), trial.number, trial.key])


def _told(error: Exception, uri: str) -> str:
    """Return the error in one line, without the login that the URI may hold."""
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text.replace(_login(uri), '')}"


def _shown(uri: str) -> str:
    """Return a tracking URI without user and password."""
    return uri.replace(_login(uri), "")


def _login(uri: str) -> str:
    """Return `user:password@` of a URI; empty where there is none."""
    login, at, _ = uri.partition("://")[2].partition("/")[0].rpartition("@")
    return login + at
