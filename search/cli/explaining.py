"""`front --explain`: what each member buys, what surrounds it, and what cannot be told apart. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from search.counts import count
from search.report import Change, ExplainedMember, FrontExplanation, Group, Neighbour, explain_front
from search.report.words import figure
from search.types import OBJECTIVES, Study

NEIGHBOURS = 4
"""Neighbours that are listed for each member; JSON holds all."""


def explanation_lines(study: Study) -> list[str]:
    """Return the explained front as lines of text."""
    explanation = explain_front(study)
    if not explanation.members:
        return [f"{study.name}: no complete candidate knows all objectives, so there is no front to explain."]
    order = "" if explanation.cost is None else f", from cheap to dear by {OBJECTIVES[explanation.cost].label}"
    lines = [f"The front of {study.name}, explained: {count(len(explanation.members), 'member')}{order}"]
    for member in explanation.members:
        lines += ["", *_member_lines(member)]
    lines += ["", *_group_lines(explanation.groups), *explanation.caveats]
    return lines


def explanation_record(explanation: FrontExplanation) -> dict[str, Any]:
    """Return an explained front as JSON values."""
    return {
        "cost": explanation.cost,
        "images": explanation.images,
        "members": [
            {
                "trial": member.trial.number,
                **{name: member.trial.value(name) for name in OBJECTIVES},
                "upgrade": _change_record(member.upgrade),
                "cheaper": _change_record(member.cheaper),
                "neighbours": [_neighbour_record(neighbour) for neighbour in member.neighbours],
            }
            for member in explanation.members
        ],
        "groups": [{"figures": list(g.figures), "trials": list(g.numbers)} for g in explanation.groups],
        "caveats": list(explanation.caveats),
    }


def _member_lines(member: ExplainedMember) -> list[str]:
    trial = member.trial
    values = {"PSNR": ("psnr_db", "dB"), "latency": ("latency_ms", "ms"), "MACs": ("macs_g", "G")}
    known = [
        f"{n} {figure(key, trial.value(key))} {u}" for n, (key, u) in values.items() if trial.value(key) is not None
    ]
    doubt = trial.cost is not None and trial.cost.latency is not None and not trial.cost.latency.trusted
    lines = [f"#{trial.number}  {', '.join(known)}{' (latency untrusted)' if doubt else ''}"]
    upgrade = "none, this is the best" if member.upgrade is None else _change(member.upgrade)
    cheaper = "none is cheaper" if member.cheaper is None else _change(member.cheaper)
    lines += [f"  next dearer and better:   {upgrade}", f"  best cheaper alternative: {cheaper}"]
    shown = member.neighbours[:NEIGHBOURS]
    lines += ["  one change away, evaluated:"] if shown else ["  one change away: nothing was evaluated"]
    lines += [f"    {_neighbour(neighbour)}" for neighbour in shown]
    more = len(member.neighbours) - len(shown)
    return [*lines, f"    and {more} more (--json shows all)"] if more else lines


def _change(change: Change) -> str:
    parts = [f"#{change.number}: {_db(change)}"]
    parts += [] if change.latency_ms is None else [f"{change.latency_ms:+.2f} ms"]
    parts += [] if change.macs_g is None else [f"{change.macs_g:+.3f} GMAC"]
    rates = [] if change.db_per_ms is None else [f"{change.db_per_ms:.3f} dB a ms"]
    rates += [] if change.db_per_gmac is None else [f"{change.db_per_gmac:.3f} dB a GMAC"]
    return ", ".join(parts) + (f"  ({', '.join(rates)})" if rates else "")


def _db(change: Change) -> str:
    if change.psnr_db is None:
        return "PSNR not known"
    interval = change.psnr_interval_db
    words = "" if interval is None else f" [{interval.low:+.2f}, {interval.high:+.2f}]"
    return f"{change.psnr_db:+.2f} dB{words}{'' if interval is None or change.is_clear else ' unclear'}"


def _neighbour(neighbour: Neighbour) -> str:
    told = f"{neighbour.dimension} {neighbour.here} -> {neighbour.there}"
    after = "never trained" if neighbour.step is None else f"after {count(neighbour.step, 'step')}"
    state = neighbour.state.value + (f", {neighbour.reason}" if neighbour.reason else "")
    return f"{told}: {_change(neighbour.change)}; {after}; {state}"


def _group_lines(groups: Sequence[Group]) -> list[str]:
    if not groups:
        return ["The intervals tell all members apart, where there are intervals."]
    names = {"psnr_db": "PSNR", "latency_ms": "latency"}
    return [
        f"Cannot be told apart in {' and '.join(names[f] for f in group.figures)}: "
        + ", ".join(f"#{number}" for number in group.numbers)
        for group in groups
    ]


def _change_record(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "trial": change.number,
        "psnr_db": change.psnr_db,
        "psnr_interval_db": None if change.psnr_interval_db is None else asdict(change.psnr_interval_db),
        "is_clear": change.is_clear,
        "latency_ms": change.latency_ms,
        "macs_g": change.macs_g,
        "db_per_ms": change.db_per_ms,
        "db_per_gmac": change.db_per_gmac,
    }


def _neighbour_record(neighbour: Neighbour) -> dict[str, Any]:
    return {
        "dimension": neighbour.dimension,
        "here": neighbour.here,
        "there": neighbour.there,
        "state": neighbour.state.value,
        "reason": neighbour.reason,
        "step": neighbour.step,
        "trained_fully": neighbour.trained_fully,
        "change": _change_record(neighbour.change),
    }
