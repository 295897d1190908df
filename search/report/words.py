"""What a record says in words: the task, the network, the conditions of its figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from search.counts import count
from search.report.profile import profile_in_short
from search.types import OBJECTIVES, FailureKind, Latency, Study, Trial, TrialState

LIMIT_ORDER = ("params_m", "macs_g", "peak_mem_mib", "latency_ms")
"""Costs in the order in which the budget's gate looks at them, the cheapest to find out first."""
LONGER = "longer training may change the order"
"""What goes with every comparison of qualities after the proxy's steps."""
REMEASURE = "Rerun the run's command with --remeasure on an idle machine."
"""What to do about untrusted latencies."""


def quality_objective(study: Study) -> str:
    """Return the quality that the run is shown by: PSNR where it is an objective, else its first quality."""
    qualities = [name for name in study.objectives if OBJECTIVES[name].maximise]
    return qualities[0] if qualities and "psnr_db" not in qualities else "psnr_db"


def cost_objectives(study: Study) -> tuple[str, ...]:
    """Return the objectives that are costs, in the run's order."""
    return tuple(name for name in study.objectives if not OBJECTIVES[name].maximise)


def baseline_value(study: Study, objective: str) -> float | None:
    """Return what doing nothing scores in a quality, where the run found it out."""
    value = study.facts.get("baseline", {}).get(objective)
    return None if value is None else float(value)


def baseline_name(study: Study) -> str:
    """Return what doing nothing is called: bicubic enlargement, or the degraded input itself."""
    return "bicubic" if _section(study, "task").get("kind") == "super_resolution" else "input"


def limits(study: Study) -> dict[str, float]:
    """Return the budget's upper limits by the cost's name, in the order of the gate."""
    budget = _section(study, "budget")
    named = {name: _maximum(budget.get(name)) for name in LIMIT_ORDER}
    return {name: value for name, value in named.items() if value is not None}


def is_finished(study: Study) -> bool:
    """Say whether the run came to its end; a stopped one can be taken up again."""
    return bool(study.facts.get("finished")) and not study.in_state(TrialState.RUNNING)


def figure(objective: str, value: float | None) -> str:
    """Return a value as it is printed, without its unit: three digits of a small cost; a dash where it is not known."""
    if value is None:
        return "–"
    decimals = OBJECTIVES[objective].decimals
    if not OBJECTIVES[objective].maximise and 0 < value < 1:
        decimals = max(decimals, 2 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f}"


def failures(study: Study) -> dict[FailureKind, int]:
    """Count the FAILED candidates by what they failed of, the most frequent first."""
    kinds = Counter(kind for trial in study.trials if (kind := trial.failure_kind) is not None)
    return dict(kinds.most_common())


def failure_words(study: Study) -> str:
    """Return what candidates failed of: `2 diverged, 1 timeout`; empty where none failed."""
    return ", ".join(f"{number} {kind}" for kind, number in failures(study).items())


def duration(seconds: float) -> str:
    """Return a wall time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def describe_task(study: Study) -> str:
    """Return the task with its strength, as a heading."""
    task = _section(study, "task")
    kind = str(task.get("kind", "unknown task"))
    texts = {
        "super_resolution": f"Super-resolution ×{task.get('upscale', 2)}",
        "denoise": f"Denoising, σ = {task.get('sigma', 25):g}",
        "deblur": f"Deblurring, σ = {task.get('blur_sigma_px', 1.6):g} px, noise {task.get('noise_sigma', 2):g}",
        "jpeg": f"JPEG artefact removal, quality {task.get('quality', 30)}",
        "poisson": f"Photon noise removal, peak {task.get('peak', 30):g} photons",
        "motion_blur": f"Motion deblurring, {_motion(task)}, noise {task.get('noise_sigma', 2):g}",
        "defocus": f"Defocus deblurring, r = {task.get('radius_px', 2.5):g} px, noise {task.get('noise_sigma', 2):g}",
        "mixed": f"Mixed degradations: {', '.join(_member(name, task) for name in _members(task))}",
    }
    return texts.get(kind, kind.replace("_", " ").capitalize())


def _members(task: Mapping[str, Any]) -> Sequence[str]:
    return task.get("members") or ("texture", "denoise", "deblur", "artifact")


def _member(name: str, task: Mapping[str, Any]) -> str:
    texts = {
        "texture": "lost detail",
        "denoise": f"noise σ = {task.get('sigma', 25):g}",
        "deblur": f"blur σ = {task.get('blur_sigma_px', 1.6):g} px",
        "artifact": f"JPEG quality {task.get('quality', 20)}",
        "poisson": f"photon noise of peak {task.get('peak', 30):g}",
        "motion_blur": f"motion of {_motion(task)}",
        "defocus": f"defocus r = {task.get('radius_px', 2.5):g} px",
    }
    return texts.get(name, name)


def _motion(task: Mapping[str, Any]) -> str:
    angle = task.get("angle_deg")
    return f"{task.get('length_px', 9):g} px {'in any direction' if angle is None else f'at {angle:g}°'}"


def describe_photographs(study: Study) -> str:
    """Return how many photographs are validated on."""
    return count(len(study.facts.get("baseline", {}).get("images", ())), "validation photograph")


def describe_steps(study: Study) -> str:
    """Return how long a complete candidate was trained."""
    rungs = _section(study, "proxy").get("rungs") or ()
    return count(int(rungs[-1]), "training step") if rungs else "training steps unknown"


def after_steps(study: Study) -> str:
    """Return after how long a training complete candidates are compared: `after 800 steps`."""
    rungs = _section(study, "proxy").get("rungs") or ()
    return f"after {count(int(rungs[-1]), 'step')}" if rungs else "after a short training"


def describe_network(config: Mapping[str, Any] | None) -> str:
    """Return a network's choices as one line of words; empty where there is no legal network."""
    if config is None:
        return ""
    parts = (
        f"width {config['width']}",
        _blocks(config),
        _mixer(config["mixer"]),
        _expansion(config),
        _attention(config.get("attention")),
        _experts(config.get("experts")),
        _detail(config),
    )
    return ", ".join(part for part in parts if part)


def conditions_in_short(study: Study) -> str:
    """Return under which conditions the figures hold, as the caption of a figure."""
    latency = _first_latency(study.trials)
    cost = next((t.cost for t in study.trials if t.cost is not None), None)
    parts = [
        "Latency: " + _latency_words(latency) if latency else "",
        f"MACs at {_size(cost.macs_at)}" if cost else "",
        f"seed {_section(study, 'search').get('seed', 0)}",
        "cost of the deploy form, batch 1",
    ]
    host = study.facts.get("baseline", {}).get("host") or (latency.host if latency else "")
    return "  ·  ".join(part for part in (*parts, str(host)) if part)


def conditions(study: Study) -> dict[str, str]:
    """Return all that the figures depend on, as names and texts in reading order."""
    facts = study.facts.get("baseline", {})
    rows = {
        "Task": describe_task(study),
        "Photographs": _photographs(study),
        "Baseline": _baseline(study),
        "Objectives": ", ".join(OBJECTIVES[name].label for name in study.objectives),
        "Budget": _budget(study),
        "Proxy training": _proxy(study),
        "Search": _search(study),
        "Seeds": _seeds(study),
        "Warm start": _warm_starts(study),
        **_cost_conditions(study.trials),
        "Host": ", ".join(_hosts(study)),
        "Versions": ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()),
        "Wall time": _elapsed(study),
        "Where it went": profile_in_short(study),
    }
    return {name: text for name, text in rows.items() if text}


def _section(study: Study, name: str) -> Mapping[str, Any]:
    section = study.spec.get(name)
    return section if isinstance(section, Mapping) else {}


def _maximum(limit: Any) -> float | None:
    value = limit.get("max") if isinstance(limit, Mapping) else limit
    return None if value is None else float(value)


def _size(at: str) -> str:
    return at.replace("x", "×") + " px"


def _blocks(config: Mapping[str, Any]) -> str:
    encoder, decoder = config["encoder_blocks"], config["decoder_blocks"]
    stages = (
        f"{'+'.join(map(str, encoder))} encoder",
        f"{config['bottleneck_blocks']} middle",
        f"{'+'.join(map(str, decoder))} decoder",
    )
    return f"{count(len(encoder), 'level')} ({' / '.join(stages)} blocks)"


def _mixer(mixer: Mapping[str, Any]) -> str:
    if mixer["kind"] == "naf":
        return "NAF blocks"
    if mixer["kind"] == "dense":
        return "dense 3×3 convolutions"
    side = mixer["kernel_size"]
    return f"{side}×{side} kernels{', re-parameterised' if mixer.get('reparam') else ''}"


def _expansion(config: Mapping[str, Any]) -> str:
    """Return how far blocks with a gate expand; dense ones have none, but attention, experts and refiner do."""
    gated = config["mixer"]["kind"] != "dense" or any(map(config.get, ("attention", "experts", "refiner")))
    return f"expansion {config['expansion']:g}" if gated else ""


def _attention(attention: Mapping[str, Any] | None) -> str:
    if attention is None:
        return "no attention"
    where = " and ".join(attention["stages"])
    what = [f"{attention['window_size']} px"] if "window_size" in attention else []
    what.append(count(attention["num_heads"], "head"))
    what += ["overlapping"] if attention.get("overlap") else []
    what += [f"{attention['num_tokens']} tokens"] if attention.get("num_tokens") else []
    return f"{attention['kind']} attention ({', '.join(what)}) in {where}"


def _experts(experts: Mapping[str, Any] | None) -> str:
    if experts is None:
        return ""
    where = " and ".join(experts["stages"])
    per = ", per window" if experts.get("routing") == "window" else ""
    return f"{experts['num_experts']} experts (top {experts['top_k']}{per}) in {where}"


def _detail(config: Mapping[str, Any]) -> str:
    refiner = config.get("refiner")
    if refiner is not None:
        kind = {"dft": "DFT"}.get(refiner["kind"], refiner["kind"])
        return f"frequency split with a {kind} refiner of depth {refiner['depth']}"
    return "frequency split" if config.get("frequency_split") is not None else ""


def _latency_words(latency: Latency) -> str:
    threads = count(latency.threads, "thread")
    return f"{_size(latency.at)}, {threads}, {latency.dtype}, {latency.device}"


def _first_latency(trials: Sequence[Trial]) -> Latency | None:
    return next((t.cost.latency for t in trials if t.cost is not None and t.cost.latency is not None), None)


def _photographs(study: Study) -> str:
    facts = study.facts.get("baseline", {})
    if not facts:
        return ""
    data = _section(study, "task").get("data")
    folder = data.get("folder") or data.get("train") or data.get("root") if isinstance(data, Mapping) else data
    source = f"{PurePath(str(folder)).name}: " if folder else ""
    return (
        f"{source}{facts.get('train_images', 0)} to train on, "
        f"{len(facts.get('images', ()))} to validate on ({', '.join(facts.get('images', ()))})"
    )


def _baseline(study: Study) -> str:
    psnr, ssim = baseline_value(study, "psnr_db"), baseline_value(study, "ssim")
    if psnr is None:
        return ""
    return f"{baseline_name(study)}: PSNR {figure('psnr_db', psnr)} dB, SSIM {figure('ssim', ssim)}"


def _budget(study: Study) -> str:
    return ", ".join(f"{OBJECTIVES[name].label} ≤ {value:g}" for name, value in limits(study).items())


def _proxy(study: Study) -> str:
    proxy = _section(study, "proxy")
    if not proxy:
        return ""
    rungs = ", ".join(f"{step:,}" for step in proxy.get("rungs", ()))
    return (
        f"compared at {rungs} steps, the best {proxy.get('keep', 1):.0%} go on; batch {proxy.get('batch')}, "
        f"patches of {proxy.get('patch_px')} px, learning rate {proxy.get('learning_rate')}, "
        f"{proxy.get('loss')} loss"
        f"{_supervision(proxy.get('routing_supervision', 0))}"
    )


def _supervision(weight: float) -> str:
    return f", routers taught the degradations (weight {weight:g})" if weight else ""


def _search(study: Study) -> str:
    search = _section(study, "search")
    if not search:
        return ""
    candidates = count(int(search["trials"]), "candidate") if "trials" in search else "candidates"
    return (
        f"sampler {search.get('sampler')}, {candidates} to train, "
        f"{search.get('generation')} a generation, seed {search.get('seed')}{_bounds(search)}"
    )


def _warm_starts(study: Study) -> str:
    """Return what earlier runs gave; their folders are private, their names are not."""
    texts = []
    for start in study.facts.get("warm_start", ()):
        name = PurePath(start["source"]).name
        if start["differ"]:
            differ = ", ".join(start["differ"])
            texts.append(f"{name}: {count(len(start['enqueued']), 'candidate')} enqueued, for {differ} differ")
        else:
            texts.append(f"{name}: {count(start['known'], 'candidate')} known to the sampler from the start")
    return "; ".join(texts)


def _seeds(study: Study) -> str:
    """Return over how many seeds figures are known; empty where every candidate was trained once."""
    numbers = {t.number: len(t.replicates) for t in study.trials if t.replicates}
    if not numbers:
        return ""
    most = max(numbers.values())
    return (
        f"{count(len(numbers), 'member')} of the front trained with up to {count(most, 'further seed')} of initial "
        "weights, patches in the same order; every other figure is of one seed. The front, its presets and what the "
        "sampler was told are of the first seed"
    )


def _bounds(search: Mapping[str, Any]) -> str:
    """Return what else may end a search, each with a comma before it."""
    texts = {
        "time": lambda value: f"at most {duration(value)}",
        "steps": lambda value: f"at most {count(value, 'training step')}",
        "replicates": lambda value: f"up to {count(value, 'further seed')} for each member of the front",
        "patience": lambda value: f"ended by {count(value, 'candidate')} without growth",
    }
    return "".join(f", {text(search[key])}" for key, text in texts.items() if search.get(key))


def _cost_conditions(trials: Sequence[Trial]) -> dict[str, str]:
    cost = next((t.cost for t in trials if t.cost is not None), None)
    latency = _first_latency(trials)
    memory_at = next((t.cost.peak_mem_at for t in trials if t.cost and t.cost.peak_mem_at), None)
    rows = {"Costs": "of the deploy form: parallel branches fused, evaluation mode, batch 1"}
    if cost is not None:
        rows["MACs"] = f"multiply-accumulates at {_size(cost.macs_at)} of input; FLOPs are about twice as many"
    if latency is not None:
        rows["Latency"] = f"median at {_latency_words(latency)}; {latency.runtime}"
    if memory_at is not None:
        rows["Peak memory"] = f"tensors of one forward pass at {_size(memory_at)}, weights included"
    return rows


def _hosts(study: Study) -> list[str]:
    """Return every machine that figures were taken on; more than one means that latencies do not compare."""
    first = study.facts.get("baseline", {}).get("host")
    measured = [t.cost.latency.host for t in study.trials if t.cost is not None and t.cost.latency is not None]
    return list(dict.fromkeys([*([first] if first else []), *measured]))


def _elapsed(study: Study) -> str:
    seconds = study.facts.get("elapsed_s")
    return "" if seconds is None else duration(float(seconds))
