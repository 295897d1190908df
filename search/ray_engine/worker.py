"""What runs on the nodes: train a candidate through a rung, or look at what a node has."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import tune

from search.evaluation.answers import Baseline, Evaluator
from search.evaluation.plan import CandidateJob
from search.executors import Outcome, portable
from search.ray_engine.exchange import CANDIDATE, SCALARS, Exchange
from search.timing import span, working
from search.types import InputError

JOB, EARLIER, OUTCOME = "job", "earlier", "outcome"
"""Keys of what Tune carries: a trial's job and where an earlier session left it; what came of the job."""


def train_candidate(
    config: dict[str, Any], *, evaluator: Evaluator, start: Callable[[], None], exchange: Exchange
) -> None:
    """Train a candidate through its job's rung, and report the measurement with a checkpoint: one iteration of Tune.

    An error of the evaluator is an answer, not a failure of the worker: it is reported, and so never tried again.

    Args:
        config: The trial's: its job, and where an earlier session left its checkpoint, if so.
        evaluator: Does the training.
        start: Prepares this thread.
        exchange: Where checkpoints are exchanged.
    """
    start()
    job: CandidateJob = config[JOB]
    with TemporaryDirectory(prefix="hfir-search-") as name:
        folder = Path(name)
        here = replace(
            job,
            checkpoint=str(folder / CANDIDATE),
            scalars=None if job.scalars is None else str(folder / SCALARS),
        )
        with working() as work:
            try:
                with span("checkpoint"):
                    exchange.require(node_name())
                    _take_up(folder, exchange, config.get(EARLIER))
                outcome = Outcome(job, value=evaluator.train(here), work=work)
            except InputError as error:
                outcome = Outcome(job, error=_of_this_node(error), trace=traceback.format_exc(), work=work)
            except Exception as error:
                outcome = Outcome(job, error=portable(error), trace=traceback.format_exc(), work=work)
        kept = None if outcome.value is None else tune.Checkpoint.from_directory(folder)
        tune.report({OUTCOME: outcome}, checkpoint=kept)


def look_at_node(evaluator: Evaluator, start: Callable[[], None], exchange: Exchange) -> Baseline | InputError:
    """Return what this node makes of the data, or why it cannot be used; so its photographs are read ahead, too."""
    start()
    try:
        exchange.require(node_name())
        return evaluator.look_at_data(None)
    except InputError as error:
        return _of_this_node(error)


def node_name() -> str:
    """Return this node's address."""
    return ray.util.get_node_ip_address()


def _take_up(folder: Path, exchange: Exchange, earlier: str | None) -> None:
    """Put the candidate's training, as far as it came, where it goes on."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as kept:
            shutil.copyfile(Path(kept) / CANDIDATE, folder / CANDIDATE)
    elif earlier is not None:
        exchange.fetch(earlier, folder / CANDIDATE)


def _of_this_node(error: InputError) -> InputError:
    return InputError(str(error) if node_name() in str(error) else f"node {node_name()}: {error}")
