"""An evaluator that trains a candidate once in a process: for tests of what a run does with what it is answered."""

from __future__ import annotations

from search.evaluation.jobs import ProxyEvaluator
from search.evaluation.plan import CandidateJob
from search.types import Measurement, stable_hash

_trained: dict[str, Measurement] = {}


class Remembering(ProxyEvaluator):
    """Answers as the real evaluator does; a training that an earlier test asked for is not repeated."""

    def train(self, job: CandidateJob) -> Measurement:
        key = stable_hash([repr(self.plan.task), repr(self.plan.proxy), job.config, job.seed, job.rung])
        if key not in _trained:
            _trained[key] = super().train(job)
        return _trained[key]
