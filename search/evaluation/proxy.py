"""The proxy: a short training that candidates are compared by, rung by rung.

Constant rate after a short warm-up, and evaluation of an average of the weights that warms up as well: neither needs
to know where training ends, so a candidate can pause at any rung and go on without a repeated step, and figures at
equal steps compare. Every candidate sees the same patches in the same order (common random numbers). How the rate was
found: docs/log.md.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch
from torch import Tensor, nn

from hfir.blocks.moe import Routing
from hfir.config import HFIRConfig
from hfir.losses import PIXEL_LOSSES, routing_loss, routing_supervision
from hfir.model import HydraFusionIR, build_model
from search.evaluation.flat import FlatTraining
from search.evaluation.plan import ProxyPlan
from search.evaluation.quality import Quality, mean_quality, score
from search.evaluation.routing import expert_use
from search.evaluation.scalars import Scalars
from search.evaluation.trainable import M, Searched, Trainable, build_copy, restored_by
from search.evaluation.turns import Steps
from search.files import replace_file
from search.tasks.pairs import Pair, TaskData
from search.tasks.patches import Batch, PatchSampler
from search.timing import span
from search.types import (
    DataError,
    DivergedError,
    EvaluationError,
    ExpertUse,
    Measurement,
    measurement_from_json,
    to_json,
)

GRADIENT_CLIP = 1.0
BETAS = (0.9, 0.9)
EMA_LIMIT = 0.999
EXPLODED = 10.0
"""A loss above this has exploded: images lie in [0, 1], and their mean error is below 1 before the first step."""
TAIL = 10
"""The reported loss is the mean over the last tenth of a rung's steps."""


class Validation(NamedTuple):
    """What a network did with each validation photograph, in their order."""

    qualities: list[Quality]
    routings: list[list[Routing]]
    """The decision of each of its mixtures."""


class Training(Generic[M]):
    """A network in training: its weights, optimiser and averaged weights at some step.

    Args:
        network: What is trained.
        plan: How to train it.
        data: What to train and validate on.
        seed: Draws the initial weights.
        device: Where to train.
    """

    def __init__(self, network: Trainable[M], plan: ProxyPlan, data: TaskData, seed: int, device: str = "cpu") -> None:
        self.network, self.plan, self.data, self.device = network, plan, data, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = network.build()
        self.model: M = model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._descent = FlatTraining(self.model, lr=plan.learning_rate, betas=BETAS, clip=GRADIENT_CLIP)
        self.step = 0
        self.elapsed_s = 0.0
        self._patches = PatchSampler(data, plan.patch_px, plan.batch, plan.data_seed)

    def run_to(self, step: int, on_step: Callable[[int, Tensor, float], None] | None = None) -> float:
        """Train up to a step and return the mean loss over the last tenth of the way.

        Args:
            step: Where to stop, counted from the first step of all.
            on_step: Shown each step: its number from 1, its loss (a scalar still on the device) and its rate.

        Raises:
            DivergedError: If the loss is not finite, or exploded.
            DataError: If a batch cannot be had.
        """
        self.model.train()
        start, first = time.perf_counter(), self.step
        losses: list[Tensor] = []
        with Steps() as steps:
            while self.step < step:
                with steps.turn():
                    losses.append(self._train_step())
                self.step += 1
                if on_step is not None:
                    on_step(self.step, losses[-1], self._descent.rate)
                if self.step % 50 == 0 or self.step == step:
                    self._check_finite(losses[-1])
        self.elapsed_s += time.perf_counter() - start
        tail = losses[-max(1, (step - first) // TAIL) :]
        return float(torch.stack(tail).mean()) if tail else float("nan")

    def deployed(self) -> M:
        """Return the averaged weights in deploy form, ready to restore images."""
        deployed = self.network.deployed(self.model, self._descent.average)
        return deployed.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def validate(self) -> Validation:
        """Run the deploy form over the validation photographs."""
        return validate_with_routing(self.deployed(), self.data)

    def state(self) -> dict[str, Any]:
        """Return everything that going on needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            **self._descent.state(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Take up a training from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self._descent.resume(state)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]

    def _train_step(self) -> Tensor:
        batch = self._batch()
        degraded, clean = batch.degraded.to(self.device), batch.clean.to(self.device)
        labels = None if batch.labels is None else batch.labels.to(self.device)
        with drawing_from(self.plan.data_seed + self.step, self.device):  # routers may draw noise
            restored, routings = restored_by(self.model, degraded, labels)
        pixel_loss = PIXEL_LOSSES[self.plan.loss](restored, clean)
        router_loss = routing_loss(routings)
        if labels is not None and self.plan.routing_supervision > 0:
            taught = routing_supervision(routings, labels)
            router_loss = router_loss + self.plan.routing_supervision * taught
        self._descent.rate = self._rate()
        self._descent.step(pixel_loss + router_loss, decay=min(EMA_LIMIT, (1 + self.step) / (10 + self.step)))
        return pixel_loss.detach()

    def _batch(self) -> Batch:
        try:
            return self._patches.batch(self.step)
        except Exception as error:
            raise DataError(
                f"the batch of step {self.step} cannot be had ({type(error).__name__}: {error}). "
                "Check the photographs of task.data."
            ) from error

    def _rate(self) -> float:
        return self.plan.learning_rate * min(1.0, (self.step + 1) / max(1, self.plan.warmup_steps))

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss) or loss > EXPLODED:
            raise DivergedError(
                f"the loss is {float(loss):.4g} at step {self.step} with learning_rate = "
                f"{self.plan.learning_rate:g}; it must be finite and at most {EXPLODED:g}. Lower proxy.learning_rate."
            )


@contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Have torch draw from a seed meanwhile, on the CPU and a device; the CPU goes on as if it had not.

    `torch.random.fork_rng` and `torch.manual_seed` do the same in a hundred times as long.
    """
    generator, before = torch.default_generator, torch.default_generator.get_state()
    generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        generator.set_state(before)


class ProxyTraining(Training[HydraFusionIR]):
    """One candidate in training.

    Args:
        config: The network, in training form.
        plan: How to train it.
        data: What to train and validate on.
        seed: Draws the initial weights.
        device: Where to train.
    """

    def __init__(self, config: HFIRConfig, plan: ProxyPlan, data: TaskData, seed: int, device: str = "cpu") -> None:
        super().__init__(Searched(config), plan, data, seed, device)


def validate(model: nn.Module, data: TaskData) -> list[Quality]:
    """Score a network, in eval mode, on each validation photograph of a task."""
    return validate_with_routing(model, data).qualities


def validate_with_routing(model: nn.Module, data: TaskData) -> Validation:
    """Score a network, in eval mode, on each validation photograph of a task, and keep what its routers decided."""
    shown = Validation([], [])
    for pair in data.validation:
        restored, routings = restore_pair(model, pair)
        shown.qualities.append(score(restored, pair.clean, upscale=data.upscale))
        shown.routings.append(routings)
    return shown


def restore_pair(model: nn.Module, pair: Pair) -> tuple[Tensor, list[Routing]]:
    """Return a validation photograph restored, `[h w c]`, and the routers' decisions; model in eval mode.

    A network that asks for the degradation is told it, where the pair knows it.
    """
    device = next(model.parameters(), torch.empty(0)).device
    degraded = torch.tensor(pair.degraded).permute(2, 0, 1)[None].to(device)
    label = None if pair.skill is None else torch.tensor([pair.skill], device=device)
    with torch.inference_mode():
        made = restored_by(model, degraded.contiguous(memory_format=torch.channels_last), label)
    return made.images[0].permute(1, 2, 0), made.routings


def train_rung(
    config: HFIRConfig,
    plan: ProxyPlan,
    data: TaskData,
    *,
    rung: int,
    seed: int,
    checkpoint: Path,
    device: str,
    scalars: Path | None = None,
) -> Measurement:
    """Train a candidate through a rung, going on from its checkpoint, and measure it.

    Raises:
        EvaluationError: If training diverges, or the checkpoint is damaged.
    """
    with span("building"):
        training = ProxyTraining(config, plan, data, seed, device)
    return train_through(training, rung=rung, checkpoint=checkpoint, scalars=scalars)


def train_through(training: Training[M], *, rung: int, checkpoint: Path, scalars: Path | None = None) -> Measurement:
    """Train a network that was just built through a rung, going on from its checkpoint, and measure it.

    The checkpoint is replaced only after the rung is measured, and holds the measurement: a rung that was finished
    but not recorded (the driver died in between) is answered from it, without a step.

    With `scalars`, a folder, the course of the training is written there for TensorBoard; no figure changes by it.

    Raises:
        DivergedError: If training diverges.
        DataError: If a batch cannot be had.
        EvaluationError: If the checkpoint is damaged.
    """
    plan, data = training.plan, training.data
    with span("checkpoint"):
        saved = _read_checkpoint(checkpoint, training.device)
    if saved is not None and saved["measurement"]["rung"] == rung:
        return measurement_from_json(saved["measurement"])
    if saved is not None:
        training.resume(saved)
    with nullcontext() if scalars is None else Scalars(scalars, after=training.step, batch=plan.batch) as writer:
        with span("steps"):
            loss = training.run_to(plan.rungs[rung], None if writer is None else writer.show_step)
        with span("validation"):
            qualities, routings = training.validate()
        mean = mean_quality(qualities)
        measurement = Measurement(
            rung=rung,
            step=training.step,
            psnr_db=mean.psnr_db,
            ssim=mean.ssim,
            psnr_per_image_db=tuple(q.psnr_db for q in qualities),
            elapsed_s=training.elapsed_s,
            loss=loss,
            experts=_expert_use(data, routings) if rung == len(plan.rungs) - 1 else (),
        )
        if writer is not None:
            writer.show_rung(measurement)
    with span("checkpoint"):
        _write_checkpoint(checkpoint, training.state(), measurement)
    return measurement


def deployed_from(config: HFIRConfig, plan: ProxyPlan, data: TaskData, *, seed: int, checkpoint: Path) -> HydraFusionIR:
    """Return the deploy form of a candidate from its checkpoint.

    Raises:
        EvaluationError: If there is no checkpoint, or it is damaged.
    """
    training = ProxyTraining(config, plan, data, seed)
    saved = _read_checkpoint(checkpoint, training.device)
    if saved is None:
        raise EvaluationError(f"{checkpoint}: no checkpoint here. Run the search again to train the candidate.")
    training.resume(saved)
    return training.deployed()


def averaged_from(config: HFIRConfig, checkpoint: Path) -> HydraFusionIR:
    """Return a candidate in training form with its averaged weights, from its checkpoint, to be trained further.

    Raises:
        EvaluationError: If there is no checkpoint, or it is damaged.
    """
    saved = _read_checkpoint(checkpoint, torch.device("cpu"))
    if saved is None:
        raise EvaluationError(f"{checkpoint}: no checkpoint here. Run the search again to train the candidate.")
    with torch.random.fork_rng(devices=[]):
        model = build_model(config)
    model.load_state_dict(saved["model"])
    return build_copy(model, saved["average"])


def _expert_use(data: TaskData, routings: list[list[Routing]]) -> tuple[ExpertUse, ...]:
    return expert_use(routings, [pair.label for pair in data.validation], data.labels)


def _write_checkpoint(path: Path, state: dict[str, Any], measurement: Measurement) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()  # torch does not say why a file cannot be written
    torch.save(state | {"measurement": to_json(measurement)}, whole)
    replace_file(path, lambda partial: partial.write_bytes(whole.getbuffer()))


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise EvaluationError(
            f"{path}: the checkpoint cannot be read ({error}). Delete it: the candidate is trained again."
        ) from error
