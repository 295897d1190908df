"""What is asked about candidates, and what is answered. Standard library only, so that reading it loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from search.evaluation.plan import CandidateJob, ReferenceJob
from search.types import Cost, Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the gate found out about a candidate.

    Args:
        cost: As far as it was measured: the first limit that is missed ends the measuring.
        margins: For each limit that was checked, `value / limit - 1`; above 0 the candidate is over it.
        reason: Which limit is missed, with the figures; empty where the candidate is admitted.
        scores: Of an admitted candidate where candidates are screened: what it says of itself untrained, by the
            score's name; higher is better.

    A latency that is not to be trusted decides all the same: a neighbour only makes it longer, so one within its limit
    is within it, and one over it is rejected with its doubt in the reason. Both are said (`doubt`).
    """

    cost: Cost
    margins: Mapping[str, float]
    reason: str
    scores: Mapping[str, float] = field(default_factory=lambda: {})

    @property
    def doubt(self) -> str:
        """What is doubtful about the decision, in words; empty where nothing is."""
        doubt = self.cost.doubt
        if not doubt or "latency_ms" not in self.margins:
            return doubt
        return f"{doubt}; {'rejected' if self.margins['latency_ms'] > 0 else 'within its limit'} all the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a run is compared with, and on what.

    Args:
        psnr_db: Of doing nothing: bicubic enlargement, or the degraded input itself.
        ssim: Likewise.
        images: Names of the validation photographs.
        psnr_per_image_db: In their order.
        train_images: Photographs that are trained on.
        notes: What was left out of the data, one line each.
        host: This machine.
        versions: Of what figures depend on.
        photographs: What is trained and validated on, by content: `search.tasks.leaks.Seen` as JSON.
        storage: Where processes have the photographs from; of this machine, so no record of a run holds it.
    """

    psnr_db: float
    ssim: float
    images: tuple[str, ...]
    psnr_per_image_db: tuple[float, ...]
    train_images: int
    notes: tuple[str, ...]
    host: str
    versions: Mapping[str, str]
    photographs: Mapping[str, Any] = field(default_factory=dict)
    storage: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what a run records, as plain values."""
        recorded = asdict(self)
        del recorded["storage"]
        return recorded


class Evaluator(Protocol):
    """Answers about candidates; each method is a job for a worker, so evaluators and answers are picklable.

    The same job has the same answer on any worker, latencies aside.
    """

    def look_at_data(self, job: None) -> Baseline:
        """Load what is trained on, and return what a run is compared with; InputError where it cannot be used."""
        ...

    def admit(self, job: CandidateJob) -> Admission:
        """Return what a candidate costs, held against the limits. Runs with nothing else running."""
        ...

    def train(self, job: CandidateJob) -> Measurement:
        """Train a candidate through `job.rung`, going on from where it stands."""
        ...

    def remeasure(self, job: CandidateJob) -> Admission:
        """Return an admitted candidate's cost, measured afresh. Runs with nothing else running."""
        ...


class ReferenceEvaluator(Protocol):
    """Answers about networks that a run is compared with; as an `Evaluator` does about candidates."""

    def try_reference(self, job: ReferenceJob) -> bool:
        """Build the network and restore a small image; SpecError where that fails."""
        ...

    def measure_reference(self, job: ReferenceJob) -> Admission:
        """Return what the network costs, held against the limits. Runs with nothing else running."""
        ...

    def train_reference(self, job: ReferenceJob) -> Measurement:
        """Train the network through `job.rung`, going on from where it stands."""
        ...
