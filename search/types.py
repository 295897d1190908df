"""The platform's vocabulary: plain records, enums and the error tree. Standard library only.

Errors, as a tree; catch the base to catch them all::

    HFIRSearchError
    ├── InputError          what the user wrote cannot be used (exit code 2)
    │   └── SpecError       … and it stands in an experiment file: carries file, line and key
    ├── StoreError          a run's folder cannot be opened, or does not fit what is asked of it
    ├── WorkerStartError    a worker process cannot start, so no job can run
    └── EvaluationError     a candidate could not be measured or trained
        ├── DivergedError       its training does not converge
        ├── DataError           the data could not be read
        ├── JobTimeoutError     it took longer than it may
        └── WorkerDiedError     the process that worked on it died
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

Scalar = str | int | float | bool
"""What a space may hold: JSON scalars, so that a genotype can be written down anywhere."""


class HFIRSearchError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(HFIRSearchError):
    """What the user gave cannot be used. The message says what, the rule, and what to do."""


class SpecError(InputError):
    """One fault in an experiment file, said in one message.

    Args:
        problem: What is wrong, with the values.
        remedy: The rule and what to do about it.
        source: The file (or `--set`), as the user named it.
        line: 1-based line in the file, or None where there is none.
    """

    def __init__(self, problem: str, *, remedy: str, source: str, line: int | None = None) -> None:
        self.problem, self.remedy, self.source, self.line = problem, remedy, source, line
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {problem}\n  {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from keyword arguments, so that the error crosses process borders whole."""
        return _rebuild_spec_error, (self.problem, self.remedy, self.source, self.line)


def _rebuild_spec_error(problem: str, remedy: str, source: str, line: int | None) -> SpecError:
    return SpecError(problem, remedy=remedy, source=source, line=line)


class StoreError(HFIRSearchError):
    """A run's folder cannot be opened, or holds something else than what is asked for."""


class WorkerStartError(HFIRSearchError):
    """A worker process cannot start: something is wrong with the installation, not with a candidate."""


class FailureKind(StrEnum):
    """What a FAILED candidate failed of; its reason begins with it."""

    DIVERGED = "diverged"
    """The loss or the quality is not finite, or the loss exploded."""
    OUT_OF_MEMORY = "out of memory"
    """An allocation was refused, or the worker was killed, of which lack of memory is the usual cause."""
    TIMEOUT = "timeout"
    """Its job took longer than `execution.timeout_s`; the worker was ended."""
    DATA = "data"
    """The data could not be read."""
    CRASHED = "crashed"
    """Anything else; the traceback says what."""


class EvaluationError(HFIRSearchError):
    """A candidate could not be measured or trained; the message names the candidate and the cause."""

    kind = FailureKind.CRASHED


class DivergedError(EvaluationError):
    """A training does not converge: no other worker would do better."""

    kind = FailureKind.DIVERGED


class DataError(EvaluationError):
    """The data could not be read, which is not the candidate's fault."""

    kind = FailureKind.DATA


class JobTimeoutError(EvaluationError):
    """A job took longer than it may; its worker was ended."""

    kind = FailureKind.TIMEOUT


class WorkerDiedError(EvaluationError):
    """The process that worked on a candidate died; whose fault that is, is not known.

    Args:
        message: What happened.
        killed: By SIGKILL, as the system does where memory runs out.
    """

    def __init__(self, message: str, *, killed: bool) -> None:
        super().__init__(message)
        self.kind = FailureKind.OUT_OF_MEMORY if killed else FailureKind.CRASHED


class TrialState(StrEnum):
    """Where a candidate stands. Everything but RUNNING is final."""

    RUNNING = "RUNNING"
    """Admitted by the budget: waiting for a worker, in training, or paused between two rungs."""
    COMPLETE = "COMPLETE"
    """Trained through the last rung. Only these can be on the front."""
    STOPPED = "STOPPED"
    """Left behind by the scheduler at a rung."""
    SCREENED = "SCREENED"
    """Within the budget, but left behind by its zero-cost score before the first rung: never trained."""
    INFEASIBLE = "INFEASIBLE"
    """Over a limit of the budget, or not a legal network: never trained."""
    DUPLICATE = "DUPLICATE"
    """The same network as an earlier candidate: never trained twice."""
    FAILED = "FAILED"
    """Crashed or diverged; the record keeps why."""


@dataclass(frozen=True, slots=True, eq=False)
class Genotype:
    """A point of a search space: the *active* parameters and their values, nothing else.

    Two genotypes are equal when they hold the same values, in type and value, whatever the order.
    """

    values: Mapping[str, Scalar]

    @property
    def key(self) -> str:
        """A stable 16-digit hexadecimal name of this point (BLAKE2b of its sorted JSON)."""
        return stable_hash(dict(self.values))

    def __getitem__(self, name: str) -> Scalar:
        return self.values[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Genotype) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def stable_hash(value: Any) -> str:
    """Name any JSON value by 16 hexadecimal digits, the same on every machine and Python version."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """The size of a network's *input* in pixels; what `at: [width, height]` means in a file."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long one forward pass takes, and how that was found out.

    The interval is the 95 % confidence interval of the median (order statistics); of a figure that is not trusted, the
    middle 80 % of its blocks' medians.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int
    at: str
    threads: int
    device: str
    dtype: str
    runtime: str
    host: str
    measured_at: str
    """UTC, ISO 8601."""
    trusted: bool = True
    """False where the machine was busy throughout. The figure is then shown as doubtful, and is what each block's time
    would have been but for the share that a reference network lost beside it."""
    reference: str = ""
    """Size class of the network that was timed beside it; empty in records of before it was kept."""
    reference_ratio: float | None = None
    """Median over what that reference is known to take at rest."""
    reference_drift: float | None = None
    """By how much that reference was slower than at rest, as a share, in the median of its blocks."""
    discarded_blocks: int = 0
    """Blocks of passes during which the machine was busy."""
    versions: Mapping[str, str] = field(default_factory=lambda: {})
    """Of what the figure depends on; empty in records of before they were kept."""

    @property
    def doubt(self) -> str:
        """Why the figure is not to be trusted, in words; empty where it is."""
        if self.trusted:
            return ""
        slow = self.reference_drift is not None and self.reference_drift >= 0.01
        drift = f", a reference ran {self.reference_drift:.0%} slower than at rest" if slow else ""
        return f"latency untrusted: the machine was busy{drift}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the *deploy form* of a network costs: fused, eval mode, batch 1.

    `macs_g` counts multiply-accumulates in units of 1e9 (FLOPs are twice that). A field is None
    where it was not measured because an earlier limit had already rejected the network.
    """

    params_m: float
    """Parameters of the deploy form, in millions."""
    params_train_m: float
    """Parameters of the training form (parallel branches counted), in millions."""
    params_active_m: float
    """Parameters of the deploy form that one image uses (top-k of the experts), in millions."""
    macs_g: float
    macs_at: str
    """The input size that `macs_g` holds for, as `WIDTHxHEIGHT`."""
    latency: Latency | None = None
    peak_mem_mib: float | None = None
    """Peak of tensor memory in one forward pass, weights and input included, in MiB."""
    peak_mem_at: str | None = None
    activations_m: float | None = None
    """Values that convolutions and matrix products put out in one forward pass, in millions, at `macs_at`."""

    @property
    def latency_ms(self) -> float | None:
        """Median latency in ms, where it was measured."""
        return None if self.latency is None else self.latency.median_ms

    @property
    def doubt(self) -> str:
        """Why the latency is not to be trusted, in words; empty where it is, or was not measured."""
        return "" if self.latency is None else self.latency.doubt


DEAD_SHARE = 0.1
"""An expert is dead where its load is below this share of a fair one."""
BALANCED_ENTROPY = 0.9
"""From this load entropy on, the experts of a mixture count as balanced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertUse:
    """What the experts of one mixture did over the validation photographs, in eval mode.

    Args:
        stage: Where the mixture stands, e.g. `mid`; its position from 1 where that is not known.
        load: Share of the choices that went to each expert, photograph by photograph, averaged; sums to 1.
        load_entropy: Entropy of the load over the logarithm of the number of experts: 1 for fair shares, 0 where
            one expert gets all.
        confidence: Mean probability of the likeliest expert; 1 over the number of experts where nothing is decided.
        degradations: Names of the degradations in a task with labels; else empty.
        load_by_degradation: For each of them, the load over its photographs alone.
        information_bits: Mutual information of degradation and expert: 0 where the one says nothing of the other.
    """

    stage: str
    load: tuple[float, ...]
    load_entropy: float
    confidence: float
    degradations: tuple[str, ...] = ()
    load_by_degradation: tuple[tuple[float, ...], ...] = ()
    information_bits: float | None = None

    @property
    def dead(self) -> tuple[int, ...]:
        """The experts, from 0, that get less than a tenth of a fair share."""
        return tuple(i for i, share in enumerate(self.load) if share < DEAD_SHARE / len(self.load))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one rung of proxy training showed."""

    rung: int
    """Index into `proxy.rungs`, from 0."""
    step: int
    """Training steps spent on this candidate in all."""
    psnr_db: float
    """Mean over the validation photographs."""
    ssim: float
    psnr_per_image_db: tuple[float, ...]
    elapsed_s: float
    """Seconds spent in training since the step 0, validation excluded."""
    loss: float
    """Mean training loss over the rung's last tenth of steps."""
    experts: tuple[ExpertUse, ...] = ()
    """What each mixture's experts did, in the order of the data; looked at after the last rung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """One more training of a candidate, through all rungs, from other initial weights."""

    seed: int
    """Draws the initial weights."""
    psnr_db: float | None = None
    """Mean over the validation photographs; None where the training failed."""
    ssim: float | None = None
    psnr_per_image_db: tuple[float, ...] = ()
    step: int = 0
    """Training steps spent on it."""
    elapsed_s: float = 0.0
    reason: str = ""
    """Why it failed, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate and all that is known of it."""

    number: int
    state: TrialState
    genotype: Genotype
    key: str
    seed: int
    generation: int
    config: Mapping[str, Any] | None = None
    """The network as `HFIRConfig.to_dict()` gives it; None where the genotype decodes to none."""
    cost: Cost | None = None
    scores: Mapping[str, float] = field(default_factory=lambda: {})
    """What the untrained network says of itself, by the score's name; higher is better. Empty without screening."""
    measurements: tuple[Measurement, ...] = ()
    reason: str = ""
    """Why the candidate is in its state, in one line; empty for RUNNING and COMPLETE."""
    failure: str = ""
    """The traceback of a FAILED candidate."""
    replicates: tuple[Replicate, ...] = ()
    """Its trainings with further seeds; `measurements` are of the first one."""
    setbacks: tuple[str, ...] = ()
    """Why jobs of it were lost through no fault of its own and done again, one line each."""

    @property
    def last(self) -> Measurement | None:
        """The measurement at the highest rung reached."""
        return self.measurements[-1] if self.measurements else None

    @property
    def failure_kind(self) -> FailureKind | None:
        """What it failed of; None where it did not fail. Records without a kind are crashes."""
        if self.state is not TrialState.FAILED:
            return None
        return next((kind for kind in FailureKind if self.reason.startswith(f"{kind}:")), FailureKind.CRASHED)

    def value(self, objective: str) -> float | None:
        """The figure for an objective's name (see `OBJECTIVES`), or None where it is not known."""
        return figure_of(self.cost, self.last, objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A network that the candidates are compared with, and all that is known of it. No trial."""

    name: str
    made: Mapping[str, Any]
    """How it is made: `network` (a built-in one) or `module` (an import path), and `args`."""
    cost: Cost | None = None
    over: str = ""
    """Which limits of the budget it misses, with the figures; empty where it keeps to all."""
    measurements: tuple[Measurement, ...] = ()
    """One a rung; after no step, where there is nothing to train in it."""
    reason: str = ""
    """Why it failed, in one line; empty where it did not."""
    failure: str = ""
    """The traceback of a failed one."""

    @property
    def last(self) -> Measurement | None:
        """The measurement at the highest rung reached."""
        return self.measurements[-1] if self.measurements else None

    def value(self, objective: str) -> float | None:
        """The figure for an objective's name (see `OBJECTIVES`), or None where it is not known."""
        return figure_of(self.cost, self.last, objective)


def figure_of(cost: Cost | None, last: Measurement | None, objective: str) -> float | None:
    """Return the figure for an objective's name from a network's cost and its last measurement."""
    record = last if objective in ("psnr_db", "ssim") else cost
    value = None if record is None else getattr(record, objective)
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A figure that is searched over: its unit, its direction, and how to print it."""

    name: str
    label: str
    maximise: bool
    decimals: int


OBJECTIVES: Mapping[str, Objective] = {
    o.name: o
    for o in (
        Objective(name="psnr_db", label="PSNR (dB)", maximise=True, decimals=2),
        Objective(name="ssim", label="SSIM", maximise=True, decimals=4),
        Objective(name="latency_ms", label="latency (ms)", maximise=False, decimals=2),
        Objective(name="macs_g", label="MACs (G)", maximise=False, decimals=3),
        Objective(name="params_m", label="parameters (M)", maximise=False, decimals=3),
        Objective(name="peak_mem_mib", label="peak memory (MiB)", maximise=False, decimals=1),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A run as it stands on disk: what was asked for and every candidate so far. Read-only."""

    name: str
    folder: Path
    objectives: tuple[str, ...]
    spec: Mapping[str, Any]
    """The experiment as resolved (defaults filled in), plain JSON."""
    facts: Mapping[str, Any]
    """What the run found out beside its trials: baselines, versions, host, wall time, verification."""
    trials: tuple[Trial, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        """The networks that the run is compared with, as far as they are known, in the order of the experiment."""
        return tuple(reference_from_json(name, data) for name, data in self.facts.get("references", {}).items())

    def in_state(self, *states: TrialState) -> tuple[Trial, ...]:
        """The trials that are in one of the states, in order of their numbers."""
        return tuple(t for t in self.trials if t.state in states)


def to_json(record: Any) -> Any:
    """Turn a record of this module into plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(record)))


def cost_from_json(data: Mapping[str, Any]) -> Cost:
    """Read a `Cost` back from what `to_json` made of it."""
    fields: dict[str, Any] = dict(data)
    latency: dict[str, Any] | None = fields.get("latency")
    fields["latency"] = None if latency is None else Latency(**latency)
    return Cost(**fields)


def measurement_from_json(data: Mapping[str, Any]) -> Measurement:
    """Read a `Measurement` back from what `to_json` made of it."""
    fields: dict[str, Any] = dict(data)
    fields["psnr_per_image_db"] = tuple(fields["psnr_per_image_db"])
    fields["experts"] = tuple(_expert_use_from_json(use) for use in fields.get("experts", ()))
    return Measurement(**fields)


def reference_from_json(name: str, data: Mapping[str, Any]) -> Reference:
    """Read a `Reference` back from what the run keeps of it under its name."""
    return Reference(
        name=name,
        made=data["made"],
        cost=None if data["cost"] is None else cost_from_json(data["cost"]),
        over=data["over"],
        measurements=tuple(measurement_from_json(m) for m in data["measurements"]),
        reason=data["reason"],
        failure=data["failure"],
    )


def replicate_from_json(data: Mapping[str, Any]) -> Replicate:
    """Read a `Replicate` back from what `to_json` made of it."""
    fields: dict[str, Any] = dict(data)
    fields["psnr_per_image_db"] = tuple(fields["psnr_per_image_db"])
    return Replicate(**fields)


def _expert_use_from_json(data: Mapping[str, Any]) -> ExpertUse:
    fields: dict[str, Any] = dict(data)
    fields["load"], fields["degradations"] = tuple(fields["load"]), tuple(fields["degradations"])
    fields["load_by_degradation"] = tuple(tuple(row) for row in fields["load_by_degradation"])
    return ExpertUse(**fields)
