"""What a run can have to do next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from search.evaluation.plan import CandidateJob, ReferenceJob

Job = CandidateJob | ReferenceJob | None
"""What a worker is sent; None where the job is the run's, not a network's."""


class Kind(StrEnum):
    """What a step asks for; those with jobs are done by a method of an `Evaluator`, or a `ReferenceEvaluator`."""

    PROPOSE = "propose"
    """Ask the sampler for one candidate; no job."""
    LOOK = "look_at_data"
    """Load the data once before anything is spent."""
    ADMIT = "admit"
    """Measure candidates with nothing else running."""
    SCREEN = "screen"
    """Leave behind those of a generation that their scores speak against; no job."""
    TRAIN = "train"
    """Train candidates through a rung, side by side, the first first."""
    REMEASURE = "remeasure"
    """Measure members of the front again, with nothing else running."""
    REPLICATE = "replicate"
    """Train members of the front with further seeds, through all rungs, side by side."""
    TRY_REFERENCE = "try_reference"
    """Build the networks to compare with, before anything is spent."""
    MEASURE_REFERENCE = "measure_reference"
    """Measure one of them with nothing else running."""
    TRAIN_REFERENCE = "train_reference"
    """Train them through a rung, side by side."""
    CLOSE = "close"
    """Nothing is left to train: tell off who waits in vain; no job."""
    FINISH = "finish"
    """All is done; no job."""

    @property
    def method(self) -> str:
        """The method that does its jobs; a further seed is trained like any other."""
        return "train" if self is Kind.REPLICATE else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done next.

    Args:
        kind: What.
        phase: The same for an onlooker, in words.
        jobs: For the workers; none where the driver does it by itself.
    """

    kind: Kind
    phase: str
    jobs: tuple[Job, ...] = ()
