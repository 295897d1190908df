"""What the page's script draws from: the records as plain columns, and plotly, both compressed into the page."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from plotly.offline import get_plotlyjs

from search.certainty import front_probabilities, quality_of
from search.report.explain import FrontExplanation, Neighbour, explain_front
from search.report.figures import FIT_MARGIN, FIT_SHARE, drawn_references, hypervolume_growth
from search.report.intervals import Interval
from search.report.references import Standing, describe_made, describe_standing, standings
from search.report.seeds import estimate, shown_interval
from search.report.selection import choose_presets
from search.report.tables import dimension_names
from search.report.words import baseline_name, cost_objectives, describe_network, limits, quality_objective
from search.types import OBJECTIVES, Scalar, Study, Trial, TrialState

LINES = 500
"""More lines through one another show nothing, and take seconds to draw where there is no graphics card."""


def page_data(study: Study, explanation: FrontExplanation | None = None) -> dict[str, Any]:
    """Return all that the figures show, as plain JSON values.

    Candidates are columns, one entry each, for those with a legal network; a figure that is not known is None.

    Args:
        study: The records.
        explanation: Of its front, where it is there already: it takes a while on a long front.
    """
    members = (explanation or explain_front(study)).members
    shown = [trial for trial in study.trials if trial.config is not None]
    quality = quality_objective(study)
    return {
        "run": study.name,
        "objectives": {name: _objective(name) for name in OBJECTIVES if _is_known(shown, name)},
        "searched": list(study.objectives),
        "quality": quality,
        "fit": {"share": FIT_SHARE, "margin": FIT_MARGIN},
        "costs": list(cost_objectives(study)),
        "baseline": {"name": baseline_name(study), "values": _qualities(study.facts.get("baseline", {}))},
        "limits": limits(study),
        "presets": {name: trial.number for name, trial in choose_presets(study).items()},
        "front": [member.trial.number for member in members],
        "neighbours": {str(member.trial.number): [_neighbour(n) for n in member.neighbours] for member in members},
        "trials": _columns(shown) | _certainty(study, shown),
        "references": [_reference(study, s) for s in standings(study) if s.reference in drawn_references(study)],
        "volume": _volume(study),
        "parallel": _parallel(study, parallel_trials(study)),
    }


def parallel_trials(study: Study) -> list[Trial]:
    """Return the candidates that the parallel coordinates show: those trained longest, as many as can be drawn."""
    trained = [trial for trial in study.trials if trial.config is not None and trial.measurements]
    return sorted(trained, key=lambda trial: -trial.measurements[-1].step)[:LINES]


def pack(content: str) -> str:
    """Return a text as the page carries it: gzip in base64, the same bytes for the same text."""
    return base64.b64encode(gzip.compress(content.encode(), mtime=0)).decode()


def packed_data(study: Study, explanation: FrontExplanation | None = None) -> str:
    """Return `page_data`, packed."""
    return pack(json.dumps(page_data(study, explanation), separators=(",", ":"), allow_nan=False))


@cache
def packed_plotly() -> str:
    """Return the library that draws the figures (plotly.js, MIT), packed; 4.8 MB become 2."""
    return pack(get_plotlyjs())


def _objective(name: str) -> dict[str, Any]:
    objective = OBJECTIVES[name]
    return {"label": objective.label, "maximise": objective.maximise, "decimals": objective.decimals}


def _is_known(trials: Sequence[Trial], name: str) -> bool:
    return any(trial.value(name) is not None for trial in trials)


def _qualities(facts: Any) -> dict[str, float]:
    known = {name: facts.get(name) for name, objective in OBJECTIVES.items() if objective.maximise}
    return {name: float(value) for name, value in known.items() if value is not None}


def _columns(trials: Sequence[Trial]) -> dict[str, Any]:
    latencies = [None if t.cost is None else t.cost.latency for t in trials]
    return {
        "number": [t.number for t in trials],
        "state": [t.state.value for t in trials],
        "reason": [t.reason for t in trials],
        "words": [describe_network(t.config) for t in trials],
        "config": [dict(t.config or {}) for t in trials],
        "steps": [[m.step for m in t.measurements] for t in trials],
        "rungs": {
            name: [[_short(float(getattr(m, name))) for m in t.measurements] for t in trials]
            for name in ("psnr_db", "ssim")
        },
        "photographs": [_spread(t) for t in trials],
        "values": {name: [_short(t.value(name)) for t in trials] for name in OBJECTIVES if _is_known(trials, name)},
        "latency": [None if at is None else [_short(at.low_ms), _short(at.high_ms)] for at in latencies],
        "doubt": ["" if at is None else at.doubt for at in latencies],
    }


def _certainty(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return each complete candidate's intervals of the quality, and its probability of being on the front.

    `interval` tells networks apart (see `search.report.seeds.shown_interval`); `spread` is of the mean over unlike
    photographs, and is drawn on request.
    """
    known = [estimate(t, quality_of(study.objectives)) for t in trials]
    shown = [shown_interval(study, t) if t.state is TrialState.COMPLETE else None for t in trials]
    shares = front_probabilities(study.trials, study.objectives) if study.objectives else {}
    return {
        "certain_of": quality_of(study.objectives),
        "interval": [None if i is None else _ends(i.ends) for i in shown],
        "interval_words": [None if i is None else [i.term, i.text] for i in shown],
        "spread": [None if e is None or e.interval is None or e.over != "images" else _ends(e.interval) for e in known],
        "mean": [_short(e.mean) if e is not None and e.seeds > 1 else None for e in known],
        "on_front": [_short(shares.get(t.number)) for t in trials],
    }


def _reference(study: Study, standing: Standing) -> dict[str, Any]:
    reference = standing.reference
    latency = None if reference.cost is None else reference.cost.latency
    interval = shown_interval(study, reference)
    return {
        "name": reference.name,
        "words": describe_made(dict(reference.made)),
        "standing": describe_standing(study, standing),
        "values": {name: _short(reference.value(name)) for name in OBJECTIVES},
        "latency": None if latency is None else [_short(latency.low_ms), _short(latency.high_ms)],
        "interval": None if interval is None else _ends(interval.ends),
        "interval_words": None if interval is None else [interval.term, interval.text],
    }


def _neighbour(neighbour: Neighbour) -> dict[str, Any]:
    change, interval = neighbour.change, neighbour.change.psnr_interval_db
    return {
        "number": change.number,
        "dimension": neighbour.dimension,
        "here": _value_text(neighbour.here),
        "there": _value_text(neighbour.there),
        "state": neighbour.state.value,
        "step": neighbour.step,
        "full": neighbour.trained_fully,
        "psnr_db": _short(change.psnr_db),
        "interval": None if interval is None else _ends(interval),
        "clear": change.is_clear,
        "latency_ms": _short(change.latency_ms),
        "macs_g": _short(change.macs_g),
    }


def _value_text(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _spread(trial: Trial) -> list[float | None] | None:
    """Return the lowest and the highest PSNR over the validation photographs."""
    values = () if trial.last is None else trial.last.psnr_per_image_db
    return [_short(min(values)), _short(max(values))] if values else None


def _volume(study: Study) -> dict[str, list[Any]]:
    """Return the share of the dominated volume after each trained candidate, and the training spent by then."""
    volumes = hypervolume_growth(study)
    trained = [t for t in study.trials if t.measurements]
    final = volumes[-1] if volumes else 0.0
    seconds = accumulate(t.measurements[-1].elapsed_s for t in trained)
    return {
        "number": [t.number for t in trained],
        "share": [_short(volume / final) if final > 0 else 0.0 for volume in volumes],
        "seconds": [_short(value) for value in seconds],
    }


def _parallel(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the dimensions with several values; for each trained candidate the place of its value.

    Places count from 1, in the order of the values; 0 is a dimension that is not active there.
    """
    dimensions = {name: _ordered([t.genotype.values.get(name) for t in trials]) for name in dimension_names(study)}
    dimensions = {name: values for name, values in dimensions.items() if len(values) > 1}
    inactive = {name: any(name not in t.genotype.values for t in trials) for name in dimensions}
    return {
        "number": [t.number for t in trials],
        "dimensions": [
            {
                "name": name,
                "values": values,
                "inactive": inactive[name],
                "places": [_place(values, t.genotype.values.get(name)) for t in trials],
            }
            for name, values in dimensions.items()
        ],
    }


def _ordered(values: Sequence[Scalar | None]) -> list[str]:
    """Return the distinct values as texts: numbers by size, words in order of their letters."""
    known = {json.dumps(value): value for value in values if value is not None}
    numbers = all(isinstance(value, int | float) for value in known.values())
    key = (lambda text: float(known[text])) if numbers else str
    return sorted(known, key=key)


def _place(values: Sequence[str], value: Scalar | None) -> int:
    return 0 if value is None else 1 + values.index(json.dumps(value))


def _ends(interval: Interval) -> list[float | None]:
    return [_short(interval.low), _short(interval.high)]


def _short(value: float | None) -> float | None:
    """Return a figure to six digits; None where it is not finite, for JSON has no such number."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
