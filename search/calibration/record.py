"""What a calibration trained: which candidates, and the curve of each; plain values, in one JSON file.

The file is written whole after each training, under another name first, so that a calibration which was stopped
anywhere goes on from what it had finished.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.files import replace_file
from search.types import Scalar, StoreError

RECORD = "record.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network of a calibration.

    Args:
        number: From 0; names it.
        genotype: The point of the space.
        config: `HFIRConfig.to_dict()` of its training form.
        params_m: Parameters of the deploy form, in millions.
        macs_g: Multiply-accumulates of the deploy form in 1e9, at the experiment's size.
    """

    number: int
    genotype: Mapping[str, Scalar]
    config: Mapping[str, Any]
    params_m: float
    macs_g: float

    @property
    def levels(self) -> int:
        """What candidates are grouped by."""
        return int(self.genotype["levels"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One training.

    Args:
        candidate: Its number.
        seed: Draws initial weights and patches.
        learning_rate: Constant rate after the warm-up.
        steps: Where it was looked at, rising.
        psnr_db: There, of the averaged weights, on the centres of the validation photographs.
        raw_psnr_db: Likewise of the weights themselves.
        whole_psnr_db: At the last step, averaged weights, on whole photographs: what a run reports.
        elapsed_s: Seconds in training, looking excluded.
    """

    candidate: int
    seed: int
    learning_rate: float
    steps: tuple[int, ...]
    psnr_db: tuple[float, ...]
    raw_psnr_db: tuple[float, ...]
    whole_psnr_db: float
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A calibration as far as it has got.

    Args:
        name: Of the experiment.
        identity: Hash of all that decides what a curve means; a folder goes on only under the same one.
        space: Hash of the space that the candidates were drawn from.
        conditions: Task, proxy, crop, machine and versions; what a reader needs beside the figures.
        candidates: In order of their numbers.
        curves: Finished trainings at the experiment's rate.
        range_test: Finished trainings at other rates.
    """

    name: str
    identity: str
    space: str
    conditions: Mapping[str, Any]
    candidates: tuple[Candidate, ...]
    curves: tuple[Curve, ...] = ()
    range_test: tuple[Curve, ...] = ()

    def curve_of(self, candidate: int, seed: int) -> Curve | None:
        """Return a finished training, or None."""
        return next((c for c in self.curves if (c.candidate, c.seed) == (candidate, seed)), None)


def write_record(folder: Path, record: Record) -> Path:
    """Write a record into its folder, whole or not at all; return its path."""
    content = json.dumps({"schema": SCHEMA, **dataclasses.asdict(record)}, indent=None, separators=(",", ":"))
    return replace_file(folder / RECORD, lambda partial: partial.write_text(content + "\n", encoding="utf-8"))


def read_record(folder: Path) -> Record | None:
    """Return the record of a folder; None where there is none.

    Raises:
        StoreError: If it cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("schema") != SCHEMA:
            raise ValueError("it has another schema")
        fields["candidates"] = tuple(Candidate(**c) for c in fields["candidates"])
        for name in ("curves", "range_test"):
            fields[name] = tuple(_curve(c) for c in fields[name])
        return Record(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: not a calibration's record of schema {SCHEMA} ({error}).\n"
            "  Give another folder with --out, or delete the file: all is trained again."
        ) from error


def _curve(fields: dict[str, Any]) -> Curve:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Curve(**values)
