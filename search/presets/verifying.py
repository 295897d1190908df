"""Measure a preset again, here and now, and say what differs from what its card says.

Weights, PSNR and the ONNX file must agree on every machine, or the folder is not what it says it is. Costs that are
counted must agree too; memory and latency depend on versions and machine, and are told without a verdict on the
folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfir.errors import ExportError, HFIRError
from hfir.export import TOLERANCE, compare_onnx
from hfir.model import HydraFusionIR
from hfir.presets import PRESET_FILE, WEIGHTS_FILE, load_preset
from search.counts import count
from search.evaluation.card import file_digest
from search.evaluation.cost import as_deployed, count_macs_g, count_parameters
from search.evaluation.evaluator import task_data
from search.evaluation.host import host_name
from search.evaluation.meter import measure_latency, peak_memory_mib
from search.evaluation.plan import TaskPlan
from search.evaluation.proxy import validate
from search.evaluation.quality import mean_quality
from search.evaluation.runtimes import device_of, runtime_of
from search.experiment.sections import TaskSection
from search.presets.exporting import SAME_PSNR_DB, read_card
from search.tasks.identity import photograph_differences
from search.tasks.leaks import seen_from_json, seen_in
from search.tasks.pairs import TaskData
from search.types import InputError, InputSize, Latency

SAME_MEMORY = 0.02
"""Share by which peak memory may differ: versions of torch allocate differently."""
SAME_LATENCY = 0.1
"""Share by which a latency on the same machine may differ; more only counts where the intervals are apart too."""
_NOISY = ("denoise", "poisson", "deblur", "motion_blur", "defocus", "mixed")
"""Tasks whose validation photographs depend on a seed."""


class Verdict(StrEnum):
    """What a comparison came to."""

    SAME = "same"
    DIFFERS = "differs"
    """Beyond the tolerance."""
    UNKNOWN = "not compared"
    """Not recorded, or not to be had here; the comment says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One figure: as recorded, and here.

    Args:
        figure: Its name with the unit.
        recorded: As the card says it.
        here: As found now.
        difference: Between the two; empty where there is none to tell.
        verdict: Whether they agree.
        decisive: Whether a difference means that the folder is not what it says it is.
        comment: What to know about it.
    """

    figure: str
    recorded: str
    here: str
    difference: str
    verdict: Verdict
    decisive: bool = False
    comment: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the folder is not what it says it is."""
        return self.decisive and self.verdict is Verdict.DIFFERS


def verify_preset(folder: Path) -> tuple[Comparison, ...]:
    """Compare a preset folder with what its card says; to be run in a worker, with nothing else of ours beside it.

    Args:
        folder: With `preset.yaml` and `weights.safetensors`.

    Raises:
        InputError: If there is no card that can be read, or the weights cannot be loaded.
    """
    card = read_card(folder)
    if card is None or not {"measured", "conditions", "weights"} <= card.keys():
        raise InputError(
            f"{folder}: no {PRESET_FILE} that says what was measured, so there is nothing to compare with.\n"
            "  Give a preset folder as `hfir-search run`, `presets` or `train` writes it."
        )
    weights = list(_files(folder, card))
    try:
        model = as_deployed(load_preset(folder))
    except HFIRError as error:
        if any(row.is_fault for row in weights):  # that says it all
            return tuple(weights)
        raise InputError(str(error)) from error
    return (*weights, *_network(folder, card, model))


def _network(folder: Path, card: Mapping[str, Any], model: HydraFusionIR) -> Iterator[Comparison]:
    measured, conditions = card["measured"], card["conditions"]
    yield _psnr(card, model)
    if "onnx" in card:
        yield _onnx(folder / Path(card["onnx"]["file"]).name, card["onnx"], model)
    params = count_parameters(model.config).deploy_m
    yield _counted("parameters (M)", measured.get("params_m"), params, digits=6)
    if conditions.get("macs_at"):
        macs = count_macs_g(model.config, _size(conditions["macs_at"]))
        yield _counted(f"MACs (G) at {conditions['macs_at']}", measured.get("macs_g"), macs, digits=5)
    if measured.get("peak_mem_mib") is not None and conditions.get("peak_mem_at"):
        at = conditions["peak_mem_at"]
        yield _memory(f"peak memory (MiB) at {at}", measured["peak_mem_mib"], peak_memory_mib(model, _size(at)))
    recorded = conditions.get("latency")
    if measured.get("latency_ms") is not None and recorded:
        runtime, device = runtime_of(recorded.get("runtime", "")), device_of(recorded.get("device", "cpu"))
        here = measure_latency(model, _size(recorded["at"]), recorded["threads"], runtime=runtime, device=device)
        yield _latency(measured, recorded, here)


def _files(folder: Path, card: Mapping[str, Any]) -> Iterator[Comparison]:
    """Compare the checksum of each recorded file; a wrong picture is told, wrong weights or ONNX decide."""
    recorded = {card["weights"].get("file", WEIGHTS_FILE): card["weights"]["sha256"], **card.get("files", {})}
    for name, sha256 in recorded.items():
        path = folder / Path(name).name
        found = file_digest(path) if path.is_file() else "missing"
        yield Comparison(
            figure=f"SHA-256 of {'the ONNX file' if path.suffix == '.onnx' else name}",
            recorded=f"{sha256[:12]}…",
            here=found if found == "missing" else f"{found[:12]}…",
            difference="",
            verdict=Verdict.SAME if found == sha256 else Verdict.DIFFERS,
            decisive=path.suffix in (".safetensors", ".onnx"),
            comment="" if found == sha256 else "the file was changed, or is not the one that was shipped",
        )


def _psnr(card: Mapping[str, Any], model: HydraFusionIR) -> Comparison:
    recorded, images = card["measured"]["psnr_db"], card["conditions"].get("validation_images", [])
    row = {"figure": f"PSNR (dB), {count(len(images), 'photograph')}", "recorded": f"{recorded:.3f}", "decisive": True}
    try:
        data = task_data(_task_plan(card))
    except InputError as error:
        problem = str(error).splitlines()[0]
        return Comparison(**row, here="–", difference="", verdict=Verdict.UNKNOWN, comment=problem)
    differing = _differing(card, data)
    if differing:
        comment = f"the photographs are others here: {', '.join(differing)}"
        return Comparison(**row, here="–", difference="", verdict=Verdict.UNKNOWN, comment=comment)
    here = mean_quality(validate(model, data)).psnr_db
    same = abs(here - recorded) <= SAME_PSNR_DB
    return Comparison(
        **row,
        here=f"{here:.3f}",
        difference=f"{round(here - recorded, 3) + 0.0:+.3f}",
        verdict=Verdict.SAME if same else Verdict.DIFFERS,
        comment="" if same else f"{SAME_PSNR_DB} dB are allowed: other weights, photographs or network code",
    )


def _differing(card: Mapping[str, Any], data: TaskData) -> list[str]:
    """Return which validation photographs are others here, by content; by name where the card records no content."""
    recorded = seen_from_json(card.get("photographs"))
    if recorded is not None:
        return photograph_differences(recorded, seen_in(data), ("validation",))
    names = [pair.name for pair in data.validation]
    return [] if names == list(card["conditions"].get("validation_images", [])) else names


def _task_plan(card: Mapping[str, Any]) -> TaskPlan:
    """Return the task as the run had it.

    Raises:
        InputError: If the card does not say enough.
    """
    seed = card["conditions"].get("validation_seed")
    try:
        task = TaskSection.model_validate(dict(card["task"]))
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{PRESET_FILE} holds no task that can be read ({str(error).splitlines()[0]})") from error
    if seed is None and task.kind in _NOISY:
        raise InputError(f"{PRESET_FILE} does not record the seed of the photographs' noise (validation_seed)")
    return TaskPlan(
        kind=task.kind,
        options=tuple(task.options().items()),
        channels=task.channels,
        folders=tuple(task.data.model_dump(exclude_none=True).items()),
        seed=seed or 0,
    )


def _onnx(path: Path, recorded: Mapping[str, Any], model: HydraFusionIR) -> Comparison:
    row = {"figure": "ONNX, max |difference|", "recorded": f"{recorded['max_difference']:.1e}", "decisive": True}
    if not path.is_file():
        return Comparison(**row, here="missing", difference="", verdict=Verdict.DIFFERS)
    try:
        worst = max(check.max_difference for check in compare_onnx(model, path))
    except Exception as error:  # ONNX Runtime's and onnx's errors have no common base
        problem = str(error) if isinstance(error, ExportError) else f"cannot be run ({str(error).splitlines()[0]})"
        return Comparison(**row, here="–", difference="", verdict=Verdict.DIFFERS, comment=problem)
    same = worst <= TOLERANCE
    return Comparison(
        **row,
        here=f"{worst:.1e}",
        difference="",
        verdict=Verdict.SAME if same else Verdict.DIFFERS,
        comment=f"at most {TOLERANCE:.0e} from the network is allowed",
    )


def _counted(figure: str, recorded: float | None, here: float, *, digits: int) -> Comparison:
    if recorded is None:
        return _unrecorded(figure, f"{here:.{digits}f}")
    difference = round(here, digits) - recorded
    return _judged(
        figure,
        f"{recorded:.{digits}f}",
        f"{here:.{digits}f}",
        f"{difference:+.{digits}f}",
        same=abs(difference) < 0.5 * 10**-digits,
        cause="the network's code, or how torch counts, has changed",
    )


def _memory(figure: str, recorded: float, here: float) -> Comparison:
    share = here / recorded - 1
    cause = "versions of torch allocate differently"
    same = abs(share) <= SAME_MEMORY
    return _judged(figure, f"{recorded:.2f}", f"{here:.2f}", f"{share:+.1%}", same=same, cause=cause)


def _judged(figure: str, recorded: str, here: str, difference: str, *, same: bool, cause: str) -> Comparison:
    """Return a comparison that tells the difference and its likely cause only where there is one."""
    return Comparison(
        figure=figure,
        recorded=recorded,
        here=here,
        difference="" if same else difference,
        verdict=Verdict.SAME if same else Verdict.DIFFERS,
        comment="" if same else cause,
    )


def _latency(measured: Mapping[str, Any], recorded: Mapping[str, Any], here: Latency) -> Comparison:
    """Compare latencies of one machine; whether it was at rest, the reference timed beside each of the two tells."""
    low, high = measured["latency_interval_ms"]
    share = here.median_ms / measured["latency_ms"] - 1
    apart = here.low_ms > high or here.high_ms < low
    same = abs(share) <= SAME_LATENCY or not apart
    verdict, comment = Verdict.SAME if same else Verdict.DIFFERS, ""
    doubtful = not here.trusted or not recorded.get("trusted", True)
    if recorded["host"] != host_name():
        verdict, comment = Verdict.UNKNOWN, f"recorded on another machine ({recorded['host']}): the two do not compare"
    elif doubtful:
        when = "here" if not here.trusted else "when it was recorded"
        verdict, comment = Verdict.UNKNOWN, f"untrusted: the machine was busy {when}"
    elif recorded["runtime"] != here.runtime:
        comment = f"recorded with {recorded['runtime']}, here {here.runtime}"
    return Comparison(
        figure=f"latency (ms) at {here.at}, threads {here.threads}",
        recorded=_interval(measured["latency_ms"], low, high),
        here=_interval(here.median_ms, here.low_ms, here.high_ms),
        difference=f"{share:+.1%}",
        verdict=verdict,
        comment=comment,
    )


def _interval(median: float, low: float, high: float) -> str:
    return f"{median:.3g} ({low:.3g}–{high:.3g})"


def _unrecorded(figure: str, here: str) -> Comparison:
    return Comparison(
        figure=figure, recorded="–", here=here, difference="", verdict=Verdict.UNKNOWN, comment="not recorded"
    )


def _size(text: str) -> InputSize:
    width, height = text.split("x")
    return InputSize(width=int(width), height=int(height))
