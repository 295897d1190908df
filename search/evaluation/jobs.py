"""The jobs as a driver hands them out, and how a worker starts. A driver loads no torch by them: workers do.

So workers can be started first and import torch beside each other while the driver gets ready.
"""

from __future__ import annotations

from dataclasses import dataclass

from search.evaluation.answers import Admission, Baseline
from search.evaluation.plan import CandidateJob, EvaluationPlan, ReferenceJob
from search.types import Measurement


def start_worker() -> None:
    """Prepare a worker process: one thread, no time lost on denormal numbers or on memory taken again and again.

    What jobs need is imported here, so that it is part of the start and not of the first job.
    """
    import torch

    import search.evaluation.evaluator  # noqa: F401 - for its imports alone
    from search.evaluation.allocator import keep_memory

    keep_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@dataclass(frozen=True, slots=True)
class ProxyEvaluator:
    """Answers by the real thing: builds each network, measures it, and trains it by the proxy."""

    plan: EvaluationPlan

    def look_at_data(self, job: None) -> Baseline:
        """Load the data and score what costs nothing."""
        from search.evaluation.evaluator import look_at_data

        return look_at_data(self.plan)

    def admit(self, job: CandidateJob) -> Admission:
        """Measure what a candidate costs and hold it against the limits, cheapest figures first."""
        from search.evaluation.evaluator import admit

        return admit(self.plan, job)

    def train(self, job: CandidateJob) -> Measurement:
        """Train a candidate through a rung, going on from where it stands."""
        from search.evaluation.evaluator import train

        return train(self.plan, job)

    def remeasure(self, job: CandidateJob) -> Admission:
        """Measure an admitted candidate's memory and latency afresh, twice as long."""
        from search.evaluation.evaluator import remeasure

        return remeasure(self.plan, job)

    def try_reference(self, job: ReferenceJob) -> bool:
        """Build a network to compare with, and restore a small image by it."""
        from search.evaluation.references import try_reference

        return try_reference(self.plan, job)

    def measure_reference(self, job: ReferenceJob) -> Admission:
        """Measure what a network to compare with costs, and hold it against the limits."""
        from search.evaluation.evaluator import admit_reference

        return admit_reference(self.plan, job)

    def train_reference(self, job: ReferenceJob) -> Measurement:
        """Train a network to compare with through a rung, going on from where it stands."""
        from search.evaluation.evaluator import train_network

        return train_network(self.plan, job)
