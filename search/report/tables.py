"""A run as tables: one row a candidate, one column a figure or a dimension of the space.

`COLUMNS` says what each column means, and in which unit; docs/tables.md prints the same. Costs are of the deploy form
(fused, eval, batch 1), at the input sizes that the experiment names. A figure that was not found out is missing: a
candidate over its MACs limit has no latency.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from search.certainty import front_probabilities
from search.files import replace_file
from search.pareto import pareto_front
from search.report.seeds import estimate
from search.report.words import baseline_value, limits
from search.store import read_study
from search.types import OBJECTIVES, Reference, Study, Trial, TrialState


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the tables.

    Args:
        dtype: Pandas' name of its type; None where it depends on the dimension.
        unit: Of its figures; empty where there is none.
        meaning: In one line.
    """

    dtype: str | None
    unit: str
    meaning: str


COLUMNS: Mapping[str, Column] = {
    "trial": Column("Int64", "", "number of the candidate; missing for a reference"),
    "name": Column("string", "", "of a network that the run is compared with; missing for candidates"),
    "state": Column(
        "string",
        "",
        "COMPLETE, STOPPED, SCREENED, INFEASIBLE, DUPLICATE, FAILED or RUNNING; REFERENCE for what is no candidate of "
        "the search",
    ),
    "reason": Column("string", "", "why it is in that state; what is doubtful about a COMPLETE one; empty otherwise"),
    "key": Column("string", "", "16 hexadecimal digits that name its point of the space"),
    "psnr_db": Column("float64", "dB", "mean over the validation photographs, at the last rung that it reached"),
    "ssim": Column("float64", "", "likewise; at most 1"),
    "latency_ms": Column("float64", "ms", "median time of one forward pass"),
    "macs_g": Column("float64", "1e9", "multiply-accumulates of one forward pass; FLOPs are twice that"),
    "params_m": Column("float64", "1e6", "parameters"),
    "peak_mem_mib": Column("float64", "MiB", "peak tensor memory of one forward pass"),
    "steps": Column("Int64", "steps", "training steps spent on it, up to the last rung that it reached"),
    "train_s": Column("float64", "s", "training up to there, validation excluded"),
    "seed": Column("Int64", "", "draws its initial weights"),
    "expert_load_entropy": Column(
        "float64",
        "",
        "of its least balanced mixture: 1 for fair shares, 0 where one expert gets all; missing where it has no "
        "experts, or was stopped before the last rung",
    ),
    "expert_dead": Column(
        "Int64", "experts", "in all its mixtures, those with less than a tenth of a fair share; missing likewise"
    ),
    "seeds": Column("Int64", "", "trainings from different initial weights behind `psnr_mean_db`"),
    "psnr_mean_db": Column("float64", "dB", "mean over these seeds; `psnr_db` is the first one's, as is the front"),
    "psnr_low_db": Column(
        "float64",
        "dB",
        "lower end of the 95 % interval: of the mean over seeds by Student's t where there are two or more, else over "
        "the validation photographs by the bootstrap",
    ),
    "psnr_high_db": Column("float64", "dB", "upper end of it"),
    "psnr_interval": Column("string", "", "what it is over: `seeds` or `images`"),
    "front_probability": Column(
        "float64", "", "that it is on the front, given how seeds scatter; missing where no candidate has two seeds"
    ),
    "score": Column(
        "float64",
        "",
        "of the untrained network, by `search.screening.score`; higher is taken for better; missing without screening, "
        "and where it is over the budget",
    ),
    "space.<name>": Column(
        None,
        "",
        "one a dimension, such as `space.width` or `space.encoder_blocks.1`, in the order of the experiment file; "
        "missing where the dimension is inactive",
    ),
    "config": Column(
        "string", "", "the network as JSON, as `HFIRConfig.from_dict` reads it; missing for an illegal one"
    ),
}
"""Every column, in order; `space.<name>` stands for all dimensions of the space."""

REFERENCE = "REFERENCE"
"""What stands in the column `state` of a network that is no candidate."""

_OVER = re.compile(rf"\b({'|'.join(OBJECTIVES)}) \S+ > ")
"""How a reason names the limit that a candidate is over, e.g. `macs_g 8.109 > 8`."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was read from its folder.

    Args:
        study: The records.
        trials: Every candidate, as `trials_frame` gives them.
        front: The front's members, as `front_frame` gives them.

    `COLUMNS` says what the columns of both tables mean, and in which units.
    """

    study: Study
    trials: pd.DataFrame
    front: pd.DataFrame

    @property
    def references(self) -> pd.DataFrame:
        """The networks that the run is compared with, as `references_frame` gives them."""
        return references_frame(self.study)

    @property
    def baseline_psnr_db(self) -> float | None:
        """What bicubic enlargement, or the degraded input, scores; None where the run did not get that far."""
        return baseline_value(self.study, "psnr_db")

    def front_over(self, *objectives: str) -> pd.DataFrame:
        """Return the front under objectives of your own choice, from cheap to dear, with the columns of `trials`.

        Args:
            objectives: Names in `search.types.OBJECTIVES`, such as `"psnr_db", "params_m"`; those of the run where
                none is given. Candidates that do not know one of them take no part.

        Raises:
            InputError: If one is unknown.
        """
        return _frame(self.study, pareto_front(self.study.trials, objectives or self.study.objectives).members)


def load_run(folder: str | Path) -> Run:
    """Read a run from its folder, without touching it; works while the run goes on.

    Raises:
        InputError: If the folder holds no run.
        StoreError: If its journal is damaged.
    """
    study = read_study(Path(folder))
    return Run(study=study, trials=trials_frame(study), front=front_frame(study))


def trials_frame(study: Study) -> pd.DataFrame:
    """Return one row a candidate, in order of their numbers; the module describes the columns."""
    return _frame(study, study.trials)


def references_frame(study: Study) -> pd.DataFrame:
    """Return one row for each network that the run is compared with, with the columns of `trials_frame`."""
    return _frame(study, study.references)


def front_frame(study: Study) -> pd.DataFrame:
    """Return the rows of the complete candidates that no other beats, from cheap to dear."""
    return _frame(study, front_trials(study))


def front_trials(study: Study) -> tuple[Trial, ...]:
    """Return the front's members, by rising latency (or first cost, where latency is no objective)."""
    return pareto_front(study.trials, study.objectives).members if study.objectives else ()


def write_tables(study: Study) -> list[Path]:
    """Write `trials.csv`, `trials.parquet` and `front.csv` into the run's folder, each whole or not at all.

    The first two hold the references below the candidates.

    Returns:
        The files' paths.
    """
    trials = _frame(study, (*study.trials, *study.references))
    parquet = BytesIO()
    trials.to_parquet(parquet, index=False)
    contents = {
        "trials.csv": _csv(trials),
        "trials.parquet": parquet.getvalue(),
        "front.csv": _csv(front_frame(study)),
    }
    return [write_atomically(study.folder / name, content) for name, content in contents.items()]


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file so that a reader sees the old one or the new one, never a part; return its path."""
    return replace_file(path, lambda partial: partial.write_bytes(content))


def funnel(study: Study) -> dict[str, int]:
    """Count what became of the candidates.

    `considered` is the sum of `duplicate`, `illegal`, the `over_<limit>`s, `screened`, `stopped`, `complete`,
    `withdrawn`, `failed` and `running`: each candidate ends in one of these. `trained` counts those that reached a
    rung, wherever they ended. A candidate over two limits counts under the one that was looked at first.

    Returns:
        Numbers of candidates, in the order of the pipeline; zeros included.
    """
    over = [f"over_{name}" for name in limits(study)]
    stages = ["considered", "duplicate", "illegal", *over, "screened", "trained", "stopped", "complete", "withdrawn"]
    tally = dict.fromkeys([*stages, "failed", "running"], 0)
    for trial in study.trials:
        end = _end(study, trial)
        tally[end] = tally.get(end, 0) + 1
        tally["trained"] += bool(trial.measurements)
    return tally | {"considered": len(study.trials)}


def dimension_names(study: Study) -> list[str]:
    """Return every name that occurs in a genotype: as the experiment lists them, then the rest by name."""
    names = {name for trial in study.trials for name in trial.genotype.values}
    listed = {name: place for place, name in enumerate(study.spec.get("space", {}))}

    def place(name: str) -> tuple[int, list[tuple[bool, int, str]]]:
        section = name if name in listed else name.split(".")[0]
        return listed.get(section, len(listed)), _natural(name)

    return sorted(names, key=place)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort numbers within a name as numbers: `blocks.2` before `blocks.10`."""
    parts = name.split(".")
    return [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts]


def _frame(study: Study, networks: Sequence[Trial | Reference]) -> pd.DataFrame:
    shares = front_probabilities(study.trials, study.objectives) if study.objectives else {}
    rows = [_row(network) | _certainty(network, shares) for network in networks]
    columns: dict[str, Any] = {
        name: pd.array([row[name] for row in rows], dtype=_dtype(column.dtype))
        for name, column in COLUMNS.items()
        if name not in ("space.<name>", "config")
    }
    for name in dimension_names(study):
        dtype = _common_dtype(trial.genotype.values.get(name) for trial in study.trials)
        values = [network.genotype.values.get(name) if isinstance(network, Trial) else None for network in networks]
        columns[f"space.{name}"] = _dimension(values, dtype)
    columns["config"] = pd.array([row["config"] for row in rows], dtype=_dtype("string"))
    return pd.DataFrame(columns)


def _row(network: Trial | Reference) -> dict[str, Any]:
    last = network.last
    uses = () if last is None else last.experts
    return {
        **(_trial_fields(network) if isinstance(network, Trial) else _reference_fields(network)),
        **{name: network.value(name) for name in OBJECTIVES},
        "steps": None if last is None else last.step,
        "train_s": None if last is None else last.elapsed_s,
        "expert_load_entropy": min((use.load_entropy for use in uses), default=None),
        "expert_dead": sum(len(use.dead) for use in uses) if uses else None,
    }


def _trial_fields(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "name": None,
        "state": trial.state.value,
        "reason": trial.reason,
        "key": trial.key,
        "seed": trial.seed,
        "score": next(iter(trial.scores.values()), None),
        "config": None if trial.config is None else json.dumps(dict(trial.config)),
    }


def _certainty(network: Trial | Reference, shares: Mapping[int, float]) -> dict[str, Any]:
    """Return what is known of a network's quality beyond one figure; of references, nothing."""
    known = estimate(network) if isinstance(network, Trial) else None
    interval = None if known is None else known.interval
    return {
        "seeds": None if known is None else known.seeds,
        "psnr_mean_db": None if known is None else known.mean,
        "psnr_low_db": None if interval is None else interval.low,
        "psnr_high_db": None if interval is None else interval.high,
        "psnr_interval": None if known is None else known.over or None,
        "front_probability": shares.get(network.number) if isinstance(network, Trial) else None,
    }


def _reference_fields(reference: Reference) -> dict[str, Any]:
    return {
        "trial": None,
        "name": reference.name,
        "state": REFERENCE,
        "score": None,
        "reason": reference.reason or "; ".join(part for part in (reference.over, _doubt(reference)) if part),
        "key": None,
        "seed": None,
        "config": None,
    }


def _doubt(reference: Reference) -> str:
    latency = None if reference.cost is None else reference.cost.latency
    return "" if latency is None else latency.doubt


def _common_dtype(values: Iterable[Any]) -> str:
    """Return the type that holds all values of a dimension, whichever rows are shown."""
    kinds = {type(value) for value in values if value is not None}
    for dtype, members in {"boolean": {bool}, "Int64": {int}, "float64": {int, float}}.items():
        if kinds <= members:
            return dtype
    return "string"


def _dimension(values: Sequence[Any], dtype: str) -> Any:
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pd.array(texts if dtype == "string" else list(values), dtype=_dtype(dtype))


def _dtype(name: str | None) -> Any:
    """Return the type by its name; pandas' stubs know only some of the names."""
    return name


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _end(study: Study, trial: Trial) -> str:
    """Return where in the funnel a candidate ended."""
    if str(trial.number) in study.facts.get("withdrawn", {}):
        return "withdrawn"
    if trial.state is TrialState.INFEASIBLE:
        over = _OVER.search(trial.reason) if trial.cost is not None else None
        return f"over_{over[1]}" if over else "illegal"
    return trial.state.value.lower()
