"""Full training: one network, from where its folder stands to the end of the recipe, the time, or a signal.

The weights at a step are a function of (recipe, task, start): batches come from (seed, step), and torch's generator is
set anew for each step from (seed, step, device). So a training that was stopped anywhere ends where the unbroken one
would have ended, bit for bit on one CPU thread. Validation does not touch what is trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from hfir.fusion import fuse
from hfir.model import HydraFusionIR, build_model
from search.evaluation.cost import as_deployed
from search.evaluation.evaluator import task_data
from search.evaluation.proxy import validate
from search.evaluation.quality import mean_quality
from search.store import hold
from search.tasks.identity import refuse_other_photographs
from search.tasks.leaks import refuse_trained_on, seen_in
from search.tasks.patches import Batch, PatchSampler
from search.training.average import WeightAverage
from search.training.compiling import compile_network, try_compiled
from search.training.files import (
    BEST_FOLDER,
    GAN_FOLDER,
    RECIPE_FILE,
    CardWriter,
    Validation,
    read_checkpoint,
    write_checkpoint,
    write_history,
    write_preset,
    write_yaml,
)
from search.training.pace import Pace
from search.training.plan import GanPlan, differences
from search.training.recipe import Recipe
from search.training.stages import GanStage, PixelStage, Stage, run_network
from search.training.start import Start, recorded_photographs, weights_digest
from search.training.stopping import StopRequest, stop_requests
from search.types import InputError

log = logging.getLogger(__name__)

LOG_EVERY = 50
"""Steps between two lines of the log, validations aside."""
BEST, LAST = "the best by PSNR of all validations", "the last of the GAN stage"
"""Why the weights of a preset were chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a training stands after a session.

    Args:
        folder: Where its files lie.
        steps: Taken in all.
        finished: Whether the recipe was carried out to its end.
        interrupted: Whether a signal ended the session.
        before: The validation of the start.
        best: The one that `best/` holds.
        last: The most recent one.
    """

    folder: Path
    steps: int
    finished: bool
    interrupted: bool
    before: Validation
    best: Validation
    last: Validation


def make_fabric(plan_precision: str, *, accelerator: str = "auto", devices: int | str = 1) -> Fabric:
    """Return Fabric for one device or several of a machine.

    Raises:
        InputError: If there is no such accelerator, or not so many devices.
    """
    several = devices not in (1, "1")
    try:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            precision=plan_precision,  # pyright: ignore[reportArgumentType]
            strategy=DDPStrategy(find_unused_parameters=True) if several else "auto",
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--accelerator {accelerator} --devices {devices}: {str(error).splitlines()[0]}\n"
            "  Choose cpu, cuda, mps or auto, and as many devices as there are."
        ) from error


def train(
    recipe: Recipe,
    start: Start,
    folder: Path,
    fabric: Fabric,
    *,
    deadline: float | None = None,
    compiled: bool = False,
) -> Outcome:
    """Train a network in a folder, going on from what the folder holds.

    Args:
        recipe: How, and on what.
        start: The network.
        folder: For `best/`, the checkpoint and the history.
        fabric: Of `make_fabric`; with several devices every one of them calls this.
        deadline: `time.monotonic()` after which the training pauses, with a validation; None for none.
        compiled: Whether the network is compiled for its steps; each session may choose.

    Raises:
        InputError: If the folder holds a training of another recipe, task or start, these do not fit each other, or
            the network cannot be compiled.
        StoreError: If another process trains in the folder, or its checkpoint is damaged.
        EvaluationError: If the training diverges.
    """
    with hold(folder) if fabric.is_global_zero else nullcontext():
        fabric.launch()
        with _own_randomness(fabric.device):
            training = FullTraining(recipe, start, folder, fabric, compiled=compiled)
            with stop_requests() as stop:
                return training.run(stop, deadline)


class FullTraining:
    """A network in training at some step, and the folder that it is trained in.

    Args:
        recipe: How, and on what.
        start: The network.
        folder: Of the training; its checkpoint is taken up if it has one.
        fabric: Where to train.
        compiled: Whether the network is compiled for its steps.
    """

    def __init__(self, recipe: Recipe, start: Start, folder: Path, fabric: Fabric, *, compiled: bool = False) -> None:
        self.plan, self.task, self.folder, self.fabric = recipe.plan, recipe.task, folder, fabric
        self._compiled = compiled
        if compiled and fabric.world_size > 1:
            raise InputError(
                f"--compile: {fabric.world_size} devices were asked for; compiling is known to work on one.\n"
                "  Train with --devices 1, or with --no-compile."
            )
        if self.plan.batch % fabric.world_size:
            raise InputError(
                f"batch: {self.plan.batch} cannot be shared by {fabric.world_size} devices.\n"
                "  Each takes the same share: choose a multiple."
            )
        self._data = task_data(recipe.task)
        refuse_trained_on(seen_in(self._data).validation, start.seen, start.name)
        if self.plan.routing_supervision and not self._data.labels:
            raise InputError(
                f"routing_supervision: {self.plan.routing_supervision:g} asks for the degradation of each patch, which "
                f"task {recipe.task.kind} does not tell.\n  Only task mixed, its degradations made here, has labels: "
                "choose it, or set routing_supervision to 0."
            )
        self._patches = PatchSampler(self._data, self.plan.patch_px, self.plan.batch, self.plan.seed)
        self._data_notes = (*self._data.notes, *self._patches.notes)
        if fabric.is_global_zero:
            for note in self._data_notes:
                log.info("data: %s", note)
        model = start.build(recipe.task, self.plan.seed)
        self._identity = {
            "recipe": self.plan.to_dict(),
            "task": _plain(asdict(recipe.task)),
            "start": {"weights": weights_digest(model)},
        }
        self.model: HydraFusionIR = model.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._network: Any = fabric.setup_module(self.model)
        self._network.mark_forward_method("forward_with_routing")
        if compiled:
            compile_network(self.model)
        self.average = WeightAverage(self.model, self.plan.ema_limit)
        self._stage: Stage = PixelStage(fabric, self._network, self.model, self.plan)
        self.step, self.elapsed_s = 0, 0.0
        self.history: list[Validation] = []
        self.best: Validation | None = None
        self._pace = Pace()
        self._take_up(start)
        self._cards = CardWriter(start, recipe, self._data, model.config)

    def run(self, stop: StopRequest, deadline: float | None) -> Outcome:
        """Train until the recipe, the time or a signal ends it; a pause and the end leave a checkpoint."""
        if not self.history:
            self._validate()
            self._save()
        if self._compiled and self.step < self.plan.total_steps:
            self._compile()
        asked = False
        while self.step < self.plan.total_steps and not asked:
            self._advance()
            asked = self._agreed(stop.asked)
            late = self._agreed(deadline is not None and time.monotonic() > deadline)
            over = self.step in (self.plan.steps, self.plan.total_steps)  # either stage
            if over or (not asked and (late or self._is_due(self.plan.validate_every))):
                self._validate()
                self._save()
            elif asked or self._is_due(self.plan.checkpoint_every):
                self._save()
            if self._is_due(LOG_EVERY):
                self._tell_pace()
            asked = asked or late
        return self._outcome(interrupted=stop.asked and self.step < self.plan.total_steps)

    # -- a step ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        if self.plan.gan is not None and self.step == self.plan.steps and self._stage.name == "psnr":
            self.model.load_state_dict(self.average.weights)
            self.average = WeightAverage(self.model, self.plan.ema_limit)
            self._stage = self._gan_stage(self.plan.gan)
            if self._compiled:
                self._compile()
        begin = time.perf_counter()
        torch.manual_seed(_seed(self.plan.seed, self.step, self.fabric.global_rank))
        figures = self._stage.step(self._share(), self.plan.rate(self.step))
        self.average.update(self.model)
        self.step += 1
        seconds = time.perf_counter() - begin
        self.elapsed_s += seconds
        self._pace.add(figures, self.plan.batch, seconds)

    def _share(self) -> Batch:
        """Return this device's share of the next step's batch."""
        size = self.plan.batch // self.fabric.world_size
        mine = slice(self.fabric.global_rank * size, (self.fabric.global_rank + 1) * size)
        whole = self._patches.batch(self.step)
        degraded, clean = (t[mine].to(self.fabric.device) for t in (whole.degraded, whole.clean))
        labels = None if whole.labels is None else whole.labels[mine].to(self.fabric.device)
        return Batch(degraded, clean, labels)

    def _compile(self) -> None:
        """Compile what the stage's steps run, outside of their time; nothing is learned."""
        begin, share = time.perf_counter(), self._share()

        def there_and_back() -> None:
            restored, _ = run_network(self.fabric, self._network, self.model.config, share)
            self.fabric.backward(restored.mean())

        try_compiled(there_and_back)
        self.model.zero_grad(set_to_none=True)
        log.info("step=%d/%d compiled_s=%.1f", self.step, self.plan.total_steps, time.perf_counter() - begin)

    def _gan_stage(self, gan: GanPlan) -> Stage:
        seed = _seed(self.plan.seed, self.plan.steps, 0)
        return GanStage(self.fabric, self._network, self.model, self.plan, gan, seed)

    @property
    def _rate(self) -> float:
        """The rate of the last step."""
        return self.plan.rate(max(0, self.step - 1))

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    def _agreed(self, mine: bool) -> bool:
        """Return what the first device says, so that all of them stop at the same step."""
        return mine if self.fabric.world_size == 1 else bool(self.fabric.broadcast(mine))

    # -- what is kept ------------------------------------------------------------------------------

    def _validate(self) -> None:
        """Score the averaged weights in deploy form, and keep them where they are the best yet."""
        self._pace.check_finite(self.step, self._rate)
        if self.fabric.is_global_zero:
            deployed = self._deployed()
            mean = mean_quality(validate(deployed, self._data))
            row = Validation(
                step=self.step,
                stage=self._stage.name,
                psnr_db=mean.psnr_db,
                ssim=mean.ssim,
                loss=self._pace.loss,
                learning_rate=self._rate,
                images_per_s=self._pace.images_per_s,
                elapsed_s=self.elapsed_s,
            )
            self.history.append(row)
            self._keep(row, deployed)
        self._pace = Pace()
        self.fabric.barrier()

    def _keep(self, row: Validation, deployed: HydraFusionIR) -> None:
        """Write the history, and the preset: the best by PSNR, and of the GAN stage (no matter of PSNR) the last."""
        if self.best is None or row.psnr_db > self.best.psnr_db:
            self.best = row
            write_preset(self.folder / BEST_FOLDER, deployed, self._card(row, BEST))
        if row.stage == "gan":
            write_preset(self.folder / GAN_FOLDER, deployed, self._card(row, LAST))
        write_history(self.folder, self.history)
        log.info(
            "step=%d/%d stage=%s psnr_db=%.3f ssim=%.4f best_psnr_db=%.3f loss=%s lr=%.2e images_per_s=%s",
            row.step,
            self.plan.total_steps,
            row.stage,
            row.psnr_db,
            row.ssim,
            self.best.psnr_db,
            "none" if row.loss is None else f"{row.loss:.5f}",
            row.learning_rate,
            "none" if row.images_per_s is None else f"{row.images_per_s:.1f}",
        )

    def _card(self, row: Validation, chosen: str) -> dict[str, Any]:
        return {**self._cards.card(row, self.history, chosen), "data_notes": list(self._data_notes)}

    def _deployed(self) -> HydraFusionIR:
        with torch.random.fork_rng(devices=[]):
            averaged = build_model(self.model.config).to(self.fabric.device)
        averaged.load_state_dict(self.average.weights)
        return as_deployed(fuse(averaged))

    def _save(self) -> None:
        self._pace.check_finite(self.step, self._rate)
        if not self.fabric.is_global_zero:
            return
        state = {
            "identity": self._identity,
            "photographs": seen_in(self._data).to_json(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "average": self.average.state(),
            "pace": self._pace.state(),
            "stage": {"name": self._stage.name, **self._stage.state()},
            "history": [asdict(row) for row in self.history],
            "best": None if self.best is None else asdict(self.best),
        }
        write_checkpoint(self.folder, state)

    def _take_up(self, start: Start) -> None:
        """Go on from the folder's checkpoint, if it has one that fits."""
        saved = read_checkpoint(self.folder, self.fabric.device)
        if saved is None:
            if self.fabric.is_global_zero:
                write_yaml(self.folder / RECIPE_FILE, self._identity["recipe"])
            return
        recorded = saved.get("photographs")
        changed = differences(_comparable(saved["identity"], recorded), _comparable(self._identity, recorded))
        if changed:
            raise InputError(
                f"{self.folder} holds a training of another kind: {'; '.join(changed)}.\n"
                "  A training goes on under the recipe, task and start that it began with. "
                "Give another folder with --out; best/ of this one can be started from."
            )
        found = seen_in(self._data)
        if recorded is None:  # an earlier version wrote the checkpoint: its card records what the start saw, too
            recorded, found = recorded_photographs(self.folder / BEST_FOLDER), start.seen.and_also(found)
        remedy = "train in a new folder with --out; best/ of this one can be started from"
        refuse_other_photographs(recorded, found, str(self.folder), remedy)
        self.step, self.elapsed_s = saved["step"], saved["elapsed_s"]
        self.model.load_state_dict(saved["model"])
        self.average.resume(saved["average"])
        self._pace.resume(saved["pace"])
        if saved["stage"]["name"] == "gan" and self.plan.gan is not None:
            self._stage = self._gan_stage(self.plan.gan)
        self._stage.resume(saved["stage"])
        self.history = [Validation(**row) for row in saved["history"]]
        self.best = None if saved["best"] is None else Validation(**saved["best"])
        log.info("step=%d/%d resumed=%s", self.step, self.plan.total_steps, self.folder)

    def _tell_pace(self) -> None:
        if self._pace.loss is None:  # the line of a validation has just said it
            return
        self._pace.check_finite(self.step, self._rate)
        log.info(
            "step=%d/%d stage=%s loss=%.5f lr=%.2e images_per_s=%.1f",
            self.step,
            self.plan.total_steps,
            self._stage.name,
            self._pace.loss,
            self._rate,
            self._pace.images_per_s,
        )

    def _outcome(self, *, interrupted: bool) -> Outcome:
        """Return how things stand; devices other than the first have no validations, and answer with nothing."""
        nothing = Validation(
            step=0, stage="", psnr_db=0, ssim=0, loss=None, learning_rate=0, images_per_s=None, elapsed_s=0
        )
        return Outcome(
            folder=self.folder,
            steps=self.step,
            finished=self.step == self.plan.total_steps,
            interrupted=interrupted,
            before=self.history[0] if self.history else nothing,
            best=self.best or nothing,
            last=self.history[-1] if self.history else nothing,
        )


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Give torch's generators back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _seed(*numbers: int) -> int:
    """Return a seed for torch that is a function of some numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _comparable(identity: Mapping[str, Any], photographs: Any) -> Mapping[str, Any]:
    """Return what must be the same to resume: where the content of the photographs is recorded, not their folders."""
    if photographs is None:
        return identity
    return {**identity, "task": {key: value for key, value in identity["task"].items() if key != "folders"}}


def _plain(value: Any) -> Any:
    """Turn pairs into mappings, so that differences are named by their keys."""
    return {**value, "options": dict(value["options"]), "folders": dict(value["folders"])}
