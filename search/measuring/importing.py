"""Figures of another device, brought back as a fact of the run; every line is checked before any is kept."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.measuring.device import COLUMNS
from search.store import note_fact, read_study
from search.types import InputError, Study

BUNDLED = "bundled"
DEVICES = "devices"
"""The fact of a run that holds the latencies of other devices, by the device's name and the candidate's number."""


def import_latencies(run: Path, file: Path, *, name: str) -> int:
    """Keep the latencies of another device with a run; what was imported under that name before is replaced.

    Args:
        run: The run's folder.
        file: What `measure_here.py` of the run's bundle wrote.
        name: What the device is called from now on.

    Returns:
        How many candidates have a latency now.

    Raises:
        InputError: If the name or a line cannot be used; the message leads to the line.
        StoreError: If another process holds the run.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"--name {name}: no name for a device.\n  Use letters, digits, '.', '_' and '-'.")
    study = read_study(run)
    rows = {}
    for line, row in _rows(file):
        number, latency = _checked(study, row, f"{file}:{line}")
        if number in rows:
            raise InputError(f"{file}:{line}: trial {number} stands there twice.\n  Remove one of the lines.")
        rows[number] = latency
    if not rows:
        raise InputError(f"{file}: holds no measurement.\n  Run the bundle's script on the device first.")
    told = {latency["host"] for latency in rows.values()}
    if len(told) > 1:
        raise InputError(f"{file}: holds figures of {' and '.join(sorted(told))}.\n  Import each under its own name.")
    imported = {"imported_at": datetime.now(UTC).isoformat(timespec="seconds"), "latencies": rows}
    note_fact(run, DEVICES, {**study.facts.get(DEVICES, {}), name: imported})
    return len(rows)


def _rows(file: Path) -> list[tuple[int, Mapping[str, str]]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}).\n  Give the CSV of the bundle's script.") from error
    reader = csv.DictReader(text.splitlines())
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{file}:1: lacks {', '.join(missing)}.\n  Give the CSV of the bundle's script as it is.")
    return [(reader.line_num, row) for row in reader]


def _checked(study: Study, row: Mapping[str, str], where: str) -> tuple[str, dict[str, Any]]:
    """Return a line as a candidate's number and the JSON of its `Latency`."""
    number = row["trial"]
    if number not in {str(t.number) for t in study.trials}:
        raise InputError(f"{where}: trial {number} is none of {study.name}.\n  Is this the CSV of another run?")
    if row["sha256"] not in study.facts.get(BUNDLED, {}).get(number, ()):
        raise InputError(
            f"{where}: trial {number} was measured with a file that was not written of it here "
            f"(sha256 {row['sha256'][:12]}…).\n  Bundle this run, and measure again."
        )
    figures = {name: _number(row, name, where) for name in ("median_ms", "low_ms", "high_ms")}
    if not figures["low_ms"] <= figures["median_ms"] <= figures["high_ms"]:
        raise InputError(f"{where}: the median does not lie in its interval.\n  Do not change the CSV by hand.")
    if row["trusted"] not in ("True", "False"):
        raise InputError(f"{where}: trusted: {row['trusted']!r} is neither True nor False.\n  Measure again.")
    return number, {
        **figures,
        "repeats": int(_number(row, "repeats", where)),
        "threads": int(_number(row, "threads", where)),
        "discarded_blocks": int(_number(row, "discarded_blocks", where, least=0.0)),
        "reference_drift": _number(row, "reference_drift", where, least=-1.0),
        "trusted": row["trusted"] == "True",
        "dtype": "float32",
        **{name: row[name] for name in ("at", "runtime", "device", "host", "measured_at")},
    }


def _number(row: Mapping[str, str], name: str, where: str, *, least: float = 1e-9) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < least:
        raise InputError(f"{where}: {name}: {row[name]!r} is no figure.\n  Measure this candidate again.")
    return value
