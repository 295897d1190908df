"""The sections of an experiment file but for the space: what may stand in them, and what it means.

A field's description is its rule: it is shown in errors, in the JSON Schema and so in editors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from search.tasks.members import DEFAULT_MEMBERS, MEMBERS, options_of
from search.tasks.ranges import RANGES
from search.types import OBJECTIVES, InputSize

FAULT = "hfir_fault"
"""The type by which our own validation errors are known among pydantic's."""


def fault(key: str, problem: str, remedy: str) -> PydanticCustomError:
    """Return a validation error that carries its remedy, about a key of the section ('' for all of it)."""
    return PydanticCustomError(FAULT, "{problem}", {"key": key, "problem": problem, "remedy": remedy})


class Section(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# The task -----------------------------------------------------------------------------------------

TASK_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "super_resolution": ("upscale",),
    "denoise": ("sigma",),
    "poisson": ("peak",),
    "deblur": ("blur_sigma_px", "noise_sigma"),
    "motion_blur": ("length_px", "angle_deg", "noise_sigma"),
    "defocus": ("radius_px", "noise_sigma"),
    "jpeg": ("quality",),
    "mixed": (*dict.fromkeys(option for member in MEMBERS.values() for option in member.options), "members"),
}
"""Which options belong to which kind of task; of a mixed one, each to a member."""

Option = float | int | tuple[str, ...]

_DEFAULTS: Mapping[str, float | int | None] = {
    "upscale": 2,
    "sigma": 25.0,
    "peak": 30.0,
    "blur_sigma_px": 1.6,
    "length_px": 9.0,
    "angle_deg": None,
    "radius_px": 2.5,
    "noise_sigma": 2.0,
    "quality": 30,
    "members": None,
}
_DEFAULTS_OF_KIND: Mapping[str, Mapping[str, float | int]] = {"mixed": {"quality": 20}}

DATA_FORMS = (
    ("folder",),
    ("train", "validation"),
    ("train", "validation", "train_degraded", "validation_degraded"),
    ("layout", "root"),
)
"""The keys that `data` may consist of."""
FOLDERS = frozenset(key for form in DATA_FORMS for key in form) - {"layout"}
"""Those of them that name a folder (or `embedded`)."""

_FORM_SCHEMAS: list[Any] = [{"required": list(form), "maxProperties": len(form)} for form in DATA_FORMS]
Folder = Annotated[str, Field(min_length=1)]


class DataSection(Section):
    """Where photographs come from: the embedded ones, one folder, two, pairs of folders, or a known data set."""

    model_config = ConfigDict(json_schema_extra={"oneOf": _FORM_SCHEMAS})

    folder: Folder | None = Field(
        default=None, description="`embedded`, or a folder of photographs (split for you) or of a known data set."
    )
    train: Folder | None = Field(default=None, description="Folder of clean photographs to train on.")
    validation: Folder | None = Field(default=None, description="Folder of clean photographs to validate on.")
    train_degraded: Folder | None = Field(
        default=None, description="Folder of degraded twins of `train`, same file stems."
    )
    validation_degraded: Folder | None = Field(
        default=None, description="Folder of degraded twins of `validation`, same file stems."
    )

    layout: Literal["div2k", "gopro", "sidd"] | None = Field(
        default=None, description="The layout is div2k, gopro or sidd, as these data sets are handed out."
    )
    root: Folder | None = Field(default=None, description="Folder of the data set that `layout` names.")

    @model_validator(mode="after")
    def _one_form(self) -> DataSection:
        given = tuple(name for name in type(self).model_fields if getattr(self, name) is not None)
        if given not in DATA_FORMS:
            raise fault(
                "",
                f"{{{', '.join(given)}}} is no data set.",
                "Write `embedded`, a folder, {train, validation}, "
                "{train, validation, train_degraded, validation_degraded}, or {layout, root}.",
            )
        return self


def _data(value: Any) -> Any:
    """Turn the short form of data, a folder alone, into the long one."""
    return {"folder": value} if isinstance(value, str) else value


_FOLDER_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "description": "`embedded`, or a folder of photographs (split for you) or of a known data set.",
}
_DATA_SCHEMA = {"anyOf": [_FOLDER_SCHEMA, DataSection.model_json_schema()]}
DataField = Annotated[DataSection, BeforeValidator(_data), WithJsonSchema(_DATA_SCHEMA)]

_CHANNELS = (1, 3)


def _channels(value: int) -> int:
    if value not in _CHANNELS:
        raise fault("", f"{value} is not possible.", "It takes 1 (luma) or 3 (colour).")
    return value


Channels = Annotated[int, AfterValidator(_channels), WithJsonSchema({"enum": list(_CHANNELS)})]


def _kinds_with(option: str) -> list[str]:
    return [kind for kind, options in TASK_OPTIONS.items() if option in options]


_OF_KIND: dict[str, Any] = {option: {"properties": {"kind": {"enum": _kinds_with(option)}}} for option in _DEFAULTS}


Kind = Literal["super_resolution", "denoise", "poisson", "deblur", "motion_blur", "defocus", "jpeg", "mixed"]
MemberName = Literal["texture", "denoise", "deblur", "artifact", "poisson", "motion_blur", "defocus"]


def _number(option: str, description: str) -> Any:
    """Return the field of a task's number: left out by default, else in the range that its degradation has."""
    low, high = RANGES[option]
    return Field(default=None, ge=low, le=high, description=description.format(range=RANGES[option]))


class TaskSection(Section):
    """What is done to photographs, and which."""

    model_config = ConfigDict(json_schema_extra={"dependentSchemas": _OF_KIND})

    kind: Kind = Field(
        description="The kind is super_resolution, denoise, poisson, deblur, motion_blur, defocus, jpeg or mixed."
    )
    upscale: int | None = _number("upscale", "super_resolution: enlargement, 2, 3 or 4 (default 2).")
    sigma: float | None = _number(
        "sigma", "denoise, mixed: standard deviation of the Gaussian noise in 8-bit levels, {range} (default 25)."
    )
    blur_sigma_px: float | None = _number(
        "blur_sigma_px", "deblur, mixed: standard deviation of the Gaussian blur in pixels, {range} (default 1.6)."
    )
    peak: float | None = _number(
        "peak", "poisson, mixed: photons that a pixel at full level stands for, {range} (default 30)."
    )
    length_px: float | None = _number(
        "length_px", "motion_blur, mixed: length of the path in pixels, {range} (default 9)."
    )
    angle_deg: float | None = _number(
        "angle_deg",
        "motion_blur, mixed: direction of the path in degrees, {range}, from the x axis towards the top; "
        "without it each patch has a direction of its own.",
    )
    radius_px: float | None = _number(
        "radius_px", "defocus, mixed: radius of the disc in pixels, {range} (default 2.5)."
    )
    noise_sigma: float | None = _number(
        "noise_sigma",
        "deblur, motion_blur, defocus: standard deviation of the noise after the blur in 8-bit levels, "
        "{range} (default 2).",
    )
    quality: int | None = _number("quality", "jpeg, mixed: quality of the compression, {range} (default 30; mixed 20).")
    members: tuple[MemberName, ...] | None = Field(
        default=None,
        strict=False,
        min_length=2,
        description=f"mixed: two or more of {', '.join(MEMBERS)}, each once (default {', '.join(DEFAULT_MEMBERS)}).",
        json_schema_extra={"uniqueItems": True},
    )
    channels: Channels = Field(default=3, description="1 (luma) or 3 (colour).")
    data: DataField = Field(
        default=DataSection(folder="embedded"),
        description="`embedded`, a folder, or a mapping of folders; relative to the experiment file.",
    )

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> TaskSection:
        for option in _DEFAULTS:
            kinds = _kinds_with(option)
            if self.kind not in kinds and getattr(self, option) is not None:
                raise fault(
                    option,
                    f"belongs to {_listed(tuple(kinds))}, not to {self.kind}.",
                    f"Remove it; {self.kind} takes {_listed(TASK_OPTIONS[self.kind])}.",
                )
        return self

    @model_validator(mode="after")
    def _members_fit(self) -> TaskSection:
        members = self.mixture
        if len(set(members)) < len(members):
            raise fault("members", f"[{', '.join(members)}] names one of them twice.", "Name each member once.")
        for name, member in MEMBERS.items() if self.kind == "mixed" else ():
            for option in member.options:
                if name not in members and getattr(self, option) is not None:
                    raise fault(
                        option,
                        f"belongs to the member {name}, which is not mixed in.",
                        f"Remove it, or write members: [{', '.join((*members, name))}].",
                    )
        return self

    @property
    def mixture(self) -> tuple[str, ...]:
        """The members of a mixed task."""
        return DEFAULT_MEMBERS if self.members is None else self.members

    @property
    def scale(self) -> int:
        """Enlargement of the task; 1 for restoration."""
        return (self.upscale or 2) if self.kind == "super_resolution" else 1

    @property
    def labelled(self) -> bool:
        """Whether each patch's degradation is known: it is drawn from several, and not given as files."""
        return self.kind == "mixed" and self.data.train_degraded is None

    def options(self) -> dict[str, Option]:
        """Return the options of this kind, defaults filled in; what is drawn or not mixed in is left out."""
        defaults = {**_DEFAULTS, **_DEFAULTS_OF_KIND.get(self.kind, {})}
        names = TASK_OPTIONS[self.kind]
        if self.kind == "mixed":
            names = (*options_of(self.mixture), "members")
        values = {option: _given(getattr(self, option), defaults[option]) for option in names}
        return {option: value for option, value in values.items() if value is not None}


def _listed(words: tuple[str, ...]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


# The budget ---------------------------------------------------------------------------------------

LIMITS = ("params_m", "macs_g", "peak_mem_mib", "latency_ms")
"""The costs that can have a limit, the cheapest to find out first."""

Side = Annotated[int, Field(ge=8, le=16384)]


class Limit(Section):
    """An upper limit on a cost and the input size that it holds for."""

    max: float | None = Field(
        default=None, gt=0, description="A limit is a number > 0; without one the cost is measured only."
    )
    at: tuple[Side, Side] | None = Field(
        default=None,
        strict=False,
        description="`at` is [width, height] of the network's input, 8..16384 pixels each.",
    )


def _limit(value: Any) -> Any:
    """Turn the short form of a limit, its value alone, into the long one."""
    return value if isinstance(value, dict | Limit) else {"max": value}


class LatencyLimit(Limit):
    """An upper limit on the latency, the input size that it holds for, and what runs the network where."""

    runtime: Literal["torch", "compile", "onnxruntime"] = Field(
        default="torch",
        description="What runs the network while it is timed: torch (eager), compile (torch.compile) or onnxruntime.",
    )
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda:\d+)$",
        description="Where the latency is measured: cpu, or a CUDA device by its number, such as cuda:0.",
    )

    @model_validator(mode="after")
    def _runtime_runs_there(self) -> LatencyLimit:
        if self.runtime == "onnxruntime" and self.device != "cpu":
            raise fault(
                "device", f"{self.device} and runtime onnxruntime do not go together.", "ONNX Runtime is timed on cpu."
            )
        return self


_NUMBER_SCHEMA = {"type": "number", "exclusiveMinimum": 0}
_MAX_SCHEMA = {"type": "object", "properties": {"max": _NUMBER_SCHEMA}, "additionalProperties": False}
SizedLimit = Annotated[
    Limit, BeforeValidator(_limit), WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, Limit.model_json_schema()]})
]
LatencyField = Annotated[
    LatencyLimit, BeforeValidator(_limit), WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, LatencyLimit.model_json_schema()]})
]
PlainLimit = Annotated[Limit, BeforeValidator(_limit), WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, _MAX_SCHEMA]})]


class BudgetSection(Section):
    """What a network may cost in its deploy form (fused, eval, batch 1). Over it, no training step is spent."""

    params_m: PlainLimit = Field(default=Limit(), description="Parameters, in millions.")
    macs_g: SizedLimit = Field(
        default=Limit(),
        description="Multiply-accumulates of one forward pass, in units of 1e9 (FLOPs are twice that).",
    )
    latency_ms: LatencyField = Field(
        default=LatencyLimit(),
        description="Median time of one forward pass, in ms; the upper end of its interval counts.",
    )
    peak_mem_mib: PlainLimit = Field(
        default=Limit(),
        description="Peak tensor memory of one forward pass, in MiB, at the size of latency_ms.",
    )
    threads: int = Field(default=1, ge=1, le=256, description="Threads that the latency is measured with, 1..256.")

    @model_validator(mode="after")
    def _sizes_where_they_count(self) -> BudgetSection:
        if self.params_m.at is not None:
            raise fault("params_m.at", "parameters have no input size.", "Remove `at`.")
        if self.peak_mem_mib.at is not None:
            raise fault("peak_mem_mib.at", "memory is measured at the size of latency_ms.", "Remove `at` here.")
        return self

    @property
    def latency_at(self) -> InputSize:
        """Input size for latency and memory; 160×160 by default."""
        return _size(self.latency_ms.at or (160, 160))

    @property
    def macs_at(self) -> InputSize:
        """Input size for MACs; 640×360 by default."""
        return _size(self.macs_g.at or (640, 360))

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by the cost's name."""
        named = {name: getattr(self, name).max for name in LIMITS}
        return {name: value for name, value in named.items() if value is not None}


def _size(at: tuple[int, int]) -> InputSize:
    return InputSize(width=at[0], height=at[1])


# Training and search ------------------------------------------------------------------------------

Steps = Annotated[int, Field(ge=1, le=10_000_000)]
WITHIN_STRATA = "within_strata"
"""How promotions compare candidates where the file says nothing (ADR 8)."""


class ProxySection(Section):
    """The short training that candidates are compared by; part of what a PSNR means."""

    rungs: tuple[Steps, ...] = Field(
        default=(100, 400, 1200),
        strict=False,
        min_length=1,
        description="Steps of training at which candidates are compared: whole numbers >= 1, rising.",
    )
    keep: float = Field(
        default=0.5, gt=0, le=1, description="Share of the candidates at a rung that go on, 0 < keep <= 1."
    )
    batch: int = Field(default=8, ge=1, le=4096, description="Patches in a step, 1..4096.")
    patch_px: int = Field(
        default=32, ge=8, le=1024, description="Side of a patch of the network's input, 8..1024 pixels."
    )
    learning_rate: float = Field(
        default=0.004, gt=0, le=1, description="Constant rate after the warm-up, 0 < rate <= 1."
    )
    warmup_steps: int = Field(
        default=20, ge=0, le=100_000, description="Steps over which the rate rises from 0, 0..100000."
    )
    loss: Literal["charbonnier", "l1"] = Field(default="charbonnier", description="The loss is charbonnier or l1.")
    routing_supervision: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Weight of what teaches routers which expert is for which degradation, 0..1; mixed tasks only.",
    )

    rank_by: Literal["within_strata", "extrapolated", "value"] = Field(
        default=WITHIN_STRATA,
        description="What promotions compare is within_strata (quality, among equal `levels`), extrapolated (what "
        "`predictor` expects at the last rung, among all) or value (quality, among all).",
    )
    predictor: Folder | None = Field(
        default=None,
        description="rank_by extrapolated: the file predictor.json of a calibration, relative to the experiment file.",
    )

    @model_validator(mode="after")
    def _predictor_where_it_counts(self) -> ProxySection:
        if self.rank_by == "extrapolated" and self.predictor is None:
            raise fault(
                "rank_by",
                "extrapolated needs a predictor.",
                "Name its file under proxy.predictor; `hfir-search calibrate` writes one.",
            )
        return self

    @model_validator(mode="after")
    def _rungs_rise(self) -> ProxySection:
        if any(a >= b for a, b in pairwise(self.rungs)):
            raise fault("rungs", f"{list(self.rungs)} does not rise.", "Write steps in rising order, each once.")
        return self


_TIME_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_AMOUNT_UNITS = {"k": 1_000, "M": 1_000_000}


def _seconds(value: Any) -> Any:
    """Turn 90s, 10m, 2h into seconds; leave what is neither for the check to refuse."""
    return float(value[:-1]) * _TIME_UNITS[value[-1]] if isinstance(value, str) and _TIME.match(value) else value


def _amount(value: Any) -> Any:
    """Turn 100k, 2M into a whole number; leave what is neither for the check to refuse."""
    return int(value[:-1]) * _AMOUNT_UNITS[value[-1]] if isinstance(value, str) and _AMOUNT.match(value) else value


_TIME, _AMOUNT = re.compile(r"^\d+(\.\d+)?[smh]$"), re.compile(r"^\d+[kM]$")
_SECONDS_SCHEMA = {"anyOf": [_NUMBER_SCHEMA, {"type": "string", "pattern": _TIME.pattern}]}
_AMOUNT_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _AMOUNT.pattern}]}
Seconds = Annotated[float, Field(gt=0), BeforeValidator(_seconds), WithJsonSchema(_SECONDS_SCHEMA)]
Amount = Annotated[int, Field(ge=1), BeforeValidator(_amount), WithJsonSchema(_AMOUNT_SCHEMA)]


class ScreeningSection(Section):
    """Which of many candidates are trained, told by a score of the untrained network."""

    score: Literal["synflow", "naswot", "grad_norm"] = Field(
        description="The score is synflow, naswot or grad_norm: higher is taken for better."
    )
    of: int = Field(
        default=4, ge=2, le=1000, description="Of each so many candidates within the budget one is trained, 2..1000."
    )


class SearchSection(Section):
    """How candidates are proposed, and how many are trained."""

    sampler: Literal["auto", "random", "qmc", "tpe", "nsga2", "nsga3", "gp", "evolution", "local"] = Field(
        default="auto",
        description="The sampler is auto, random, qmc, tpe, nsga2, nsga3, gp, evolution or local.",
    )
    trials: int = Field(
        default=48,
        ge=1,
        le=1_000_000,
        description="Candidates to train, 1..1000000; rejected and duplicate ones do not count.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the whole run, 0..2147483647.")
    generation: int = Field(
        default=12, ge=1, le=10_000, description="Candidates proposed before any is trained further, 1..10000."
    )
    time: Seconds | None = Field(
        default=None,
        description="Wall time of the whole search, over all its sessions: seconds > 0, or 90s, 10m, 2h.",
    )
    steps: Amount | None = Field(
        default=None, description="Training steps of the whole search: a whole number >= 1, or 100k, 2M."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="End the search once so many candidates in a row were trained without a growth of the dominated "
        "volume, 1..1000000.",
    )
    replicates: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Further seeds that each member of the front is trained with at the end, at most, until their "
        "order is clear, 0..100.",
    )
    screening: ScreeningSection | None = Field(
        default=None,
        description="Propose more candidates than are trained, and train the most promising: a map "
        "{score: synflow | naswot | grad_norm, of: 2..1000}; left out, all within the budget are trained.",
    )
    enqueue: tuple[dict[str, Any], ...] = Field(
        default=(),
        strict=False,
        description="Configurations to train first: a list of {width: 16, …}, with a value for each parameter that the "
        "space leaves open, or {preset: …}, a preset's folder or the name of a network.",
    )


def _automatic(value: Any) -> Any:
    return None if value == "auto" else value


_WORKERS_SCHEMA = {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 1024}]}
_TIMEOUT_SCHEMA = {"anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0}]}
Workers = Annotated[int | None, BeforeValidator(_automatic), WithJsonSchema(_WORKERS_SCHEMA)]

Timeout = Annotated[float | None, BeforeValidator(_automatic), WithJsonSchema(_TIMEOUT_SCHEMA)]


_ADDRESS = r"^(local|auto|[^\s:/]+:[0-9]+)$"
_ADDRESS_RULE = "The cluster is local (made for the run, the default), auto (the one of this machine) or HOST:PORT."
_STORAGE = r"^(/|[A-Za-z]:[/\\]|[a-z0-9+]+://)"
_STORAGE_RULE = (
    "Checkpoints go through an absolute folder or a URL that all nodes share (default: the run's own folder)."
)


def _matching(pattern: str, rule: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.search(pattern, value):
            raise fault("", f"{value} is not possible.", rule)
        return value

    return AfterValidator(check)


Address = Annotated[str, _matching(_ADDRESS, _ADDRESS_RULE), WithJsonSchema({"type": "string", "pattern": _ADDRESS})]
StoragePath = Annotated[
    str, _matching(_STORAGE, _STORAGE_RULE), WithJsonSchema({"type": "string", "pattern": _STORAGE})
]

POOL_ONLY = ("timeout_s", "asynchronous")
"""Keys of the execution that only the pool knows."""
RAY_ONLY = ("address", "gpus_per_trial", "storage_path")
"""Keys of the execution that only the engine ray knows."""
_ENGINE_OF: dict[str, Any] = {
    key: {"properties": {"engine": {"const": "ray"}}, "required": ["engine"]} for key in RAY_ONLY
}


class ExecutionSection(Section):
    """Where the work runs; changes nothing in the results but the time they take, `asynchronous` aside."""

    model_config = ConfigDict(json_schema_extra={"dependentSchemas": _ENGINE_OF})

    engine: Literal["pool", "ray"] = Field(
        default="pool",
        description="The engine is pool (processes of this machine) or ray (a cluster, or this machine).",
    )
    workers: Workers = Field(
        default=None,
        ge=1,
        le=1024,
        description="Processes, one thread each: a number, 1..1024, or auto (one a core).",
    )
    timeout_s: Timeout = Field(
        default=None,
        gt=0,
        description="Seconds after which a job's worker is ended and its candidate has failed: a number > 0, or auto "
        "(of trainings alone: 600 and 20 times what the latency lets expect, or the MACs where that is of a GPU).",
    )
    retries: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="How often a candidate is tried again whose worker died or whose data could not be read, 0..100 "
        "(default 1; ray 3).",
    )
    asynchronous: bool = Field(
        default=False,
        description="pool: promote from a rung as soon as a worker is idle, before all have reached it: true or false. "
        "Two such runs differ.",
    )
    address: Address | None = Field(default=None, description=f"ray: {_ADDRESS_RULE}")
    gpus_per_trial: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="ray: share of a GPU that each trial takes, 0..1 (default 0). A training uses one GPU at most.",
    )
    storage_path: StoragePath | None = Field(default=None, description=f"ray: {_STORAGE_RULE}")

    @model_validator(mode="after")
    def _keys_fit_the_engine(self) -> ExecutionSection:
        for key in RAY_ONLY:
            if self.engine != "ray" and getattr(self, key) is not None:
                raise fault(key, f"belongs to ray, not to {self.engine}.", "Remove it, or set engine: ray.")
        for key in POOL_ONLY:
            if self.engine == "ray" and getattr(self, key):
                raise fault(key, "belongs to pool, not to ray.", "Remove it, or set engine: pool.")
        return self


Milliseconds = Annotated[float, Field(gt=0)]


class DeploySection(Section):
    """Which presets are written beside fastest, balanced and best."""

    classes_ms: tuple[Milliseconds, ...] = Field(
        default=(),
        strict=False,
        description="Latency classes in ms, numbers > 0, rising: each gives a preset, the best network within it.",
    )

    @model_validator(mode="after")
    def _classes_rise(self) -> DeploySection:
        if any(a >= b for a, b in pairwise(self.classes_ms)):
            written = ", ".join(f"{value:g}" for value in self.classes_ms)
            raise fault("classes_ms", f"[{written}] does not rise.", "Write latencies in rising order, each once.")
        return self


# What a run is compared with ------------------------------------------------------------------------

NETWORKS = ("bicubic", "fsrcnn", "edsr", "rep_stack")
"""The reference networks that are built in: names in `search.references.networks.BUILT_IN`."""


class ReferenceSection(Section):
    """A network to compare with: a built-in one (`network`), or any torch.nn.Module by its import path (`module`)."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["network"]}, {"required": ["module"]}],
            "dependentRequired": {"path": ["module"]},
        }
    )

    name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        max_length=64,
        description="What it is called in tables and figures: letters and digits, then also '.', '_' and '-', at most "
        "64 in all (default: its network, or the factory of its module).",
    )
    network: Literal["bicubic", "fsrcnn", "edsr", "rep_stack"] | None = Field(
        default=None, description="The network is bicubic, fsrcnn, edsr or rep_stack."
    )
    module: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        description="Import path of a factory, package.module:Factory: my_net:MyNet for my_net.py beside the file.",
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the network or the factory: args: {width: 32}."
    )
    path: Folder | None = Field(
        default=None,
        description="Folder where the module is looked for before installed packages, relative to the experiment file "
        "(default: the file's own).",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> ReferenceSection:
        if (self.network is None) == (self.module is None):
            problem = "names both a network and a module." if self.network else "names neither a network nor a module."
            raise fault(
                "", problem, f"Write one of them: network ({', '.join(NETWORKS)}), or module (package.mod:Net)."
            )
        if self.path is not None and self.module is None:
            raise fault("path", "belongs to a module, not to a built-in network.", "Remove it.")
        return self

    @property
    def called(self) -> str:
        """What it is called: its name, or else its network or factory."""
        return self.name or self.network or str(self.module).rpartition(":")[2]


def _reference(value: Any) -> Any:
    """Turn the short form of a reference, a built-in network alone, into the long one."""
    return {"network": value} if isinstance(value, str) else value


_REFERENCE_SCHEMA = {"anyOf": [{"enum": list(NETWORKS)}, ReferenceSection.model_json_schema()]}
ReferenceField = Annotated[ReferenceSection, BeforeValidator(_reference), WithJsonSchema(_REFERENCE_SCHEMA)]


# The whole file -----------------------------------------------------------------------------------

Objectives = tuple[Literal["psnr_db", "ssim", "latency_ms", "macs_g", "params_m", "peak_mem_mib"], ...]
_QUALITY = [o.name for o in OBJECTIVES.values() if o.maximise]
_COSTS = [o.name for o in OBJECTIVES.values() if not o.maximise]
_OBJECTIVES_RULE = f"Name at least one quality ({', '.join(_QUALITY)}) and one cost ({', '.join(_COSTS)}), each once."
_OBJECTIVES_SCHEMA: dict[str, Any] = {
    "uniqueItems": True,
    "allOf": [{"contains": {"enum": _QUALITY}}, {"contains": {"enum": _COSTS}}],
}


class ExperimentFile(Section):
    """An experiment: what to search, for which task, within which budget."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=64,
        description="It names the results' folder: letters and digits, then also '.', '_' and '-'; at most 64 in all.",
    )
    task: TaskSection = Field(description="What is done to photographs, and which: task: {kind: …}.")
    space: dict[str, Any] = Field(description="What is searched: space: {width: [16, 32], …}.")
    budget: BudgetSection = Field(default=BudgetSection(), description="What a network may cost.")
    objectives: Objectives = Field(
        default=("psnr_db", "latency_ms", "macs_g"),
        strict=False,
        description=_OBJECTIVES_RULE,
        json_schema_extra=_OBJECTIVES_SCHEMA,
    )
    proxy: ProxySection = Field(default=ProxySection(), description="The short training.")
    search: SearchSection = Field(default=SearchSection(), description="How candidates are proposed.")
    execution: ExecutionSection = Field(default=ExecutionSection(), description="Where the work runs.")
    deploy: DeploySection = Field(default=DeploySection(), description="Which presets are written.")
    references: tuple[ReferenceField, ...] = Field(
        default=(),
        strict=False,
        description="Networks to compare with, a list: fsrcnn, or {name: edsr-s, network: edsr, args: {width: 32}}, or "
        "{module: my_net:MyNet}.",
    )

    @model_validator(mode="after")
    def _routing_is_supervised_by_labels(self) -> ExperimentFile:
        weight = self.proxy.routing_supervision
        if weight > 0 and not self.task.labelled:
            silent = "pairs given as files do" if self.task.kind == "mixed" else f"task {self.task.kind} does"
            raise fault(
                "proxy.routing_supervision",
                f"{weight:g} asks for the degradation of each patch, which {silent} not tell.",
                "Only task mixed, its degradations made here, has labels: choose it, or remove routing_supervision.",
            )
        return self

    @model_validator(mode="after")
    def _what_is_extrapolated_is_an_objective(self) -> ExperimentFile:
        if self.proxy.rank_by == "extrapolated" and {"psnr_db", "ssim"} & set(self.objectives) != {"psnr_db"}:
            raise fault(
                "proxy.rank_by",
                "extrapolated expects a PSNR, which is not the one quality among the objectives.",
                "Let objectives name psnr_db and not ssim, or choose within_strata.",
            )
        return self

    @model_validator(mode="after")
    def _references_have_names_of_their_own(self) -> ExperimentFile:
        names = [reference.called for reference in self.references]
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise fault("references", f"two are called {twice}.", "Give each a name of its own: {name: …, network: …}.")
        return self

    @model_validator(mode="after")
    def _objectives_trade_off(self) -> ExperimentFile:
        chosen, problem = self.objectives, ""
        if len(set(chosen)) < len(chosen):
            problem = "names one of them twice"
        elif not set(chosen) & set(_QUALITY):
            problem = "names no quality"
        elif not set(chosen) & set(_COSTS):
            problem = "names no cost"
        if problem:
            raise fault("objectives", f"[{', '.join(chosen)}] {problem}.", _OBJECTIVES_RULE)
        return self
