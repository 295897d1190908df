"""The report: one self-contained HTML page, light and dark, for a desk and a phone.

Here the records are put into words and rows; the template only places them, and the page's script draws figures from
`search.report.interactive`. Nothing is loaded from elsewhere; what comes from a record is escaped by Jinja, or packed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from search.certainty import front_probabilities, quality_of, untrusted_latencies
from search.counts import count
from search.report.agreement import rank_agreement
from search.report.cells import (
    Cell,
    Table,
    count_cell,
    gain_cell,
    number_cell,
    percent_cell,
    share_cell,
    sort_key,
    table,
    text_cell,
    trial_cell,
)
from search.report.experts import (
    draw_experts,
    judgement,
    presets_with_experts,
    save_experts,
    trials_with_experts,
    uses_of,
)
from search.report.explain import explain_front
from search.report.figures import DARK, LIGHT, Theme, render, save_front
from search.report.importance import Importance, importances
from search.report.interactive import packed_data, packed_plotly, parallel_trials
from search.report.intervals import Interval
from search.report.pictures import read_pictures
from search.report.references import Standing, describe_made, describe_standing, standings
from search.report.seeds import GAIN, SEEDS, estimate, gain_intervals, shown_interval
from search.report.selection import PRESETS, choose_presets
from search.report.steps import front_steps
from search.report.tables import front_trials, funnel, write_atomically, write_tables
from search.report.words import (
    LONGER,
    REMEASURE,
    baseline_name,
    baseline_value,
    conditions,
    cost_objectives,
    describe_network,
    describe_steps,
    describe_task,
    duration,
    failure_words,
    figure,
    is_finished,
    limits,
    quality_objective,
)
from search.types import OBJECTIVES, Cost, Reference, Study, Trial, TrialState, cost_from_json

SHOWN = ("psnr_db", "ssim", "latency_ms", "macs_g", "params_m", "peak_mem_mib")
"""Figures that the tables show, whichever the run searched over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One of the three members that stand for the front.

    Args:
        names: The presets that it is, e.g. `("fastest", "balanced")`.
        meaning: What the names stand for.
        number: Of the trial.
        quality: The figure with its unit.
        gain: Over doing nothing, with its unit; empty where that is not known.
        costs: Labels and figures.
        network: In words.
    """

    names: tuple[str, ...]
    meaning: str
    number: int
    quality: str
    gain: str
    costs: tuple[tuple[str, str], ...]
    network: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One line of the funnel.

    Args:
        label: In words.
        number: Candidates.
        share: Of all that were considered, in percent.
        kept: Whether they went on; else they left the pipeline here.
    """

    label: str
    number: int
    share: float
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure in both themes, as data URIs."""

    light: str
    dark: str
    title: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A candidate or a reference that failed: its line and its traceback, without the machine's folders."""

    title: str
    reason: str
    trace: str


def write_all(study: Study) -> list[Path]:
    """Write the tables, `front.png`, `report.html`, and `experts.png` where presets have experts; return the paths."""
    return [*write_tables(study), save_front(study), *save_experts(study), write_report(study)]


def write_report(study: Study) -> Path:
    """Write `report.html` into the run's folder, whole or not at all; return its path."""
    return write_atomically(study.folder / "report.html", render_page(study).encode())


def render_page(study: Study) -> str:
    """Return the page. A run without any complete candidate gets one that says so."""
    environment = Environment(
        loader=PackageLoader("search.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(_view(study)) + "\n"


def _view(study: Study) -> dict[str, Any]:
    quality = quality_objective(study)
    members = front_trials(study)
    found = importances(study)
    explanation = explain_front(study)
    return {
        "style": _asset("report.css"),
        "script": _asset("report.js"),
        "data": packed_data(study, explanation),
        "plotly": packed_plotly(),
        "name": study.name,
        "task": describe_task(study),
        "status": _status(study),
        "headline": _headline(study),
        "cards": _cards(study),
        "baseline": baseline_name(study),
        "quality": _name(quality),
        "steps": describe_steps(study),
        "longer": LONGER,
        "quality_label": OBJECTIVES[quality].label,
        "figures": any(trial.measurements for trial in study.trials),
        **_bars(study, members),
        "front": _front_table(study, members),
        "upgrades": front_steps(explanation),
        "references": _reference_table(study),
        "funnel": _funnel(study),
        "lines": len(parallel_trials(study)),
        "agreement": _agreement_table(study),
        "calibration": str(study.facts.get("calibration", "")),
        "importance": _importance_table(found),
        "importance_of": [_importance_words(importance) for importance in found],
        "photographs": read_pictures(study.folder),
        "experts": _expert_pictures(study),
        "expert_table": _expert_table(study),
        "expert_labelled": any(use.degradations for trial in trials_with_experts(study) for use in uses_of(trial)),
        "trials": _trials_table(study),
        "conditions": conditions(study),
        "notes": tuple(study.facts.get("baseline", {}).get("notes", ())),
        "ended_early": str(study.facts.get("ended_early", "")),
        "doubts": _doubts(study),
        "remeasure": REMEASURE,
        "withdrawn": _withdrawn(study),
        "failures": _failures(study),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _asset(name: str) -> Markup:
    """Return a file that stands beside the template, as it is."""
    return Markup(files("search.report").joinpath("templates", name).read_text(encoding="utf-8"))


# -- the decision ------------------------------------------------------------------------------------


def _status(study: Study) -> str:
    tally = funnel(study)
    asked = study.spec.get("search", {}).get("trials")
    trained = f"{tally['trained']:,} of " if asked else ""
    trained += count(asked or tally["trained"], "candidate")
    parts = ["finished" if is_finished(study) else "not finished", f"{trained} trained"]
    if "elapsed_s" in study.facts:
        parts.append(duration(float(study.facts["elapsed_s"])))
    return ", ".join(parts)


def _headline(study: Study) -> str:
    members = front_trials(study)
    if not members:
        return "No candidate is complete yet: there is nothing to choose from."
    complete = len(study.in_state(TrialState.COMPLETE))
    kept = count(len(members), "network is", "networks are")
    return f"{kept} on the front, out of {complete:,} complete: for each, none is better in every objective."


def _cards(study: Study) -> list[Card]:
    """Return a card for each distinct preset, from cheap to dear."""
    named: dict[int, list[str]] = {}
    presets = choose_presets(study)
    for name, trial in presets.items():
        named.setdefault(trial.number, []).append(name)
    trials = {trial.number: trial for trial in presets.values()}
    return [_card(study, trials[number], tuple(names)) for number, names in named.items()]


def _card(study: Study, trial: Trial, names: tuple[str, ...]) -> Card:
    quality = quality_objective(study)
    shown = dict.fromkeys((*cost_objectives(study), "latency_ms", "macs_g", "params_m"))
    return Card(
        names=names,
        meaning="; ".join(PRESETS[name] for name in names),
        number=trial.number,
        quality=_with_unit(quality, trial.value(quality)),
        gain=_gain(study, trial, quality),
        costs=tuple((_name(cost), _cost(trial, cost)) for cost in shown),
        network=describe_network(trial.config),
    )


def _gain(study: Study, trial: Trial, quality: str) -> str:
    value, baseline = trial.value(quality), baseline_value(study, quality)
    if value is None or baseline is None:
        return ""
    return f"{value - baseline:+.{OBJECTIVES[quality].decimals}f}{' dB' if quality == 'psnr_db' else ''}"


def _cost(trial: Trial, cost: str) -> str:
    """Return a cost with its unit; a latency with its interval."""
    latency = None if trial.cost is None else trial.cost.latency
    text = _with_unit(cost, trial.value(cost))
    if cost != "latency_ms" or latency is None:
        return text
    return f"{text} ({figure(cost, latency.low_ms)}–{figure(cost, latency.high_ms)})"


def _with_unit(objective: str, value: float | None) -> str:
    unit = OBJECTIVES[objective].label.partition("(")[2].rstrip(")")
    return f"{figure(objective, value)} {unit}".rstrip()


def _name(objective: str) -> str:
    return OBJECTIVES[objective].label.partition(" (")[0]


# -- figures -----------------------------------------------------------------------------------------


def _expert_pictures(study: Study) -> list[Picture]:
    what = "Share of the choices that each expert gets: dashed a fair share, dotted where an expert counts as dead."
    return [
        _picture(
            partial(draw_experts, study, [(f"trial {trial.number}", trial)]),
            f"{names.capitalize()}, trial {trial.number}",
            what,
        )
        for names, trial in presets_with_experts(study).items()
    ]


def _picture(draw: Callable[[Theme], Figure], title: str, description: str) -> Picture:
    return Picture(light=_data_uri(draw(LIGHT)), dark=_data_uri(draw(DARK)), title=title, description=description)


def _data_uri(canvas: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(render(canvas)).decode()


# -- tables ------------------------------------------------------------------------------------------


def _front_table(study: Study, members: Sequence[Trial]) -> Table:
    presets = choose_presets(study)
    verified = {t.number: cost for t in members if (cost := _verified(study, t)) is not None}
    certain = _certainty_columns(study, members)
    decisive, rest = _objectives_shown(study)
    again = ["again (ms)"] if verified else []
    columns = ["trial", *_labels(study, decisive), *certain, "preset", *_labels(study, rest), *again, "network"]
    rows = []
    for trial in members:
        names = " = ".join(name for name, chosen in presets.items() if chosen.number == trial.number)
        again_ms = verified[trial.number].latency_ms if trial.number in verified else None
        rows.append(
            (
                trial_cell(trial),
                *_figures(study, trial, decisive),
                *(column[trial.number] for column in certain.values()),
                text_cell(names),
                *_figures(study, trial, rest),
                *([number_cell("latency_ms", again_ms)] if verified else []),
                text_cell(describe_network(trial.config)),
            )
        )
    return _table("front", columns, rows)


def _bars(study: Study, members: Sequence[Trial]) -> dict[str, str]:
    """Return what the bars of the figure are intervals of, in a sentence and in short; empty where there are none."""
    terms = {i.term for i in (shown_interval(study, t) for t in members) if i is not None}
    gain = f"the gain over {baseline_name(study)}, photograph by photograph"
    texts = {
        frozenset[str](): ("", ""),
        frozenset({GAIN}): (gain, "gain, 95 %"),
        frozenset({SEEDS}): ("the mean over seeds", "mean over seeds, 95 %"),
    }
    both = (f"the mean over seeds, with one seed of {gain}", "seeds or gain, 95 %")
    sentence, short = texts.get(frozenset(terms), both)
    return {"bars": sentence, "bars_in_short": short}


def _certainty_columns(study: Study, members: Sequence[Trial]) -> dict[str, dict[int, Cell]]:
    """Return what is known of each member's quality beyond one figure, by trial; columns that say nothing left out."""
    known = {t.number: estimate(t, quality_of(study.objectives)) for t in members}
    columns: dict[str, dict[int, Cell]] = {}
    gains = gain_intervals(study, members)
    if gains:
        images = count(len(study.facts["baseline"]["psnr_per_image_db"]), "image")
        columns[f"gain, 95 % over {images}"] = {n: _interval_cell(i) for n, i in gains.items()}
    elif any(e is not None and e.interval is not None for e in known.values()):
        columns["95 %"] = {n: text_cell("–" if e is None else str(e), quiet=True) for n, e in known.items()}
    shares = front_probabilities(study.trials, study.objectives) if study.objectives else {}
    if shares:
        columns["mean over seeds"] = {
            n: number_cell("psnr_db" if e is None else e.quality, None if e is None else e.mean)
            for n, e in known.items()
        }
        columns["on the front"] = {n: percent_cell(shares.get(n)) for n in known}
    return columns


def _interval_cell(interval: Interval) -> Cell:
    return Cell(text=interval.signed(), sort=sort_key(interval.low), numeric=True, quiet=True)


def _reference_table(study: Study) -> Table:
    """Return a row for each network that the run is compared with."""
    decisive, rest = _objectives_shown(study)
    figures = *_labels(study, decisive), "against the front", *_labels(study, rest)
    columns = ["reference", *figures, "steps", "network", "budget"]
    return _table("references", columns, [_reference_row(study, standing) for standing in standings(study)])


def _reference_row(study: Study, standing: Standing) -> tuple[Cell, ...]:
    reference = standing.reference
    decisive, rest = _objectives_shown(study)
    return (
        text_cell(reference.name),
        *_figures(study, reference, decisive),
        text_cell(describe_standing(study, standing), wraps=True),
        *_figures(study, reference, rest),
        count_cell(None if reference.last is None else reference.last.step),
        text_cell(describe_made(dict(reference.made))),
        text_cell("–" if reference.cost is None else f"over: {reference.over}" if reference.over else "kept"),
    )


def _trials_table(study: Study) -> Table:
    decisive, rest = _objectives_shown(study)
    figures = (*decisive, *rest)
    columns = ["trial", "state", *_labels(study, figures), "steps", "network", "reason"]
    rows = [
        (
            trial_cell(trial),
            text_cell(trial.state.value.lower()),
            *_figures(study, trial, figures),
            count_cell(None if trial.last is None else trial.last.step),
            text_cell(describe_network(trial.config)),
            text_cell(trial.reason),
        )
        for trial in study.trials
    ]
    return _table("candidates", columns, rows)


def _expert_table(study: Study) -> Table:
    """Return a row for each mixture of each complete candidate."""
    columns = ["trial", "stage", "load entropy", "judgement", "confidence", "degradation → expert (bits)", "load"]
    rows = [
        (
            trial_cell(trial),
            text_cell(use.stage),
            share_cell(use.load_entropy),
            text_cell(judgement(use)),
            share_cell(use.confidence),
            share_cell(use.information_bits),
            text_cell(" / ".join(f"{share:.0%}" for share in use.load)),
        )
        for trial in trials_with_experts(study)
        for use in uses_of(trial)
    ]
    return _table("experts", columns, rows)


def _agreement_table(study: Study) -> Table:
    """Return a row for each rung but the last."""
    columns = ["at step", "against step", "candidates", "rank correlation", "the best is the same"]
    rows = [
        (
            count_cell(at.step),
            count_cell(at.last_step),
            count_cell(at.candidates),
            share_cell(at.spearman),
            text_cell({None: "–", True: "yes", False: "no"}[at.best_kept]),
        )
        for at in rank_agreement(study)
    ]
    return _table("rank agreement", columns, rows)


def _importance_table(found: Sequence[Importance]) -> Table:
    """Return a row for each dimension, what matters most for the first figure on top."""
    names = list(dict.fromkeys(name for importance in found for name in importance.shares))
    names.sort(key=lambda name: -found[0].shares.get(name, 0.0))
    rows = [(text_cell(name), *(percent_cell(importance.shares.get(name)) for importance in found)) for name in names]
    return _table("importance", ["dimension", *(_name(importance.objective) for importance in found)], rows)


def _importance_words(importance: Importance) -> str:
    return f"{_name(importance.objective)}, {importance.best} of {importance.candidates:,}"


def _table(name: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]]) -> Table:
    words = {"preset", "state", "network", "reason", "stage", "judgement", "load", "dimension", "the best is the same"}
    return table(name, columns, rows, words=words | {"reference", "against the front", "budget", "95 %"})


def _objectives_shown(study: Study) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the figures that decide, which stand first in a table, and the rest: the quality and the run's costs."""
    decisive = tuple(dict.fromkeys((quality_objective(study), *(cost_objectives(study) or ("latency_ms",)))))
    return decisive, tuple(name for name in SHOWN if name not in decisive)


def _labels(study: Study, names: Sequence[str]) -> list[str]:
    """Return the heads of figures; the quality is followed by what is gained over the baseline."""
    labels = [OBJECTIVES[name].label for name in names]
    quality = quality_objective(study)
    if quality in names and baseline_value(study, quality) is not None:
        labels.insert(1 + names.index(quality), f"over {baseline_name(study)}")
    return labels


def _figures(study: Study, trial: Trial | Reference, names: Sequence[str]) -> list[Cell]:
    """Return the cells under the heads of `_labels`."""
    quality = quality_objective(study)
    cells = [number_cell(name, trial.value(name)) for name in names]
    baseline, value = baseline_value(study, quality), trial.value(quality)
    if quality in names and baseline is not None:
        gain = None if value is None else value - baseline
        cells.insert(1 + names.index(quality), gain_cell(quality, gain))
    return cells


def _verified(study: Study, trial: Trial) -> Cost | None:
    """Return what a member of the front cost when it was measured again at the run's end."""
    data = study.facts.get("verified", {}).get(str(trial.number))
    return None if data is None else cost_from_json(data)


# -- what became of the candidates -------------------------------------------------------------------


def _funnel(study: Study) -> list[Stage]:
    tally = funnel(study)
    labels = {
        "considered": "considered",
        "duplicate": "the same network as an earlier one",
        "illegal": "no legal network",
        **{f"over_{name}": f"{_name(name)} over {_limit(name, value)}" for name, value in limits(study).items()},
        "screened": "left behind untrained by their score",
        "trained": "trained",
        "stopped": "stopped early",
        "failed": f"failed ({failure_words(study)})",
        "withdrawn": "withdrawn after a second measurement",
        "running": "waiting or in training",
        "complete": "complete",
    }
    labels |= {name: name.replace("_", " ") for name in tally if name not in labels}
    total = max(tally["considered"], 1)
    return [
        Stage(
            label=label,
            number=tally[name],
            share=round(100 * tally[name] / total, 2),
            kept=name in ("considered", "trained", "complete", "running"),
        )
        for name, label in labels.items()
        if tally.get(name) or name in ("considered", "trained", "complete")
    ]


def _limit(name: str, value: float) -> str:
    return f"{value:g} {OBJECTIVES[name].label.partition('(')[2].rstrip(')')}"


def _doubts(study: Study) -> list[tuple[str, str]]:
    """Return what has an untrusted latency that `run --remeasure` would measure again, and why it is untrusted."""
    named: dict[str, Trial | Reference] = {f"trial {t.number}": t for t in study.trials}
    named |= {f"reference {r.name}": r for r in study.references}
    costs = [(name, named[name].cost) for name in untrusted_latencies(study)]
    return [(name.capitalize(), "" if cost is None else cost.doubt) for name, cost in costs]


def _withdrawn(study: Study) -> list[tuple[str, str]]:
    return sorted(study.facts.get("withdrawn", {}).items(), key=lambda item: int(item[0]))


def _failures(study: Study) -> list[Failure]:
    failed = study.in_state(TrialState.FAILED)
    named = [(f"Trial {t.number}", t.reason, t.failure) for t in failed]
    named += [(f"Reference {r.name}", r.reason, r.failure) for r in study.references if r.reason]
    return [Failure(title=title, reason=reason, trace=_without_folders(trace)) for title, reason, trace in named]


def _without_folders(trace: str) -> str:
    """Shorten a traceback's files to their last two parts: a report is passed on, folders are private."""
    return re.sub(r'File "[^"]*?([^"/\\]+[/\\][^"/\\]+)"', r'File "\1"', trace)
