"""The summary of a calibration as a page of text, and all files that a calibration leaves beside its record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from search.calibration.figure import draw_calibration
from search.calibration.record import Record
from search.calibration.statistics import Estimate, Ordering
from search.calibration.verdict import RANKINGS, Findings, findings_to_json
from search.counts import count
from search.prediction import FILE, RungModel, predictor_to_json
from search.report.figures import render
from search.report.tables import write_atomically

FINDINGS, FIGURE, SUMMARY = "calibration.json", "calibration.png", "README.md"


def write_findings(folder: Path, record: Record, findings: Findings) -> list[Path]:
    """Write predictor, figures as JSON, picture and summary into a folder; return their paths."""
    files = {
        FILE: _json(predictor_to_json(findings.predictor)),
        FINDINGS: _json(findings_to_json(findings)),
        FIGURE: render(draw_calibration(record, findings), "png"),
        SUMMARY: summary(record, findings).encode(),
    }
    return [write_atomically(folder / name, content) for name, content in files.items()]


def summary(record: Record, findings: Findings) -> str:
    """Return the page, in Markdown."""
    agreement = findings.agreement
    parts = [
        f"# Calibration of {record.name}",
        "\n".join(f"* {line}" for line in findings.words),
        f"![curves and agreement]({FIGURE})",
        f"{findings.predictor.fitted_on}. Trained to {count(agreement.steps[-1], 'step')}; τ is Kendall's tau-b "
        "with the order at the last step (mean of the seeds), intervals are 95 %, by bootstrap over the candidates. "
        "Across seeds: the rung of one with the last step of the other. Best third: among the "
        "candidates that end best. Recall: of the quarter that ends best, the share in the best quarter at the rung.",
        "## Agreement of the value",
        _table(
            ("step", "τ", "across seeds", "best third", "recall", *_level_names(agreement.values), "not averaged"),
            [
                (str(step), *_row(value), f"{raw.tau.value:.2f}")
                for step, value, raw in zip(agreement.steps, agreement.values, agreement.raw_values, strict=True)
            ],
        ),
        _table(
            ("alone", "τ", "across seeds", "best third", "recall", *_level_names([agreement.params])),
            [("parameters", *_row(agreement.params)), ("MACs", *_row(agreement.macs))],
        ),
        f"Between seeds at the last step: τ {agreement.ceiling}; standard deviation {agreement.seed_sd_db:.3f} dB "
        f"against {agreement.spread_db:.2f} dB between best and worst. The centres that were looked at order the "
        f"candidates as whole photographs do with τ {agreement.whole_tau:.2f}.",
        "## Predictors, on candidates left out",
        _table(
            ("step", "features", "τ", "across seeds", "best third", "recall", *_level_names([agreement.params])),
            [
                (str(t.step), f"**{t.family}**" if t.family == findings.family else t.family, *_row(t.ordering))
                for t in findings.families
            ],
        ),
        "## Who goes on",
        f"Of the quarter that ends best, the share that a rung lets through where {findings.keep_asked:.0%} go on, by "
        "what candidates are ranked by (quality alone, costs not counted; mean of the seeds).",
        _table(
            ("rung", *RANKINGS),
            [(str(s.step), *(f"{s.shares[name]:.2f}" for name in RANKINGS)) for s in findings.survivals],
        ),
        "## The chosen predictor",
        *_coefficients(findings.predictor.models),
        *_rates(findings),
    ]
    return "\n\n".join(parts) + "\n"


def _row(order: Ordering) -> tuple[str, ...]:
    best = "–" if order.tau_best is None else f"{order.tau_best:.2f}"
    return (
        _short(order.tau),
        _short(order.tau_across),
        best,
        f"{order.recall.value:.2f}",
        *(f"{tau:.2f}" for tau in order.by_levels.values()),
    )


def _level_names(orders: Sequence[Ordering]) -> list[str]:
    return [f"levels {level}" for level in orders[0].by_levels]


def _short(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}..{estimate.high:.2f})"


def _coefficients(models: Sequence[RungModel]) -> list[str]:
    rows = [
        (str(model.step), name, f"{mean:.4g}", f"{scale:.3g}", f"{coefficient:+.3f}")
        for model in models
        for name, mean, scale, coefficient in zip(
            model.features, model.means, model.scales, model.coefficients, strict=True
        )
    ]
    what = (
        "What the chosen one weighs: dB at the last step for one standard deviation of a feature. `gain_db` is the "
        "rise for each doubling of steps since the rung before."
    )
    return [what, _table(("rung", "feature", "mean", "deviation", "dB"), rows)]


def _rates(findings: Findings) -> list[str]:
    if not findings.rates:
        return []
    first = findings.rates[0]
    rows = [(f"{r.learning_rate:g}", *(f"{value:.2f}" for value in r.psnr_db)) for r in findings.rates]
    title = f"Mean PSNR in dB of {count(first.candidates, 'candidate')}, averaged weights, one seed."
    return ["## Range test of the learning rate", title, _table(("rate", *(str(s) for s in first.steps)), rows)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
