"""`front` and `select`: look at a run. Loads no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from search.cli.consoles import output_console
from search.cli.explaining import explanation_lines, explanation_record
from search.cli.tables import front_table, reference_table, trial_table
from search.counts import count
from search.files import shown
from search.report import (
    Preference,
    Selection,
    describe_standing,
    explain_front,
    front_frame,
    parse_wishes,
    rejections,
    select,
    standings,
)
from search.report.devices import on_device
from search.report.words import LONGER, after_steps, failure_words
from search.store import read_study
from search.types import OBJECTIVES, HFIRSearchError, Study, Trial, TrialState, to_json


def show_front(folder: Path, *, explain: bool, on: str | None, as_json: bool) -> None:
    """Print the front of a run, by the latencies of another device where one is named; explained on request.

    Raises:
        HFIRSearchError: If no candidate is complete, and none can be any more; after the JSON, where that is asked for.
    """
    study = on_device(read_study(folder), on)
    if as_json:
        explained = {"explanation": explanation_record(explain_front(study))} if explain else {}
        print_json({"run": study.name, "front": frame_records(study), **reference_records(study), **explained})
        _refuse_all_rejected(study)
        return
    _refuse_all_rejected(study)
    console = output_console()
    if not study.in_state(TrialState.COMPLETE):
        console.print(f"{shown(folder)}: no candidate is complete yet ({len(study.trials)} considered).", markup=False)
        return
    print_front(console, study)
    if explain:
        lines = ["", *explanation_lines(study)]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def show_selection(
    folder: Path, bounds: Mapping[str, str], weights: Mapping[str, float], *, on: str | None, as_json: bool
) -> None:
    """Print the members of a front that keep to the bounds, in the order of a preference.

    Args:
        folder: Of a run.
        bounds: As written, by the figure's name (see `search.report.parse_wishes`).
        weights: What comes first, by the figure's name (see `search.report.Preference`).
        on: Take the latencies of the device of that name.
        as_json: Print JSON instead of tables.

    Raises:
        HFIRSearchError: After what there is to say, if no member of the front keeps to the bounds, or there is no
            candidate that is complete or still can be.
    """
    wishes = [wish for name, text in bounds.items() for wish in parse_wishes(name, text)]
    order = Preference(weights)
    study = on_device(read_study(folder), on)
    selection = select(study, wishes=wishes, preference=order)
    if as_json:
        print_json(_selection_record(study, selection))
    else:
        _show_candidates(study, selection)
    _refuse_all_rejected(study)
    if selection.nearest is not None and not selection.candidates:
        raise HFIRSearchError(
            f"{folder}: no member of the front keeps to all bounds.\n"
            "  Loosen what excludes the most, or search on: hfir-search run takes more --trials."
        )


def _refuse_all_rejected(study: Study) -> None:
    """Refuse to show a front where every candidate was rejected or failed; say of what."""
    if not study.trials or study.in_state(TrialState.COMPLETE, TrialState.RUNNING):
        return
    found = [f"{number} {reason}" for reason, number in rejections(study).items()]
    failed = failure_words(study)
    found += [f"failed: {failed}"] if failed else []
    raise HFIRSearchError(
        f"{study.folder}: no candidate is complete: of {len(study.trials)} considered, {'; '.join(found) or 'none'}.\n"
        f"  Raise the limit that rejects most, or change the space: `hfir-search check {study.folder}/experiment.yaml` "
        "says how far candidates are from each limit."
    )


def _show_candidates(study: Study, selection: Selection) -> None:
    """Print who keeps to the bounds; if nobody does, who comes nearest and what it misses."""
    console = output_console()
    if selection.candidates:
        fitting, order = len(selection.candidates), selection.preference
        title = f"{fitting} of {count(selection.members, 'member')} of the front within the bounds, {order}"
        console.print(trial_table(study, selection.candidates, title=title))
    elif selection.nearest is not None:
        console.print("No member of the front keeps to all bounds.")
        console.print(trial_table(study, [selection.nearest], title="nearest"))
        for miss in selection.misses:
            console.print(f"It misses: {miss}", highlight=False, markup=False)
    else:
        console.print(f"{shown(study.folder)}: no candidate is complete yet.", markup=False)
    console.print("\n".join(_exclusion_lines(selection)), highlight=False, markup=False)


def _selection_record(study: Study, selection: Selection) -> dict[str, Any]:
    return {
        "run": study.name,
        "bounds": [str(exclusion.wish) for exclusion in selection.exclusions],
        "order": dict(selection.preference.weights),
        "members": selection.members,
        "candidates": [to_json(t) for t in selection.candidates],
        "distances": {str(number): distance for number, distance in selection.distances.items()},
        "untrusted": [t.number for t in selection.candidates if _is_untrusted(t)],
        "excluded": selection.excluded,
        "excluded_by": dict(selection.excluded_by),
        "exclusions": [{"bound": str(e.wish), "alone": e.alone, "only": e.only} for e in selection.exclusions],
        "nearest": None if selection.nearest is None else to_json(selection.nearest),
        "misses": [
            {"bound": str(m.wish), "value": m.value, "excess": m.excess, "words": str(m)} for m in selection.misses
        ],
    }


def _exclusion_lines(selection: Selection) -> list[str]:
    """Return what each bound shuts out, and what all do together."""
    lines = [
        f"{OBJECTIVES[e.wish.objective].label} {e.wish.op} {e.wish.value:g} excludes {e.alone}"
        f"{', its upper end counts' if e.wish.objective == 'latency_ms' and e.wish.is_upper else ''}"
        f"{f'; {e.only} by it alone' if e.only and len(selection.exclusions) > 1 else ''}"
        for e in selection.exclusions
        if e.alone
    ]
    if len(lines) > 1:
        lines.append(f"Together they exclude {selection.excluded} of {count(selection.members, 'member')}.")
    return lines


def _is_untrusted(trial: Trial) -> bool:
    return trial.cost is not None and trial.cost.latency is not None and not trial.cost.latency.trusted


def print_front(console: Console, study: Study) -> None:
    """Print the front of a run, the networks that it is compared with, and what the figures hold for."""
    console.print(front_table(study, intervals=True))
    references = reference_table(study)
    if references is not None:
        console.print(references)
    console.print(conditions(study), style="dim", highlight=False)


def reference_records(study: Study) -> dict[str, Any]:
    """Return what is known of a run's references as JSON values, under `references`; nothing without any."""
    records = [
        {
            "name": s.reference.name,
            "made": dict(s.reference.made),
            **{name: s.reference.value(name) for name in OBJECTIVES},
            "steps": None if s.reference.last is None else s.reference.last.step,
            "over_budget": s.reference.over,
            "failed": s.reference.reason,
            "dominated": s.is_dominated if s.is_done else None,
            "rival": None if s.rival is None else s.rival.number,
            "gain": s.gain,
            "words": describe_standing(study, s),
        }
        for s in standings(study)
    ]
    return {"references": records} if records else {}


def frame_records(study: Study) -> list[dict[str, Any]]:
    """Return the front's rows as JSON values."""
    return json.loads(front_frame(study).to_json(orient="records") or "[]")


def conditions(study: Study) -> str:
    """Return in one line what the figures hold for."""
    known = [t for t in study.trials if t.cost is not None and t.cost.latency is not None]
    if not known:
        return ""
    return _conditions_of(known[0], study)


def _conditions_of(trial: Trial, study: Study) -> str:
    cost = trial.cost
    if cost is None or cost.latency is None:
        return ""
    latency = cost.latency
    return (
        f"PSNR {after_steps(study)} of proxy training, of the first seed ({LONGER}); "
        f"latency on {latency.host}, {latency.device}, {latency.runtime}, {count(latency.threads, 'thread')}, "
        f"{latency.dtype}, batch 1, input {latency.at}; MACs at input {cost.macs_at} (FLOPs are twice that); "
        "deploy form"
    )


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output; a number that is not finite becomes null, a path is shown as text."""
    console = output_console()
    escaped = not console.encoding.startswith("utf")  # an escape loses nothing where a replaced character would
    console.print_json(json.dumps(_plain(value), allow_nan=False), ensure_ascii=escaped)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        return shown(value)  # a path whose name is not UTF-8
    return None if isinstance(value, float) and not math.isfinite(value) else value
