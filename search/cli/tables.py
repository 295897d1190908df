"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from search.certainty import front_probabilities, quality_of
from search.counts import count
from search.pareto import pareto_front
from search.report import describe_standing, standings
from search.report.seeds import Estimate, estimate, gain_intervals
from search.report.words import figure
from search.types import OBJECTIVES, Reference, Study, Trial

COLUMNS = {
    "psnr_db": "PSNR\ndB",
    "ssim": "SSIM\n",
    "latency_ms": "latency\nms",
    "macs_g": "MACs\nG",
    "params_m": "params\nM",
    "peak_mem_mib": "memory\nMiB",
}
"""Figures and their headings."""
GAIN = "95 % of\ngain"
"""Heading of the interval of what a network gains over the baseline."""


def front_table(study: Study, rows: int | None = None, *, intervals: bool = False) -> Table:
    """Return the front of a run as a table, cheapest first, the knee marked; thinned out to `rows`."""
    front = pareto_front(study.trials, study.objectives)
    members = front.members if rows is None else _thinned(front.members, rows)
    title = f"Pareto front of {study.name}: {len(front.members)} of {count(len(study.trials), 'candidate')}"
    knee = {front.knee.number} if front.knee else set()
    return trial_table(study, members, title=title, marked=knee, intervals=intervals)


def trial_table(
    study: Study, trials: Sequence[Trial], *, title: str, marked: set[int] | None = None, intervals: bool = False
) -> Table:
    """Return trials as a table: figures, gain over the baseline, what is known beyond them, the network in words."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("trial\n", *COLUMNS.values(), "gain\ndB"):
        table.add_column(heading, justify="right", no_wrap=True)
    certain = certainty_columns(study, trials) if intervals else {}
    for heading in certain:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("network\n", overflow="fold")
    baseline = study.facts.get("baseline", {}).get("psnr_db")
    for trial in trials:
        mark = "*" if marked and trial.number in marked else ""
        figures = [_figure(trial, name) for name in COLUMNS]
        psnr = trial.value("psnr_db")
        gain = f"{psnr - baseline:+.2f}" if psnr is not None and baseline is not None else ""
        beyond = [column[trial.number] for column in certain.values()]
        table.add_row(f"{mark}{trial.number}", *figures, gain, *beyond, network_in_words(trial))
    notes = ["* the knee: nearest to the ideal"] if marked else []
    if any(_has_doubt(t) for t in trials):
        notes.append("? untrusted: the machine was busy; rerun the run's command with --remeasure on an idle machine")
    notes += _interval_notes(trials, of_gain=GAIN in certain) if intervals else []
    table.caption, table.caption_justify = "\n".join(notes) or None, "left"
    return table


def certainty_columns(study: Study, trials: Sequence[Trial]) -> dict[str, dict[int, str]]:
    """Return what is known of each quality beyond one figure, as columns by trial; those that say nothing left out."""
    quality = quality_of(study.objectives)
    known = {t.number: estimate(t, quality) for t in trials}
    columns: dict[str, dict[int, str]] = {}
    gains = gain_intervals(study, trials)
    if gains:
        columns[GAIN] = {n: i.signed() for n, i in gains.items()}
    elif any(e is not None and e.interval is not None for e in known.values()):
        columns["95 %\n"] = {n: "" if e is None else _ends(e) for n, e in known.items()}
    shares = front_probabilities(study.trials, study.objectives) if study.objectives else {}
    if shares:
        columns["seeds\n"] = {n: "" if e is None else str(e.seeds) for n, e in known.items()}
        columns["on front\n%"] = {n: f"{100 * shares[n]:.0f}" if n in shares else "" for n in known}
    return columns


def _ends(known: Estimate) -> str:
    return (
        ""
        if known.interval is None
        else "–".join(figure(known.quality, end) for end in (known.interval.low, known.interval.high))
    )


def _interval_notes(trials: Sequence[Trial], *, of_gain: bool) -> list[str]:
    known = [e for e in map(estimate, trials) if e is not None and e.interval is not None]
    if not known:
        return []
    if any(e.seeds > 1 for e in known):
        return ["95 %: of the mean over seeds, with one seed over the validation images; on front: see report.html"]
    what = "gain, photograph by photograph," if of_gain else "PSNR"
    return [f"95 %: of the {what} over {count(known[0].images, 'validation image')}, one seed each"]


def reference_table(study: Study) -> Table | None:
    """Return the networks that a run is compared with, and how each stands against the front; None without any."""
    found = standings(study)
    if not found:
        return None
    table = Table(title="References", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("name\n", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("against the front\n", overflow="fold")
    for standing in found:
        reference = standing.reference
        words = describe_standing(study, standing) + (f"; over the budget: {reference.over}" if reference.over else "")
        table.add_row(reference.name, *(_figure(reference, name) for name in COLUMNS), words)
    return table


_USUAL = {"skip": "gated", "downsampler": "strided", "upsampler": "pixelshuffle"}
"""What goes without saying of a network."""


def network_in_words(trial: Trial) -> str:
    """Return a genotype as a short line, `w16 L2 1-2|1|0-1 …`; docs/how-to/choose.md tells how to read it."""
    g = trial.genotype.values
    levels = int(g.get("levels", 1))
    encoder = "-".join(str(g[f"encoder_blocks.{i}"]) for i in range(1, levels + 1))
    decoder = "-".join(str(g[f"decoder_blocks.{i}"]) for i in range(levels, 0, -1))
    words = [f"w{g['width']} L{levels} {encoder}|{g['bottleneck_blocks']}|{decoder}"]
    if g.get("mixer") == "large_kernel":
        words.append(f"k{g['kernel_size']}{'r' if g['reparam'] else ''}")
    if g.get("mixer") == "dense":
        words.append("dense")
    if g.get("expansion", 2.0) != 2.0:
        words.append(f"x{g['expansion']:g}")
    attention = (trial.config or {}).get("attention")
    if attention and g.get("attention", "none") != "none":
        kind = f"win{g['window_size']}" if g["attention"] == "window" else "chan"
        words.append(f"{kind}@{_attended(str(g['attention_stages']), levels, attention['stages'])}")
    if g.get("num_experts", 1) != 1:
        words.append(f"moe{g['num_experts']}top{g['top_k']}@{g['expert_stages']}")
    if g.get("frequency_split"):
        refined = g.get("refiner", "none") != "none"
        words.append("split" + (f"+{g['refiner']}{g['refiner_depth']}" if refined else ""))
    words += [str(g[name]) for name, usual in _USUAL.items() if g.get(name, usual) != usual]
    return " ".join(words)


def _attended(choice: str, levels: int, stages: Sequence[str]) -> str:
    """Return where attention stands: as the space says it, or stage by stage where some of these have no blocks."""
    meant = choice.replace("deepest", f"enc{levels}+mid+dec{levels}").split("+")
    return choice if set(meant) == set(stages) else "+".join(stages)


def _figure(trial: Trial | Reference, name: str) -> str:
    value = trial.value(name)
    if value is None:
        return ""
    mark = "?" if name == "latency_ms" and _has_doubt(trial) else ""
    return f"{value:.{OBJECTIVES[name].decimals}f}{mark}"


def _has_doubt(trial: Trial | Reference) -> bool:
    return trial.cost is not None and trial.cost.latency is not None and bool(trial.cost.latency.doubt)


def _thinned(members: Sequence[Trial], rows: int) -> list[Trial]:
    """Return at most `rows` members, evenly spaced, both ends among them."""
    if len(members) <= rows:
        return list(members)
    return [members[round(i * (len(members) - 1) / (rows - 1))] for i in range(rows)]
