"""`card.md`: what a preset is, for who finds the folder and has never heard of this platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from search.presets.sample import Sample
from search.report.selection import PRESETS
from search.report.words import (
    LONGER,
    after_steps,
    baseline_name,
    baseline_value,
    count,
    describe_network,
    describe_task,
    figure,
)
from search.types import Cost, EvaluationError, Study, Trial

_ONNX_RGB = """\
import numpy as np, onnxruntime
from PIL import Image
x = np.asarray(Image.open("in.png").convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
y = onnxruntime.InferenceSession("{file}").run(None, {{"input": x}})[0][0].clip(0, 1).transpose(1, 2, 0)
Image.fromarray((y * 255).round().astype(np.uint8)).save("out.png")"""
_ONNX_LUMA = """\
import numpy as np, onnxruntime
from PIL import Image
x = (np.asarray(Image.open("in.png").convert("L"), np.float32)[None, None] * 219 / 255 + 16) / 255
y = (onnxruntime.InferenceSession("{file}").run(None, {{"input": x}})[0][0, 0] * 255 - 16) * 255 / 219
Image.fromarray(y.clip(0, 255).round().astype(np.uint8)).save("out.png")"""
_HFIR = """\
import torch
from hfir import load_preset
network = load_preset(".")  # fused, eval mode
with torch.inference_mode():
    y = network(torch.rand(1, {channels}, 120, 160)).clamp(0, 1)"""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    figure: str
    value: str
    conditions: str


def render_card(study: Study, trial: Trial, card: Mapping[str, Any], sample: Sample, files: Mapping[str, str]) -> str:
    """Return the text of `card.md`.

    Args:
        study: The run.
        trial: The preset's.
        card: What `preset.yaml` holds.
        sample: The picture beside it.
        files: Names of the folder's other files and their SHA-256.

    Raises:
        EvaluationError: If the trial was not measured.
    """
    if trial.cost is None:
        raise EvaluationError(f"trial {trial.number} is not complete, so its preset has no card.")
    environment = Environment(  # Markdown for people, not HTML: nothing to escape but the bars of its tables
        loader=PackageLoader("search.presets"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    onnx = card.get("onnx")
    config = card["config"]
    luma = config["in_channels"] == 1
    return environment.get_template("card.md.j2").render(
        card=card,
        what=_what(study, trial, card),
        alt=", ".join(panel.caption for panel in sample.panels),
        caption=_caption(sample, study),
        data=_data(study, card),
        rows=_rows(study, trial.cost, card),
        notes=card["checked"]["notes"],
        shape=_shape(config),
        onnx=onnx,
        onnx_lines="" if onnx is None else (_ONNX_LUMA if luma else _ONNX_RGB).format(file=onnx["file"]),
        hfir_lines=_HFIR.format(channels=config["in_channels"]),
        told=_is_told(config),
        files=files,
    )


def _what(study: Study, trial: Trial, card: Mapping[str, Any]) -> str:
    role = card["role"]
    limit = f"the best of the front within {card['checked']['limits'].get('latency_ms', 0):g} ms"
    meaning = PRESETS.get(role, limit)
    return (
        f"{describe_task(study)}. A HydraFusionIR network: {describe_network(trial.config)}. "
        f"`{role}` of the run `{study.name}` ({meaning}), trial {trial.number}, chosen {after_steps(study)}; {LONGER}."
    )


def _caption(sample: Sample, study: Study) -> str:
    left, top = sample.at
    enlarges = baseline_name(study) == "bicubic"
    luma = ", on luma" if sample.panels[0].pixels.shape[-1] == 3 and enlarges else ""
    repeated = " The input's pixels are repeated." if enlarges else ""
    return (
        f"{', '.join(panel.caption for panel in sample.panels)}: PSNR of these {sample.side_px} × {sample.side_px} "
        f"pixels{luma}, drawn twice as large.{repeated} The place with the most detail (from {left}, {top}) of "
        f"`{sample.photograph}`, the validation photograph with the median PSNR."
    )


def _data(study: Study, card: Mapping[str, Any]) -> dict[str, str]:
    baseline = study.facts.get("baseline", {})
    images = ", ".join(f"`{name}`" for name in card["conditions"]["validation_images"])
    steps = count(card["measured"]["training_steps"], "step")
    train = baseline.get("train_images")
    return {
        "Task": describe_task(study),
        "Trained": f"{steps} on {count(train, 'photograph') if train else 'photographs'}: a proxy training that ranks "
        "candidates, not what full training reaches (`hfir-search train` goes on from here)",
        "Validated on": images,
    }


def _rows(study: Study, cost: Cost, card: Mapping[str, Any]) -> list[Row]:
    measured, checked = card["measured"], card["checked"]
    gain = baseline_value(study, "psnr_db")
    over = "" if gain is None else f" ({measured['psnr_gain_db']:+.2f} over {baseline_name(study)})"
    quality = f"mean of {count(len(card['conditions']['validation_images']), 'photograph')}, {_convention(card)}"
    rows = [
        Row("PSNR", f"{figure('psnr_db', measured['psnr_db'])} dB{over}", quality),
        Row("SSIM", figure("ssim", measured["ssim"]), "the same"),
        Row("parameters", f"{figure('params_m', cost.params_m)} M", "of the deploy form"),
        Row("MACs", f"{figure('macs_g', cost.macs_g)} G", f"input {cost.macs_at}; FLOPs are about twice as many"),
    ]
    if cost.latency is not None:
        threads = count(cost.latency.threads, "thread")
        where = f"input {cost.latency.at}, {threads}, {cost.latency.runtime}, {cost.latency.host}"
        trust = "" if cost.latency.trusted else ", untrusted"
        rows.append(Row("latency", _interval(measured), f"in its run{trust}; {where}"))
        rows.append(Row("latency, this file", _interval(checked), _checked_where(checked, cost)))
    if checked["peak_mem_mib"] is not None:
        rows.append(
            Row("peak memory", f"{checked['peak_mem_mib']:.1f} MiB", f"tensors of a pass, input {cost.peak_mem_at}")
        )
    limits = ", ".join(f"{name} ≤ {value:g}" for name, value in checked["limits"].items())
    if limits:
        rows.append(Row("limits", limits, "held against this file; of the latency the upper end counts"))
    return [Row(*(part.replace("|", "\\|") for part in (r.figure, r.value, r.conditions))) for r in rows]


def _interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["latency_interval_ms"]
    return f"{figures['latency_ms']:.3g} ms ({low:.3g}–{high:.3g})"


def _checked_where(checked: Mapping[str, Any], cost: Cost) -> str:
    latency = checked["latency"]
    other = "" if cost.latency is None or latency["host"] == cost.latency.host else f", on {latency['host']}"
    return f"measured {latency['measured_at']}{other}{'' if latency['trusted'] else ', untrusted'}"


def _convention(card: Mapping[str, Any]) -> str:
    scale, channels = card["config"]["upscale"], card["config"]["in_channels"]
    what = "luma" if scale > 1 or channels == 1 else "RGB"
    border = f" without a border of {scale} px" if scale > 1 else ""
    return f"on {what}{border}, 8 bits"


def _shape(config: Mapping[str, Any]) -> str:
    scale, channels = config["upscale"], config["in_channels"]
    what = "RGB" if channels == 3 else "luma (BT.601, 16..235 of 255; colour is up to you)"
    h, w = ("h", "w") if scale == 1 else (f"{scale}h", f"{scale}w")
    return (
        f"It takes `[1, {channels}, h, w]`, {what}, fp32 in [0, 1], any height and width, and gives "
        f"`[1, {channels}, {h}, {w}]`, not clamped."
    )


def _is_told(config: Mapping[str, Any]) -> bool:
    return bool((config.get("experts") or {}).get("condition_channels"))
