"""The recipe of a full training: frozen records whose rules are checked. Loads no torch.

A field's rule is shown in errors; the defaults suit the fine-tuning of proxy weights on a CPU (docs/log.md).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar, cast

from search.types import InputError

T = TypeVar("T")


class PlanError(InputError):
    """A value of a recipe breaks its rule.

    Args:
        key: Where, `gan.steps` say.
        problem: What is wrong, with the value.
        remedy: The rule, and what to do.
    """

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        self.key, self.problem, self.remedy = key, problem, remedy
        super().__init__(f"{key}: {problem}\n  {remedy}")


class _Rule(NamedTuple):
    """What a field may hold; `plan` is the record of a section, None for a value."""

    read: Callable[[Any], Any]
    """Returns the value in its type; raises ValueError where it is not allowed."""
    text: str
    plan: type | None = None


def _whole(default: int, low: int, high: int, about: str) -> int:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return _ruled(default, _Rule(read, f"{about}: a whole number, {low}..{high}."))


def _number(default: float, low: float, high: float, about: str) -> float:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError
        return float(value)

    return _ruled(default, _Rule(read, f"{about}: a number, {low:g}..{high:g}."))


def _word(default: str, words: tuple[str, ...], about: str) -> str:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError
        return value

    return _ruled(default, _Rule(read, f"{about}: {', '.join(words)}."))


def _text(about: str) -> str:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError
        return value

    return _ruled(MISSING, _Rule(read, f"{about}."))


def _numbers(default: tuple[float, ...], about: str) -> tuple[float, ...]:
    def read(value: Any) -> tuple[float, ...]:
        numbers = list(value) if isinstance(value, list | tuple) else []
        if not numbers or not all(_is_number(n) for n in numbers):
            raise ValueError
        return tuple(float(n) for n in numbers)

    return _ruled(default, _Rule(read, f"{about}: a list of numbers, one for each channel."))


def _weights(about: str) -> Mapping[str, float]:
    def read(value: Any) -> Mapping[str, float]:
        if not isinstance(value, Mapping) or not value or not all(_is_number(w) and w > 0 for w in value.values()):
            raise ValueError
        return {str(name): float(weight) for name, weight in value.items()}

    return _ruled(MISSING, _Rule(read, f"{about}: names, each with a weight above 0."))


def _section(plan: type) -> dict[str, _Rule]:
    """Return the metadata of a field that holds a record of its own, or None."""

    def read(value: Any) -> Any:
        if value is not None and not isinstance(value, plan):
            raise ValueError
        return value

    names = ", ".join(f.name for f in fields(plan))
    return {"rule": _Rule(read, f"A section with keys of its own: {names}.", plan)}


def _ruled(default: Any, rule: _Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(plan: Any) -> None:
    """Hold every field of a record against its rule, and put the value in its type."""
    for each in fields(plan):
        value, rule = getattr(plan, each.name), each.metadata["rule"]
        try:
            object.__setattr__(plan, each.name, rule.read(value))
        except ValueError as error:
            raise PlanError(each.name, f"{value!r} is not possible.", rule.text) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptualPlan:
    """A comparison of features, see `hfir.losses.PerceptualLoss`; all of it comes from the user."""

    backbone: str = _text("Import path of what makes the backbone, package.module:factory")
    weights: str = _text("File of its weights, safetensors or a state dict")
    layers: Mapping[str, float] = _weights("Layers whose outputs are compared")
    mean: tuple[float, ...] = _numbers((0.485, 0.456, 0.406), "What is subtracted from the channels")
    std: tuple[float, ...] = _numbers((0.229, 0.224, 0.225), "What the channels are divided by then")
    weight: float = _number(1.0, 0, 1000, "Weight of the term")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GanPlan:
    """The stage after the PSNR stage: against a discriminator, at a constant rate (Real-ESRGAN, arXiv 2107.10833)."""

    steps: int = _whole(2000, 1, 100_000_000, "Steps of the GAN stage")
    learning_rate: float = _number(1e-4, 0, 1, "Constant rate of both players")
    loss: str = _word("vanilla", ("vanilla", "hinge", "least_squares"), "What the players minimise")
    pixel_weight: float = _number(1.0, 0, 1000, "Weight of the L1 loss")
    gan_weight: float = _number(0.1, 0, 1000, "Weight of the discriminator's judgement")
    discriminator_width: int = _whole(32, 1, 256, "Channels of the discriminator at full resolution")
    perceptual: PerceptualPlan | None = field(default=None, metadata=_section(PerceptualPlan))

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How a network is trained; decides the weights together with the start and the task."""

    steps: int = _whole(5000, 1, 100_000_000, "Steps of the PSNR stage")
    batch: int = _whole(8, 1, 4096, "Patches in a step, on all devices together")
    patch_px: int = _whole(48, 16, 1024, "Side of a patch of the network's input in pixels")
    learning_rate: float = _number(0.002, 0, 1, "Peak rate, reached after the warm-up")
    final_rate: float = _number(1e-5, 0, 1, "Rate at the last step, which a cosine leads to")
    warmup_steps: int = _whole(50, 0, 10_000_000, "Steps over which the rate rises from 0, at most half of them")
    gradient_clip: float = _number(1.0, 1e-6, 1e6, "Largest norm of the gradient")
    ema_limit: float = _number(0.999, 0, 0.999999, "Largest decay of the averaged weights")
    loss: str = _word("charbonnier", ("charbonnier", "l1"), "What pixels are compared by")
    ssim_weight: float = _number(0.0, 0, 1000, "Weight of the SSIM loss")
    frequency_weight: float = _number(0.05, 0, 1000, "Weight of the frequency loss")
    routing_supervision: float = _number(0.0, 0, 1, "Weight of what teaches routers degradations; mixed tasks only")
    validate_every: int = _whole(500, 1, 10_000_000, "Steps between two validations")
    checkpoint_every: int = _whole(500, 1, 10_000_000, "Steps between two checkpoints")
    precision: str = _word("32-true", ("32-true", "bf16-mixed"), "Arithmetic of the forward pass")
    seed: int = _whole(0, 0, 2**31 - 1, "Seed of patches, noise, and weights that are drawn")
    gan: GanPlan | None = field(default=None, metadata=_section(GanPlan))

    def __post_init__(self) -> None:
        _check(self)
        if self.final_rate > self.learning_rate:
            raise PlanError(
                "final_rate",
                f"{self.final_rate:g} is above learning_rate = {self.learning_rate:g}.",
                "The rate falls: lower final_rate.",
            )

    @property
    def total_steps(self) -> int:
        """Steps of both stages."""
        return self.steps + (0 if self.gan is None else self.gan.steps)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 over both stages."""
        if step >= self.steps:
            return 0.0 if self.gan is None else self.gan.learning_rate
        warmup = min(self.warmup_steps, self.steps // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - 1 - warmup)
        return self.final_rate + (self.learning_rate - self.final_rate) * (1 + math.cos(math.pi * progress)) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; `plan_from` reads them back."""
        return json.loads(json.dumps(asdict(self)))


def plan_from(data: Mapping[str, Any]) -> TrainingPlan:
    """Make a plan of plain values, sections as mappings; what is not named stays at its default.

    Raises:
        PlanError: On the first key that is unknown or missing, or value that breaks its rule.
    """
    return _made(TrainingPlan, data, "")


def _made(plan: type[T], data: Mapping[str, Any], prefix: str) -> T:
    known = {each.name: each for each in fields(cast(Any, plan))}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known keys are {', '.join(known)}."
            raise PlanError(f"{prefix}{key}", "unknown key.", hint)
        section = known[key].metadata["rule"].plan
        if section is not None and isinstance(value, Mapping):
            value = _made(section, value, f"{prefix}{key}.")
        values[key] = value
    for name, each in known.items():
        if name not in values and each.default is MISSING:
            raise PlanError(f"{prefix}{name}", "is missing.", f"Add it. {each.metadata['rule'].text}")
    try:
        return plan(**values)
    except PlanError as error:
        raise PlanError(f"{prefix}{error.key}", error.problem, error.remedy) from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say which plain values differ, `steps: 5000 -> 6000`, sections as dotted names."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {_shown(a)} -> {_shown(b)}")
    return found


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value)
